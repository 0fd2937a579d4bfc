"""The order of samples: a pure function of (row groups, seed, epoch, lanes), computed where needed, stored nowhere.

Row groups are permuted, laid end to end, and the line is cut into one equal part per lane, so a lane reads only its own
row groups. A lane walks its part in windows of a few row groups, the rows of a window fully permuted. At step s, lane l
takes rows [s·B, s·B + B) of its walk, B being the lane batch. Every row comes once per epoch; the last step of an epoch
is short by what is missing, with nothing dropped and nothing padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from headway.core.keys import key

Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Cursor:
    """All that is needed to find the next sample of every lane. `step` counts within the epoch."""

    seed: int
    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of one row group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Window:
    """Consecutive pieces of one lane whose rows are permuted together; `first` is the walk's index of its first row."""

    index: int
    first: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        return sum(piece.stop - piece.start for piece in self.pieces)


def permutation(n: int, seed: int) -> Rows:
    """A permutation of range(n) that no NumPy release changes: Philox's raw stream is fixed, its shuffles are not."""
    return np.argsort(np.random.Philox(key=seed).random_raw(n), kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True)
class Order:
    """The walk of every lane over a dataset.

    Args:
        groups: rows of each row group, in the manifest's order.
        seed: of the permutations.
        lanes: number of lanes.
        lane_batch: rows a lane takes per step.
        window: row groups held in memory by all lanes together; each lane permutes rows within its share of them.
        shuffle: False walks the rows as stored (still cut into lanes).
    """

    groups: tuple[int, ...]
    seed: int
    lanes: int
    lane_batch: int
    window: int = 16
    shuffle: bool = True

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Every look-up of a window hashes its order, and a tuple of 100,000 row groups takes a millisecond.
        return hash((self.groups, self.seed, self.lanes, self.lane_batch, self.window, self.shuffle))

    @cached_property
    def rows(self) -> int:
        return sum(self.groups)

    @cached_property
    def steps_per_epoch(self) -> int:
        return -(-self._longest_lane // self.lane_batch)

    @property
    def _longest_lane(self) -> int:
        return -(-self.rows // self.lanes)

    def bounds(self, lane: int) -> tuple[int, int]:
        """The part of the line of rows that is the lane's: [start, stop)."""
        return self.rows * lane // self.lanes, self.rows * (lane + 1) // self.lanes

    def sizes(self, step: int) -> list[int]:
        """Rows that each lane takes at a step of the epoch; shape [lanes]."""
        first = step * self.lane_batch
        lengths = (stop - start for start, stop in map(self.bounds, range(self.lanes)))
        return [max(0, min(length - first, self.lane_batch)) for length in lengths]

    def cursor(self, step: int) -> Cursor:
        """The cursor before the step that is number `step` of the whole run."""
        return Cursor(self.seed, *divmod(step, self.steps_per_epoch))

    def windows(self, epoch: int, lane: int) -> tuple[Window, ...]:
        """The lane's windows in the order in which it walks them."""
        return _windows(self, epoch, lane)

    def window_order(self, epoch: int, lane: int, window: Window) -> Rows:
        """In which order a window's rows, numbered as its pieces lie, are taken; shape [window.rows]."""
        if not self.shuffle:
            return np.arange(window.rows)
        return permutation(window.rows, key("window", self.seed, epoch, lane, window.index))

    def ids(self, window: Window) -> Rows:
        """Sample ids (row numbers in the whole dataset) of a window's rows as its pieces lie; shape [window.rows]."""
        first = _first_ids(self.groups)
        return np.concatenate([np.arange(first[p.group] + p.start, first[p.group] + p.stop) for p in window.pieces])

    def lane_ids(self, epoch: int, lane: int) -> Rows:
        """Sample ids of the lane's whole walk through an epoch; shape [rows of the lane]."""
        walks = [self.ids(w)[self.window_order(epoch, lane, w)] for w in self.windows(epoch, lane)]
        return np.concatenate(walks) if walks else np.empty(0, np.int64)


@lru_cache(maxsize=8)
def _first_ids(groups: tuple[int, ...]) -> Rows:
    return np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])


@lru_cache(maxsize=4)
def _line(order: Order, epoch: int) -> tuple[Rows, Rows]:
    """Row groups in the epoch's order, shape [groups], and where each begins in the line, shape [groups + 1]."""
    count = len(order.groups)
    line = permutation(count, key("groups", order.seed, epoch)) if order.shuffle else np.arange(count)
    begins = np.concatenate([[0], np.cumsum(np.asarray(order.groups, np.int64)[line])])
    return line, begins


@lru_cache(maxsize=256)
def _windows(order: Order, epoch: int, lane: int) -> tuple[Window, ...]:
    line, begins = _line(order, epoch)
    start, stop = order.bounds(lane)
    if start == stop:
        return ()
    at = int(np.searchsorted(begins, start, side="right")) - 1
    pieces = []
    while at < len(line) and begins[at] < stop:
        low, high = max(start, int(begins[at])), min(stop, int(begins[at + 1]))
        if low < high:
            pieces.append(Piece(int(line[at]), low - int(begins[at]), high - int(begins[at])))
        at += 1
    share = max(1, order.window // order.lanes)
    windows, first = [], 0
    for index, begin in enumerate(range(0, len(pieces), share)):
        windows.append(Window(index, first, tuple(pieces[begin : begin + share])))
        first += windows[-1].rows
    return tuple(windows)
