"""The order of rows that can be had one by one, whichever comes next: a dataset in memory, or one of the user's own.

Nothing is read in stretches here, as row groups are (see `headway.core.order`), so an epoch is one permutation of all
rows. It is cut into one equal part per lane; at step s, lane l takes rows [s·B, s·B + B) of its part, B being the lane
batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from headway.core.keys import key
from headway.core.order import Cut, permutation
from headway.core.sampling import Rows, Sampling


@dataclass(frozen=True)
class Indices(Cut):
    """The walk of every lane over rows that have numbers.

    Args:
        stored: rows of the dataset.
        seed: of the permutations.
        lanes: number of lanes.
        lane_batch: rows a lane takes per step.
        shuffle: False walks the rows as they are numbered.
        sampling: how many rows an epoch draws; None: each once.
    """

    stored: int
    seed: int
    lanes: int
    lane_batch: int
    shuffle: bool = True
    sampling: Sampling | None = None

    def __hash__(self) -> int:
        return hash((self.stored, self.seed, self.lanes, self.lane_batch, self.shuffle, id(self.sampling)))

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # and nothing that was worked out

    @cached_property
    def rows(self) -> int:
        drawn = self.sampling.rows if self.sampling else None
        return self.stored if drawn is None else drawn

    def lane_ids(self, epoch: int, lane: int) -> Rows:
        """Sample ids of the lane's whole walk through an epoch; shape [rows of the lane]."""
        return self.walk_ids(epoch, lane, 0, self.length(lane))

    def walk_ids(self, epoch: int, lane: int, start: int, stop: int) -> Rows:
        """Sample ids of rows [start, stop) of the lane's walk through an epoch; shape [stop - start], or fewer at its
        end."""
        first, last = self.bounds(lane)
        if not self.shuffle and self.sampling is None:
            return np.arange(first + start, min(first + stop, last))
        return self._lines(epoch)[first + start : min(first + stop, last)].astype(np.int64)

    @cached_property
    def _lines(self) -> Callable[[int], np.ndarray[Any, Any]]:
        """All lanes' rows of an epoch, lane after lane; kept for this epoch and the next."""
        return lru_cache(maxsize=2)(self._line)

    def _line(self, epoch: int) -> np.ndarray[Any, Any]:
        """Shape [rows]."""
        drawn = None if self.sampling is None else self.sampling.draw(self.stored, self.seed, epoch)
        order = permutation(self.rows, key("rows", self.seed, epoch)) if self.shuffle else np.arange(self.rows)
        line = order if drawn is None else drawn[order]
        return line.astype(np.int32 if self.stored < 2**31 else np.int64)
