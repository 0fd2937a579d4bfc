"""Reads a map-style dataset: in the thread that trains, or, where that takes long, ahead of it in other processes."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from headway.core.indices import Indices
from headway.core.order import Order
from headway.data.own import beside
from headway.data.own.batching import collated_by, nest
from headway.data.own.making import Key, Making, Part
from headway.data.own.rows import Columns, Rows
from headway.data.read.ahead import Once, Threads, reading_ahead
from headway.data.read.aligned import aligned
from headway.data.read.quarantine import Quarantine
from headway.data.read.reader import Batch, Collate, Transform

SLOW_S = 0.004
"""Seconds for a batch's rows, on the average, from which processes read ahead: less costs about what they would."""
LOOKED_AT = 3
"""Batches by which that is judged."""

logger = logging.getLogger(__name__)


class RowReader:
    """See `headway.data.read.reader.Reader`.

    Args:
        rows: the dataset.
        order: of its rows.
        use: of the dataset in the job, for errors.
        seed: the job's, of what is drawn while rows are read.
        training: False walks the first epoch again and again, for evaluation.
        processes: that read ahead where rows take long; 0: none.
        prefetch: bytes that are read ahead; one batch may be whatever its size.
        steps: of the run, beyond which nothing is read ahead; None: no end.
        pin: give tensors in page-locked memory.
        quarantine: takes the rows that raise; None: they end the run.
        slow_s: see SLOW_S.
    """

    def __init__(
        self,
        rows: Rows,
        order: Indices | Order,
        use: str,
        *,
        seed: int,
        training: bool = True,
        processes: int = 2,
        prefetch: int = 256 * 2**20,
        steps: int | None = None,
        pin: bool = False,
        quarantine: Quarantine | None = None,
        slow_s: float = SLOW_S,
    ) -> None:
        self.order: Indices | Order = order
        self._making = Making(rows, order, seed, training, use, quarantine is not None, raw=False)
        self._collate: Collate | None = None
        self._quarantine = quarantine
        self._steps, self._pin, self._slow_s, self._prefetch = steps, pin, slow_s, prefetch
        self._num = 0 if isinstance(rows, Columns) else processes
        self._threads = Threads(self._num, "read-ahead")
        self._children: queue.SimpleQueue[beside.Beside] = queue.SimpleQueue()
        self._all: list[beside.Beside] = []
        self._up = 0
        self._begun = self._closed = False
        self._lock = threading.Lock()
        self._lanes: tuple[int, ...] = ()
        self._asked: dict[int, int] = {}
        self._keys: Iterator[Key] = iter(())
        self._batches: dict[Key, Once[Part]] = {}
        self._bytes = 0
        self._read, self._seconds = 0, 0.0

    def use(self, transform: Transform | None, collate: Collate | None = None) -> None:
        """See `Reader.use`. A transform is of Arrow tables, and not called."""
        self._collate = collate
        self._making = replace(self._making, raw=collate is not None)

    def carry(self, lanes: Sequence[int], step: int) -> None:
        """See `Reader.carry`."""
        lanes = tuple(sorted(lanes))
        with self._lock:
            self._lanes = lanes
            self._asked = dict.fromkeys(lanes, step - 1)
            self._batches = {k: b for k, b in self._batches.items() if k[2] in lanes and self._number(k) >= step}
            self._keys = self._coming(lanes, step)
        self._go_ahead()

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        """See `Reader.batch`."""
        key = (epoch, step, lane)
        with self._lock:
            self._asked[lane] = self._number(key)
            ready = self._batches.pop(key, None)
        part = self._made(key) if ready is None else ready.get()
        self._go_ahead()
        return self._finished(key, part)

    def close(self) -> None:
        """See `Reader.close`."""
        with self._lock:
            self._closed = True
            children, self._all = self._all, []
            self._batches.clear()
        for child in children:
            child.close()
        self._threads.close()

    # A batch

    def _made(self, key: Key) -> Part:
        """In the thread that trains, here; in one that reads ahead, in its process."""
        if reading_ahead():
            return self._made_beside(key)
        begun = time.monotonic()
        part = self._making(key)
        self._read, self._seconds = self._read + 1, self._seconds + time.monotonic() - begun
        return part

    def _made_beside(self, key: Key) -> Part:
        child = self._children.get_nowait()
        try:
            part = child.ask(key)
        except (OSError, EOFError, ValueError):  # it has ended, or is being ended
            self._up -= 1
            if not self._closed:
                logger.warning("a process that read rows of %s has ended; they are read without it", self._making.use)
            raise
        except beside.Failed:
            self._children.put(child)
            raise
        self._children.put(child)
        sizes: list[int] = []
        nest(part.content, lambda array: sizes.append(array.nbytes))
        self._bytes = max(self._bytes, sum(sizes))
        return part

    def _finished(self, key: Key, part: Part) -> Batch:
        if self._quarantine is not None:
            for number, reason in part.aside:
                self._quarantine.add(self._making.use, number, 1, reason)
        if not len(part.ids):
            return Batch({}, part.ids, own=True)
        content = part.content
        if self._collate is not None:
            content = collated_by(self._collate, content, (self._making.seed, *key))
        else:
            content = nest(content, aligned)
        return Batch(nest(content, _pinned) if self._pin else content, part.ids, own=True)

    def _number(self, key: Key) -> int:
        """The batch's step of the run."""
        return (key[0] * self.order.steps_per_epoch if self._making.training else 0) + key[1]

    # What is read ahead

    def _coming(self, lanes: tuple[int, ...], step: int) -> Iterator[Key]:
        """The batches that will be asked for."""
        training, per_epoch = self._making.training, self.order.steps_per_epoch
        last = self._steps if training else per_epoch
        for number in count(step) if last is None else range(step, last):
            epoch, at = divmod(number, per_epoch) if training else (0, number)
            sizes = self.order.sizes(at)
            for lane in lanes:
                if sizes[lane]:
                    yield epoch, at, lane

    def _go_ahead(self) -> None:
        """Have as much under way as may be, where rows take long."""
        if not self._begun and self._read >= LOOKED_AT and self._seconds > self._slow_s * self._read:
            self._begin()
        while self._up > 0:
            with self._lock:
                number = len(self._batches)
                if number and (number >= self._most or (number + 1) * self._bytes > self._prefetch):
                    return
                key = next(self._keys, None)
                if key is None:
                    return
                if self._number(key) <= self._asked.get(key[2], -1) or key in self._batches:
                    continue
                made = self._batches[key] = Once(partial(self._made, key))
            self._threads.submit((self._number(key), key[2]), partial(self._help, key, made))

    def _help(self, key: Key, made: Once[Part]) -> None:
        if self._batches.get(key) is made:
            made.help()

    @property
    def _most(self) -> int:
        return 2 * max(len(self._lanes), self._num)

    def _begin(self) -> None:
        """Start the processes; until they are there, rows are read here."""
        self._begun = True
        if not self._num:
            return
        content, there = beside.packed(self._making), beside.setting()
        for _ in range(self._num):
            self._threads.submit((-1,), partial(self._start, content, there))

    def _start(self, content: bytes, there: dict[str, Any]) -> None:
        with suppress(OSError, EOFError):  # then rows are read here
            with self._lock:
                if self._closed:
                    return
                child = beside.Beside()
                self._all.append(child)
            child.open(content, there)
            self._children.put(child)
            self._up += 1


def _pinned(value: Any) -> Any:
    import torch

    tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
    return tensor if tensor.is_cuda else tensor.pin_memory()
