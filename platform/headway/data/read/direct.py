"""The direct reader: each worker reads and transforms the rows of its own lanes, in threads, ahead of the training."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from heapq import merge
from itertools import count, islice
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
import pyarrow as pa

from headway.core.mixture import Mixture
from headway.core.order import Order, Rows, Window
from headway.data.arrays import Array
from headway.data.read.ahead import Once, Threads
from headway.data.read.aligned import aligned, aligned_batch, empty
from headway.data.read.gather import gathered_table
from headway.data.read.groups import Groups
from headway.data.read.reader import Batch, Collate, Transform, generator
from headway.data.read.windows import Place, Reach, Slice, Windows

PREFETCH = 256 * 2**20
MOST_WINDOWS = 64  # that are read ahead, however small they are: a tiny dataset is not read for a hundred epochs
EXPECTED = 64  # windows that a cache is told of beforehand
YIELD_S = 0.001
"""After a batch was taken, what comes later is left alone for so long: whoever took it comes to long computations then,
which leave Python to other threads. Before, it would wait a millisecond for them."""
LOOK = 2 * 4096  # places of a mixture in which every source has at least one

FIRST = (-1,)  # before any step

Key = tuple[int, int, int]
"""A batch's epoch, step of the epoch, and lane."""

_Coming = tuple[int, int, int, Place, Window]
"""About which step of the run needs a window, its source, lane and place."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a batch that come from one source.

    Args:
        source: which.
        first_id: what is added to its sample ids.
        end: the lane's rows of the source from the run's beginning up to the last of these.
        reaches: where they lie.
    """

    source: int
    first_id: int
    end: int
    reaches: Sequence[Reach]


class Made(NamedTuple):
    """A batch, and where its rows lie."""

    batch: Batch
    parts: Sequence[Part]


class DirectReader:
    """See `headway.data.read.reader.Reader`.

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
        order: Order | Mixture,
        *,
        seed: int,
        training: bool = True,
        threads: int = 2,
        prefetch: int = PREFETCH,
        steps: int | None = None,
        pin: bool = False,
    ) -> None:
        orders = order.orders if isinstance(order, Mixture) else (order,)
        self.order: Order | Mixture = order
        self._threads = Threads(threads, "read-ahead")
        self._sources = [
            Windows(groups, own, prefetch, partial(self._threads.submit, FIRST))
            for groups, own in zip(sources, orders, strict=True)
        ]
        self._seed = seed
        self._training, self._steps, self._pin = training, steps, pin
        self._prefetch, self._num_threads = prefetch, threads
        self._transform: Transform | None = None
        self._lock = threading.Lock()
        self._planning = threading.Lock()
        self._lanes: tuple[int, ...] = ()
        self._positions: list[dict[int, int]] = [{} for _ in self._sources]
        self._asked: dict[int, int] = {}
        self._touched: dict[int, list[tuple[int, Place]]] = {}
        self._now = 0
        self._going = False
        self._windows: Iterator[_Coming] = iter(())
        self._peeked: deque[_Coming] = deque()
        self._keys: Iterator[Key] = iter(())
        self._batches: dict[Key, Once[Made]] = {}
        self._batch_bytes = 0
        self._to_plan = False
        _open.add(self)

    def use(self, transform: Transform | None, collate: Collate | None = None) -> None:
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
                self._going = False
                self._asked = dict.fromkeys(lanes, step - 1)
                self._touched.clear()
                self._batches = {k: b for k, b in self._batches.items() if k[2] in lanes and self._number(k) >= step}
            places = [(source, lane, at) for source, own in enumerate(positions) for lane, at in own.items()]
            self._windows = merge(*(self._coming(source, lane, at, step) for source, lane, at in places))
            self._peeked.clear()
            self._keys = self._coming_keys(lanes, step)
        self._plan_soon(step)

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        """See `Reader.batch`."""
        key = (epoch, step, lane)
        ready = self._come_to(key)
        batch, parts = self._made(key) if ready is None else ready.get()
        self._left_behind(key, parts, ready is not None)
        return batch

    def skip(self, epoch: int, step: int, lane: int) -> None:
        """The batch was had from elsewhere: what is read ahead begins behind it."""
        key = (epoch, step, lane)
        ready = self._come_to(key)
        self._left_behind(key, self._parts(key)[0], ready is not None)

    def close(self) -> None:
        """See `Reader.close`."""
        _open.discard(self)
        for windows in self._sources:
            windows.groups.give_up()
            windows.groups.files.give_up()
        self._threads.close()
        self._batches.clear()
        for windows in self._sources:
            windows.keep({})
            windows.groups.files.close()

    # A batch

    def _come_to(self, key: Key) -> Once[Made] | None:
        """The training is at this batch; returns it if it was begun ahead."""
        with self._lock:
            self._now = self._asked[key[2]] = self._number(key)
            return self._batches.pop(key, None)

    def _left_behind(self, key: Key, parts: Sequence[Part], was_ready: bool) -> None:
        """The batch is done with; where that makes room, more is read ahead: batches by the half of what is kept."""
        self._going = True
        if self._turned(key[2], parts) or (was_ready and 2 * len(self._batches) <= self._most_batches):
            self._plan_soon(self._number(key), YIELD_S)

    def _made(self, key: Key) -> Made:
        parts, where = self._parts(key)
        return Made(self._batch_of(key, parts, where), parts)

    def _batch_of(self, key: Key, parts: Sequence[Part], where: Rows | None) -> Batch:
        alone = self._transform is None and not self._pin
        slices: list[Slice] = []
        ids: list[Rows] = []
        for part in parts:
            for piece in self._sources[part.source].slices(part.reaches, alone):
                slices.append(piece)
                ids.append(piece.ids + part.first_id if part.first_id else piece.ids)
        found = ids[0] if len(ids) == 1 else np.concatenate(ids)
        order = None
        if where is not None:
            kept = [np.ones(len(piece.ids), np.bool_) if piece.kept is None else piece.kept for piece in slices]
            order = np.argsort(where[np.concatenate(kept)], kind="stable")
            found = found[order]
        slices = [piece for piece in slices if len(piece.ids)]
        if not slices:
            return Batch({}, found)
        if self._transform is None:
            arrays: dict[str, Any] = _joined_arrays(slices, order)
        else:
            random = generator(self._seed, *key, self._training)
            arrays = self._transform(_joined_table(slices, order), random, self._training)
            arrays = arrays if self._pin else aligned_batch(arrays)
        return Batch(_pinned(arrays) if self._pin else arrays, found)

    def _parts(self, key: Key) -> tuple[Sequence[Part], Rows | None]:
        """The stretches of the sources' walks that a batch is made of, and the place of each of their rows in it.

        Raises:
            ValueError: there are none.
        """
        epoch, step, lane = key
        start = step * self.order.lane_batch
        stop = min(start + self.order.lane_batch, self.order.length(lane))
        if not 0 <= start < stop:
            raise ValueError(f"lane {lane} has no rows at step {step} of an epoch")
        if not isinstance(self.order, Mixture):
            end = epoch * self.order.length(lane) + stop
            return (Part(0, 0, end, self._sources[0].reaches(lane, epoch, start, stop)),), None
        parts = []
        spans, where = self.order.spans(epoch, lane, start, stop)
        for span in spans:
            windows = self._sources[span.source]
            end = span.epoch * windows.length(lane) + span.stop
            reaches = windows.reaches(lane, span.epoch, span.start, span.stop)
            parts.append(Part(span.source, self.order.first_ids[span.source], end, reaches))
        return parts, where

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
        """The windows that a lane will need of a source, and when; of a mixture, about when."""
        per_epoch, length = self.order.steps_per_epoch, self.order.length(lane)
        for place, window, rows in self._sources[source].coming(lane, position, again=self._training):
            if isinstance(self.order, Mixture):
                share = self.order.shares[source] / sum(self.order.shares)
                need = step + int(rows / share * per_epoch / length)
            else:
                need = max(step, place[1] * per_epoch + window.first // self.order.lane_batch)
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

    def _turned(self, lane: int, parts: Sequence[Part]) -> bool:
        """Let go of the windows that the lane has left behind; returns whether it has come into another one."""
        touched = [(part.source, reach.place) for part in parts for reach in part.reaches]
        if self._touched.get(lane) == touched:
            return False
        self._touched[lane] = touched
        for source in {part.source for part in parts}:
            with self._lock:
                carried = lane in self._positions[source]
                end = max(part.end for part in parts if part.source == source) if carried else None
                if end is not None:
                    self._positions[source][lane] = end
            self._sources[source].passed(lane, end, {place for at, place in touched if at == source})
        return True

    def _plan_soon(self, step: int, pause_s: float = 0.0) -> None:
        if not self._to_plan:
            self._to_plan = True
            self._threads.submit((step,), partial(self._plan, pause_s))

    def _plan(self, pause_s: float = 0.0) -> None:
        """Have as much under way as may be, after a pause."""
        if pause_s:
            time.sleep(pause_s)
        with self._planning:
            self._to_plan = told = False
            while self._begin_window():
                told = True
            if told:
                self._tell()
            while self._begin_batch():
                pass

    def _begin_window(self) -> bool:
        """Put the next window on its way; False if there is none, or no room.

        Until the first batch is given only what its step needs: somebody waits for that, and it takes all processors.
        """
        if not self._peeked:
            self._peeked.extend(islice(self._windows, 1))
        if not self._peeked:
            return False
        need, source, lane, place, window = self._peeked[0]
        windows = self._sources[source]
        with self._lock:
            positions, now = [dict(own) for own in self._positions], self._now
        if not windows.lies_behind(place, window, positions[source].get(lane, 0)) and not windows.holds(place):
            if need > now and not (self._going and self._has_room(windows.guess(window), positions)):
                return False
            held = windows.hold(place, window)
            self._threads.submit((need, 0, lane), lambda: held.opened.help() if windows.holds(place) else None)
        self._peeked.popleft()
        return True

    def _has_room(self, size: int, positions: list[dict[int, int]]) -> bool:
        """Whether a window of about so many bytes may be read ahead; one may whatever its size."""
        sizes = [held for w, own in zip(self._sources, positions, strict=True) for held in w.ahead(own)]
        few = len(sizes) < max(MOST_WINDOWS, 2 * len(self._lanes))
        return not sizes or (few and sum(sizes) + size <= self._window_bytes)

    def _begin_batch(self) -> bool:
        """Put the next batch on its way; False if none is to be made ahead, or there is no room."""
        if self._transform is None and not self._pin:
            return False
        with self._lock:
            number = len(self._batches)
            if number and (number >= self._most_batches or (number + 1) * self._batch_bytes > self._prefetch // 2):
                return False
            key = next(self._keys, None)
            if key is None:
                return False
            if self._number(key) <= self._asked.get(key[2], -1) or key in self._batches:
                return True
            made = self._batches[key] = Once(lambda: self._made(key))
        self._threads.submit(
            (self._number(key), 1, key[2]), lambda: self._weigh(made) if key in self._batches else None
        )
        return True

    @property
    def _most_batches(self) -> int:
        return 2 * max(len(self._lanes), self._num_threads)

    def _weigh(self, made: Once[Made]) -> None:
        """Make a batch, and note how big batches are."""
        made.help()
        arrays = made.value.batch.arrays if made.value is not None else None
        if isinstance(arrays, dict):  # or the user's transform is about to be told
            self._batch_bytes = sum(getattr(array, "nbytes", 0) for array in arrays.values())

    @property
    def _window_bytes(self) -> int:
        return self._prefetch if self._transform is None and not self._pin else self._prefetch // 2

    def _tell(self) -> None:
        """Tell the files which row groups come next."""
        self._peeked.extend(islice(self._windows, max(0, EXPECTED - len(self._peeked))))
        for source, windows in enumerate(self._sources):
            coming = [piece.group for _, own, _, _, window in self._peeked if own == source for piece in window.pieces]
            windows.groups.files.expect([*windows.waiting(), *coming])


_open: WeakSet[DirectReader] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Python aborts a process that ends while its threads are inside Arrow."""
    for reader in list(_open):
        with suppress(Exception):
            reader.close()


def _joined_arrays(slices: list[Slice], order: Rows | None) -> dict[str, Array]:
    if len(slices) == 1 and order is None:
        (one,) = slices
        return one.arrays() if one.opened.lay is not None else aligned_batch(one.arrays())
    pieces = [piece.arrays() for piece in slices]
    return {name: _joined([piece[name] for piece in pieces], order) for name in pieces[0]}


def _joined(pieces: list[Array], order: Rows | None) -> Array:
    joined = empty((sum(map(len, pieces)), *pieces[0].shape[1:]), pieces[0].dtype)
    np.concatenate(pieces, out=joined)
    return joined if order is None else aligned(joined[order])


def _joined_table(slices: list[Slice], order: Rows | None) -> pa.Table:
    tables = [piece.table() for piece in slices]
    if order is not None:
        return gathered_table(tables, order)
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


def _pinned(arrays: Any) -> Any:
    """Arrays as tensors in page-locked memory; what is none is left to be refused later."""
    import torch

    if not isinstance(arrays, dict):
        return arrays
    found = {}
    for name, array in arrays.items():
        plain = isinstance(array, np.ndarray) and array.dtype.kind in "biuf" and array.dtype.isnative
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])) if plain else aligned(array)
        found[name] = tensor.pin_memory() if isinstance(tensor, torch.Tensor) and not tensor.is_cuda else tensor
    return found
