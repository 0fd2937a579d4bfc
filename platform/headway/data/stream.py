"""The direct reader: each worker reads and transforms the rows of its own lanes, in threads, ahead of the training."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import count, islice
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.mixture import Mixture, Span, Walk
from headway.core.order import Rows, Window
from headway.data.ahead import Once, Threads
from headway.data.arrays import Array
from headway.data.gather import gathered_table, places
from headway.data.groups import Groups, Mask
from headway.data.reader import Batch, Transform, generator
from headway.data.windows import Place, Slice, Windows

PREFETCH = 256 * 2**20
EXPECTED = 64  # windows that a cache is told of beforehand
LOOK = 2 * 4096  # places of a mixture in which every source has at least one

Key = tuple[int, int, int]
"""A batch's epoch, step of the epoch, and lane."""

_Coming = tuple[int, int, int, Place, Window]
"""About which step of the run needs a window, its source, lane and place."""


class DirectReader:
    """See `headway.data.reader.Reader`.

    Args:
        sources: read the row groups of each dataset: one, or those of the mixture.
        order: of the rows: of the one dataset, or of the mixture.
        seed: the job's, of the transform's randomness.
        training: False walks the first epoch again and again, for evaluation.
        threads: that read and transform ahead.
        prefetch: bytes that are read ahead; at least the next batch is.
        steps: of the run, beyond which nothing is read ahead; None: no end.
        pin: give tensors in page-locked memory, from which a GPU copies faster.
    """

    def __init__(
        self,
        sources: Sequence[Groups],
        order: Walk,
        *,
        seed: int,
        training: bool = True,
        threads: int = 2,
        prefetch: int = PREFETCH,
        steps: int | None = None,
        pin: bool = False,
    ) -> None:
        orders = order.orders if isinstance(order, Mixture) else (order,)
        self.order = order
        self._sources = [Windows(groups, own, prefetch) for groups, own in zip(sources, orders, strict=True)]
        self._seed = seed
        self._training, self._steps, self._pin = training, steps, pin
        self._prefetch, self._num_threads = prefetch, threads
        self._transform: Transform | None = None
        self._threads = Threads(threads, "read-ahead")
        self._lock = threading.Lock()
        self._planning = threading.Lock()
        self._lanes: tuple[int, ...] = ()
        self._positions: list[dict[int, int]] = [{} for _ in self._sources]
        self._asked: dict[int, int] = {}
        self._touched: dict[int, list[tuple[int, Place]]] = {}
        self._now = 0
        self._windows: Iterator[_Coming] = iter(())
        self._peeked: deque[_Coming] = deque()
        self._keys: Iterator[Key] = iter(())
        self._batches: dict[Key, Once[Batch]] = {}
        self._batch_bytes = 0

    def use(self, transform: Transform | None) -> None:
        """See `Reader.use`. The transform is called in several threads, for several batches at once."""
        self._transform = transform
        for windows in self._sources:
            windows.as_arrays = transform is None

    def carry(self, lanes: Sequence[int], step: int) -> None:
        """See `Reader.carry`."""
        lanes = tuple(sorted(lanes))
        epoch, at = divmod(step, self.order.steps_per_epoch) if self._training else (0, step)
        with self._planning:
            positions: list[dict[int, int]] = [{} for _ in self._sources]
            for lane in lanes:
                for source, position in self._starts(epoch, at, lane):
                    positions[source][lane] = position
            for windows, own in zip(self._sources, positions, strict=True):
                windows.keep(own)
            with self._lock:
                self._lanes, self._now, self._positions = lanes, step, positions
                self._asked = dict.fromkeys(lanes, step - 1)
                self._touched.clear()
                self._batches = {k: b for k, b in self._batches.items() if k[2] in lanes and self._number(k) >= step}
            places = [(source, lane, at) for source, own in enumerate(positions) for lane, at in own.items()]
            self._windows = merge(*(self._coming(source, lane, at, step) for source, lane, at in places))
            self._peeked.clear()
            self._keys = self._coming_keys(lanes, step)
        self._threads.submit((step,), self._plan)

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        """See `Reader.batch`."""
        key = (epoch, step, lane)
        number = self._number(key)
        with self._lock:
            ready = self._batches.pop(key, None)
            self._now = number
            self._asked[lane] = number
        batch = self._make(key) if ready is None else ready.get()
        if self._turned(key) or ready is not None:
            self._threads.submit((number,), self._plan)
        return batch

    def close(self) -> None:
        """See `Reader.close`."""
        for windows in self._sources:
            windows.groups.give_up()
        self._threads.close()
        self._batches.clear()
        for windows in self._sources:
            windows.keep({})
            windows.groups.files.close()

    # A batch

    def _make(self, key: Key) -> Batch:
        epoch, step, lane = key
        spans, where = self._spans(key)
        alone = self._transform is None and not self._pin
        slices: list[Slice] = []
        ids: list[Rows] = []
        kept: list[Mask] = []
        for span in spans:
            for part in self._sources[span.source].slices(lane, span.epoch, span.start, span.stop, alone):
                shift = self.order.first_ids[span.source] if isinstance(self.order, Mixture) else 0
                ids.append(part.opened.ids[part.start : part.stop] + shift)
                kept.append(np.ones(part.stop - part.start, np.bool_) if part.kept is None else part.kept)
                if part.stop > part.start:
                    slices.append(part)
        found = ids[0] if len(ids) == 1 else np.concatenate(ids)
        order = None if where is None else np.argsort(where[np.concatenate(kept)], kind="stable")
        if order is not None:
            found = found[order]
        if not slices:
            return Batch({}, found)
        if self._transform is None:
            arrays: dict[str, Any] = _joined_arrays(slices, order)
        else:
            table = _joined_table(slices, order)
            random = generator(self._seed, epoch, step, lane, self._training)
            arrays = self._transform(table, random, self._training)
        if self._pin:
            arrays = _pinned(arrays)
        return Batch(arrays, found)

    def _spans(self, key: Key) -> tuple[tuple[Span, ...], Rows | None]:
        """The stretches of the sources' walks that a batch is made of, and the place of each of their rows in it."""
        epoch, step, lane = key
        start, size = step * self.order.lane_batch, self.order.sizes(step)[lane]
        if not size:
            raise ValueError(f"lane {lane} has no rows at step {step} of an epoch")
        if isinstance(self.order, Mixture):
            return self.order.spans(epoch, lane, start, start + size)
        return (Span(0, epoch, start, start + size),), None

    def _number(self, key: Key) -> int:
        """The batch's step of the run."""
        return (key[0] * self.order.steps_per_epoch if self._training else 0) + key[1]

    # What is read ahead

    def _starts(self, epoch: int, step: int, lane: int) -> Iterator[tuple[int, int]]:
        """Where the walk of each source is before a step: (source, rows from the run's beginning)."""
        start = step * self.order.lane_batch
        if not isinstance(self.order, Mixture):
            length = self._sources[0].length(lane)
            yield 0, epoch * length + min(start, length)
            return
        spans, _ = self.order.spans(epoch, lane, start, start + LOOK)
        seen = set()
        for span in spans:
            if span.source not in seen:
                seen.add(span.source)
                yield span.source, span.epoch * self._sources[span.source].length(lane) + span.start

    def _coming(self, source: int, lane: int, position: int, step: int) -> Iterator[_Coming]:
        """The windows that a lane will need of a source, and about when."""
        per_step: float = self.order.lane_batch
        if isinstance(self.order, Mixture):
            per_step *= self.order.shares[source] / sum(self.order.shares)
        for place, window, rows in self._sources[source].coming(lane, position, again=self._training):
            need = step + int(rows / per_step)
            if self._steps is not None and need >= self._steps:
                return
            yield need, source, lane, place, window

    def _coming_keys(self, lanes: tuple[int, ...], step: int) -> Iterator[Key]:
        """The batches that will be asked for."""
        last = self._steps if self._training else self.order.steps_per_epoch
        for number in count(step) if last is None else range(step, last):
            epoch, at = divmod(number, self.order.steps_per_epoch) if self._training else (0, number)
            sizes = self.order.sizes(at)
            for lane in lanes:
                if sizes[lane]:
                    yield epoch, at, lane

    def _turned(self, key: Key) -> bool:
        """Let go of the windows that the lane has left behind; returns whether it has come into another one."""
        lane, touched, ends = key[2], [], {}
        for span in self._spans(key)[0]:
            windows = self._sources[span.source]
            touched += [(span.source, place) for place in windows.places(lane, span.epoch, span.start, span.stop)]
            first = span.epoch * windows.length(lane)
            ends[span.source] = first + span.stop
        if self._touched.get(lane) == touched:
            return False
        self._touched[lane] = touched
        for source, end in ends.items():
            windows = self._sources[source]
            needed = {place for at, place in touched if at == source}
            with self._lock:
                carried = lane in self._positions[source]
                if carried:
                    self._positions[source][lane] = end
            windows.passed(lane, end if carried else None, needed)
        return True

    def _plan(self) -> None:
        """Have as much under way as may be."""
        with self._planning:
            told = False
            while self._begin_window():
                told = True
            if told:
                self._tell()
            while self._begin_batch():
                pass

    def _begin_window(self) -> bool:
        """Put the next window on its way; False if there is none, or no room."""
        if not self._peeked:
            self._peeked.extend(islice(self._windows, 1))
        if not self._peeked:
            return False
        need, source, lane, place, window = self._peeked[0]
        windows = self._sources[source]
        with self._lock:
            positions, now = [dict(own) for own in self._positions], self._now
        if not windows.lies_behind(place, window, positions[source].get(lane, 0)) and not windows.holds(place):
            ahead = sum(w.ahead(own) for w, own in zip(self._sources, positions, strict=True))
            if need > now and ahead and ahead + windows.guess(window) > self._window_bytes:
                return False
            held = windows.hold(place, window)
            self._threads.submit((need, 0, lane), lambda: windows.holds(place) and held.opened.get())
        self._peeked.popleft()
        return True

    def _begin_batch(self) -> bool:
        """Put the next batch on its way; False if none is to be made ahead, or there is no room."""
        if self._transform is None and not self._pin:
            return False
        with self._lock:
            number = len(self._batches)
            most = 2 * max(len(self._lanes), self._num_threads)
            if number and (number >= most or (number + 1) * self._batch_bytes > self._prefetch // 2):
                return False
            key = next(self._keys, None)
            if key is None:
                return False
            if self._number(key) <= self._asked.get(key[2], -1) or key in self._batches:
                return True
            batch = self._batches[key] = Once(lambda: self._make(key))
        self._threads.submit((self._number(key), 1, key[2]), lambda: key in self._batches and self._weigh(batch))
        return True

    def _weigh(self, batch: Once[Batch]) -> bool:
        """Make a batch, and note how big batches are."""
        arrays = batch.get().arrays
        if isinstance(arrays, dict):  # or the user's transform is about to be told
            self._batch_bytes = sum(getattr(array, "nbytes", 0) for array in arrays.values())
        return True

    @property
    def _window_bytes(self) -> int:
        return self._prefetch if self._transform is None and not self._pin else self._prefetch // 2

    def _tell(self) -> None:
        """Tell the files which row groups come next."""
        self._peeked.extend(islice(self._windows, max(0, EXPECTED - len(self._peeked))))
        for source, windows in enumerate(self._sources):
            coming = [piece.group for _, own, _, _, window in self._peeked if own == source for piece in window.pieces]
            windows.groups.files.expect([*windows.waiting(), *coming])


def _joined_arrays(slices: list[Slice], order: Rows | None) -> dict[str, Array]:
    pieces = [{n: a[part.start : part.stop] for n, a in part.opened.content.items()} for part in slices]  # type: ignore[union-attr]
    if len(pieces) == 1 and order is None:
        return pieces[0]
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    return joined if order is None else {name: array[order] for name, array in joined.items()}


def _joined_table(slices: list[Slice], order: Rows | None) -> pa.Table:
    tables = [part.opened.content.slice(part.start, part.stop - part.start) for part in slices]  # type: ignore[union-attr]
    if order is not None:
        return gathered_table(tables, places([table.num_rows for table in tables], order))
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


def _pinned(arrays: Any) -> Any:
    """Arrays as tensors in page-locked memory; what is none is left to be refused later."""
    import torch

    if not isinstance(arrays, dict):
        return arrays
    found = {}
    for name, array in arrays.items():
        plain = isinstance(array, np.ndarray) and array.dtype.kind in "biuf" and array.dtype.isnative
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])) if plain else array
        found[name] = tensor.pin_memory() if isinstance(tensor, torch.Tensor) and not tensor.is_cuda else tensor
    return found
