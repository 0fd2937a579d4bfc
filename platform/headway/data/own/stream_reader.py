"""Reads a stream: each lane goes through its own share of the rows, and begins again where they end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headway.core.indices import Indices
from headway.core.keys import key
from headway.data.own.batching import collated, collated_by
from headway.data.own.seeding import lent
from headway.data.own.streams import Stream
from headway.data.read.reader import Batch, Collate, Transform
from headway.errors import BadInput

KEPT = 2
"""Batches of a lane that are had again without going through the stream anew: a step is done again after a loss."""


@dataclass
class _Lane:
    """Where a lane is. row: that comes next, from the run's beginning; epoch: how often it was through."""

    rows: Iterator[Any]
    row: int = 0
    epoch: int = 0
    kept: deque[tuple[int, list[Any]]] = field(default_factory=lambda: deque(maxlen=KEPT))


class StreamReader:
    """See `headway.data.read.reader.Reader`. A lane that begins in the middle, after a resume or on another worker,
    goes through what comes before: it has the same rows if the stream gives the same each time.

    Args:
        stream: the dataset.
        order: of as many rows as the run takes.
        use: of the dataset in the job, for errors.
        seed: the job's, of what is drawn while rows come.
    """

    def __init__(self, stream: Stream, order: Indices, use: str, seed: int) -> None:
        self.order = order
        self._stream, self._use, self._seed = stream, use, seed
        self._collate: Collate | None = None
        self._lanes: dict[int, _Lane] = {}

    def use(self, transform: Transform | None, collate: Collate | None = None) -> None:
        """See `Reader.use`."""
        self._collate = collate

    def carry(self, lanes: Sequence[int], step: int) -> None:
        """See `Reader.carry`. A worker that waits to join lets go of all lanes."""
        self._lanes = {lane: state for lane, state in self._lanes.items() if lane in lanes}

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        """See `Reader.batch`."""
        size = self.order.lane_batch
        ids = self.order.walk_ids(epoch, lane, step * size, (step + 1) * size)
        if not len(ids):
            raise ValueError(f"lane {lane} has no rows at step {step} of an epoch")
        rows = self._rows(lane, epoch * self.order.steps_per_epoch + step)
        if self._collate is not None:
            content = collated_by(self._collate, rows, (self._seed, epoch, step, lane))
        else:
            content = collated(rows, np.arange(len(rows)).tolist(), self._use)
        return Batch(content, ids, own=True)

    def close(self) -> None:
        """See `Reader.close`."""
        self._lanes.clear()

    def _rows(self, lane: int, step: int) -> list[Any]:
        """A lane's rows at a step of the run."""
        size = self.order.lane_batch
        with lent() as seeded:
            state = self._lanes.get(lane)
            for at, rows in state.kept if state is not None else ():
                if at == step:
                    return rows
            if state is None or state.row > step * size:
                seeded(key("stream", self._seed, lane, 0))
                state = self._lanes[lane] = _Lane(self._stream.lane(lane, self.order.lanes, 0))
            while state.row < step * size:
                self._next(state, lane, seeded)
            found = [self._next(state, lane, seeded) for _ in range(size)]
            state.kept.append((step, found))
            return found

    def _next(self, state: _Lane, lane: int, seeded: Any) -> Any:
        for fresh in (False, True):
            seeded(key("stream", self._seed, lane, state.row))
            if fresh:
                state.epoch += 1
                state.rows = self._stream.lane(lane, self.order.lanes, state.epoch)
            for row in state.rows:
                state.row += 1
                return row
        raise BadInput(
            f"{self._use} gives lane {lane} no rows",
            f"its rows are shared out among {self.order.lanes} lanes",
            f"Let it give at least {self.order.lanes} rows, a part of them to every lane, or set fewer lanes.",
        )
