"""Rows of a mixture, brought together from its sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from headway.core.mixture import Mixture
from headway.core.sampling import Rows
from headway.data.stream import Streams

Read = Callable[[int, int, int, int, int], tuple[pa.Table, Rows]]
"""read(source, epoch, lane, start, stop): rows [start, stop) of the lane's walk through the source's epoch, and their
sample ids in the source. Rows that were set aside are missing from both."""


def mixed(mixture: Mixture, read: Read, epoch: int, lane: int, start: int, stop: int) -> tuple[pa.Table, Rows]:
    """Rows [start, stop) of a lane's walk through a mixture's epoch, and their sample ids in the mixture.

    Raises:
        ValueError: there are no such rows.
    """
    spans, places = mixture.spans(epoch, lane, start, stop)
    if not spans:
        raise ValueError(f"rows [{start}, {stop}) lie outside lane {lane}")
    tables, ids, kept = [], [], []
    for span in spans:
        table, found = read(span.source, span.epoch, lane, span.start, span.stop)
        tables.append(table)
        ids.append(found + mixture.first_ids[span.source])
        if len(found) < span.stop - span.start:
            order = mixture.orders[span.source]
            kept.append(np.isin(order.walk_ids(span.epoch, lane, span.start, span.stop), found))
        else:
            kept.append(np.ones(len(found), bool))
    turn = np.argsort(places[np.concatenate(kept)])
    return pa.concat_tables(tables).take(pa.array(turn)), np.concatenate(ids)[turn]


class MixedStreams:
    """The lanes of a mixture that a worker carries.

    Args:
        order: of the mixture.
        sources: streams of each source.
    """

    def __init__(self, order: Mixture, sources: Sequence[Streams]) -> None:
        self.order, self._sources = order, sources

    def rows(self, epoch: int, step: int, lane: int) -> tuple[pa.Table, Rows]:
        """The rows that a lane takes at a step of the mixture's epoch, and their sample ids in the mixture."""
        start = step * self.order.lane_batch
        return mixed(self.order, self._read, epoch, lane, start, start + self.order.sizes(step)[lane])

    def _read(self, source: int, epoch: int, lane: int, start: int, stop: int) -> tuple[pa.Table, Rows]:
        return self._sources[source].stretch(epoch, lane, start, stop)

    def close(self) -> None:
        for source in self._sources:
            source.close()
