"""The order of samples: a pure function of (row groups, seed, epoch, lanes), computed where needed, stored nowhere.

Row groups are permuted, laid end to end, and the line is cut into one equal part per lane, so a lane reads only its own
row groups. A lane walks its part in windows of a few row groups, the rows of a window fully permuted. At step s, lane l
takes rows [s·B, s·B + B) of its walk, B being the lane batch. Every row comes once per epoch; the last step of an epoch
is short by what is missing, with nothing dropped and nothing padded.

With `Sampling`, the rows that the epoch draws take the place of all rows: they are laid along the same line of row
groups, in the order stored within each, and cut in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from headway.core.keys import key
from headway.core.sampling import Rows as Rows
from headway.core.sampling import Sampling, bucketed, dealt


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
    """Consecutive pieces of one lane whose rows are permuted together.

    Args:
        index: number in the lane's walk.
        first: the walk's index of the first row taken.
        pieces: what is read.
        rows: taken from the pieces: all of theirs, or with sampling fewer, or some more than once.
    """

    index: int
    first: int
    pieces: tuple[Piece, ...]
    rows: int

    @property
    def size(self) -> int:
        """Rows of the pieces."""
        return sum(piece.stop - piece.start for piece in self.pieces)


def permutation(n: int, seed: int) -> Rows:
    """A permutation of range(n) that no NumPy release changes: Philox's raw stream is fixed, its shuffles are not."""
    return np.argsort(np.random.Philox(key=seed).random_raw(n), kind="stable").astype(np.int64, copy=False)


class Cut:
    """Rows cut into lanes, and lanes into steps: what an epoch looks like, whichever rows it holds."""

    seed: int
    lanes: int
    lane_batch: int

    @property
    def rows(self) -> int:
        """Taken in an epoch."""
        raise NotImplementedError

    @cached_property
    def steps_per_epoch(self) -> int:
        return -(-self._longest_lane // self.lane_batch)

    @property
    def _longest_lane(self) -> int:
        return -(-self.rows // self.lanes)

    def bounds(self, lane: int) -> tuple[int, int]:
        """The part of the line of rows that is the lane's: [start, stop)."""
        return self.rows * lane // self.lanes, self.rows * (lane + 1) // self.lanes

    def length(self, lane: int) -> int:
        """Rows of the lane's walk through an epoch."""
        start, stop = self.bounds(lane)
        return stop - start

    def sizes(self, step: int) -> list[int]:
        """Rows that each lane takes at a step of the epoch; shape [lanes]."""
        first = step * self.lane_batch
        lengths = (stop - start for start, stop in map(self.bounds, range(self.lanes)))
        return [max(0, min(length - first, self.lane_batch)) for length in lengths]

    def cursor(self, step: int) -> Cursor:
        """The cursor before the step that is number `step` of the whole run."""
        return Cursor(self.seed, *divmod(step, self.steps_per_epoch))


@dataclass(frozen=True)
class Order(Cut):
    """The walk of every lane over a dataset.

    Args:
        groups: rows of each row group, in the manifest's order.
        seed: of the permutations.
        lanes: number of lanes.
        lane_batch: rows a lane takes per step.
        window: row groups held in memory by all lanes together; each lane permutes rows within its share of them.
        shuffle: False walks the rows as stored (still cut into lanes).
        sampling: which rows come how often, and with which others; None: each once an epoch.
    """

    groups: tuple[int, ...]
    seed: int
    lanes: int
    lane_batch: int
    window: int = 16
    shuffle: bool = True
    sampling: Sampling | None = None

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # and nothing that was worked out

    @cached_property
    def _hash(self) -> int:
        # Every look-up of a window hashes its order, and a tuple of 100,000 row groups takes a millisecond.
        return hash((self.groups, self.seed, self.lanes, self.lane_batch, self.window, self.shuffle, id(self.sampling)))

    @cached_property
    def stored(self) -> int:
        """Rows of the dataset."""
        return sum(self.groups)

    @cached_property
    def rows(self) -> int:
        drawn = self.sampling.rows if self.sampling else None
        return self.stored if drawn is None else drawn

    def windows(self, epoch: int, lane: int) -> tuple[Window, ...]:
        """The lane's windows in the order in which it walks them."""
        return _windows(self, epoch, lane)

    def window_order(self, epoch: int, lane: int, window: Window) -> Rows:
        """Which of a window's rows, numbered as its pieces lie, are taken, in this order; shape [window.rows]."""
        if self.shuffle:
            order = permutation(window.rows, key("window", self.seed, epoch, lane, window.index))
        else:
            order = np.arange(window.rows)
        if self.sampling is None:
            return order
        if self.sampling.scattered:
            order = self._chosen(epoch, lane, window)[order]
        if self.sampling.lengths is not None:
            size, buckets = self.lane_batch, self.sampling.buckets
            order = bucketed(
                order, self.sampling.lengths[self.ids(window)], window.first, size, buckets, self.seed, epoch
            )
        return order

    def ids(self, window: Window) -> Rows:
        """Sample ids (row numbers in the whole dataset) of a window's rows as its pieces lie; shape [window.size]."""
        first = _first_ids(self.groups)
        return np.concatenate([np.arange(first[p.group] + p.start, first[p.group] + p.stop) for p in window.pieces])

    def lane_ids(self, epoch: int, lane: int) -> Rows:
        """Sample ids of the lane's whole walk through an epoch; shape [rows of the lane]."""
        return self.walk_ids(epoch, lane, 0, self.length(lane))

    def walk_ids(self, epoch: int, lane: int, start: int, stop: int) -> Rows:
        """Sample ids of rows [start, stop) of the lane's walk through an epoch; shape [stop - start]."""
        parts = [
            self.ids(w)[self.window_order(epoch, lane, w)[max(0, start - w.first) : stop - w.first]]
            for w in self.windows(epoch, lane)
            if w.first < stop and start < w.first + w.rows
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _chosen(self, epoch: int, lane: int, window: Window) -> Rows:
        """The rows taken from a window, numbered as its pieces lie, in that order; shape [window.rows]."""
        first = _first_ids(self.groups)
        start = self.bounds(lane)[0] + window.first
        taken = self._walks(epoch)[start : start + window.rows].astype(np.int64)
        lengths = np.array([p.stop - p.start for p in window.pieces])
        begins = np.array([first[p.group] + p.start for p in window.pieces])
        places = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        groups = np.array([p.group for p in window.pieces])
        by_group = np.argsort(groups)
        piece = by_group[np.searchsorted(groups[by_group], _group_of(self.groups, taken))]
        chosen: Rows = taken - begins[piece] + places[piece]
        return chosen

    @cached_property
    def _walks(self) -> Callable[[int], Rows]:
        """All lanes' rows of an epoch, lane after lane, each along the line; kept for this epoch and the next."""
        return lru_cache(maxsize=2)(self._drawn)

    def _drawn(self, epoch: int) -> Rows:
        """Sample ids, shape [rows]."""
        assert self.sampling is not None
        drawn = self.sampling.draw(self.stored, self.seed, epoch)
        drawn = drawn.astype(np.int32 if self.stored < 2**31 else np.int64)
        line, _ = _line(self, epoch)
        first = _first_ids(self.groups)
        begins, ends = np.searchsorted(drawn, first[line]), np.searchsorted(drawn, first[line + 1])
        lengths = ends - begins
        shifts = begins - (np.cumsum(lengths) - lengths)
        along = drawn[np.repeat(shifts, lengths) + np.arange(len(drawn))]
        if self.sampling.strata is None:
            return along
        lanes = dealt(self.sampling.strata[along], [self.length(lane) for lane in range(self.lanes)])
        return along[np.argsort(lanes, kind="stable")]


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


def _group_of(groups: tuple[int, ...], ids: Rows) -> Rows:
    """The row group in which each sample lies; shape [ids]."""
    return np.searchsorted(_first_ids(groups), ids, side="right") - 1


@lru_cache(maxsize=256)
def _windows(order: Order, epoch: int, lane: int) -> tuple[Window, ...]:
    scattered = order.sampling is not None and order.sampling.scattered
    pieces = _scattered_pieces(order, epoch, lane) if scattered else _whole_pieces(order, epoch, lane)
    share = max(1, order.window // order.lanes)
    windows, first = [], 0
    for index, begin in enumerate(range(0, len(pieces), share)):
        part = pieces[begin : begin + share]
        windows.append(Window(index, first, tuple(piece for piece, _ in part), sum(taken for _, taken in part)))
        first += windows[-1].rows
    return tuple(windows)


def _whole_pieces(order: Order, epoch: int, lane: int) -> list[tuple[Piece, int]]:
    """The lane's stretch of the line, all of whose rows are taken: pieces, and rows taken from each."""
    line, begins = _line(order, epoch)
    start, stop = order.bounds(lane)
    if start == stop:
        return []
    at = int(np.searchsorted(begins, start, side="right")) - 1
    pieces = []
    while at < len(line) and begins[at] < stop:
        low, high = max(start, int(begins[at])), min(stop, int(begins[at + 1]))
        if low < high:
            pieces.append((Piece(int(line[at]), low - int(begins[at]), high - int(begins[at])), high - low))
        at += 1
    return pieces


def _scattered_pieces(order: Order, epoch: int, lane: int) -> list[tuple[Piece, int]]:
    """Of every row group that the lane takes from, the rows from the first to the last taken, and how many are."""
    start, stop = order.bounds(lane)
    if start == stop:
        return []
    first = _first_ids(order.groups)
    ids = order._walks(epoch)[start:stop].astype(np.int64)
    groups = _group_of(order.groups, ids)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(groups)) + 1, [len(ids)]])
    return [
        (Piece(int(groups[a]), int(ids[a] - first[groups[a]]), int(ids[b - 1] - first[groups[a]]) + 1), int(b - a))
        for a, b in pairwise(begins)
    ]
