"""The reader that lets Ray Data read and transform, on whatever CPUs of the cluster are free.

A Ray Data job per aim (the lanes that are carried, from a step on) gives the lanes' batches in order, through the
object store. It takes seconds to start, and after each change of membership it must start anew. Nobody waits for that:
what it does not have yet, the worker reads itself, with the same code and so to the same bytes.
"""

from __future__ import annotations

import itertools
import logging
import math
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from headway.core.mixture import Walk
from headway.data.ray_data import ordered
from headway.data.read.aligned import aligned_batch
from headway.data.read.direct import DirectReader
from headway.data.read.reader import Batch, Collate, OnQuarantine, Reader, Transform

logger = logging.getLogger(__name__)

LEAD_STEPS = 16
"""A new job begins so far ahead: what comes before is needed sooner than it could start. More after coming too late."""
HORIZON = 512
"""Pieces of work that one job is given."""
PIECE_STEPS = 16
END_S = 10.0
"""A job that is no longer wanted has so long to end."""
FLOW_S = 0.5
"""A job that has given nothing for so long is not waited for."""

Make = Callable[[OnQuarantine], Reader]

Place = tuple[int, int, int]
"""(epoch, step of the epoch, lane)."""


@dataclass(frozen=True)
class Piece:
    """Consecutive steps of one lane, read by one task."""

    epoch: int
    lane: int
    first: int
    stop: int


def pieces(order: Walk, lanes: Sequence[int], step: int, last: int) -> Iterator[Piece]:
    """The work from step `step` of the run up to `last`, in the order in which it is needed, as tasks should do it."""
    while step < last:
        cursor = order.cursor(step)
        stop = min(
            cursor.step - cursor.step % PIECE_STEPS + PIECE_STEPS, order.steps_per_epoch, cursor.step + last - step
        )
        for lane in lanes:
            if order.sizes(cursor.step)[lane]:
                yield Piece(cursor.epoch, lane, cursor.step, stop)
        step += stop - cursor.step


def _whole(work: Iterable[Piece]) -> list[Piece]:
    """Without the last steps, if these may lack lanes; unless there are no others."""
    found = list(work)
    complete = [piece for piece in found if (piece.epoch, piece.first) != (found[-1].epoch, found[-1].first)]
    return complete if len(found) == HORIZON and complete else found


class RayReader:
    """See the module, and `headway.data.read.reader.Reader`.

    Args:
        direct: reads what Ray Data has not brought, and is told of what it has.
        make: makes such a reader on another node, given what to tell of rows that are set aside; pickled.
        last: steps of the run.
        budget: bytes of batches that may wait here.
        report: is told of what is set aside elsewhere.
        lead: steps ahead of the training at which a new job begins.
    """

    def __init__(
        self,
        direct: DirectReader,
        make: Make,
        last: int,
        budget: int,
        report: OnQuarantine,
        lead: int = LEAD_STEPS,
    ) -> None:
        self.order = direct.order
        self._direct, self._make, self._last, self._budget, self._report = direct, make, last, budget, report
        self._lead = lead
        self._job: _Job | None = None
        self._stopping: list[_Job] = []
        self._lanes: tuple[int, ...] = ()
        self.streamed = 0
        """Batches that came from Ray Data."""
        self.read = 0
        """Batches that were read here."""

    def use(self, transform: Transform | None, collate: Collate | None = None) -> None:
        """See `Reader.use`; elsewhere `make` sees to the same."""
        self._direct.use(transform)

    def carry(self, lanes: Sequence[int], step: int) -> None:
        """See `Reader.carry`."""
        self._direct.carry(lanes, step)
        self._stop()
        self._lanes = tuple(lanes)
        self._begin(step)

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        """See `Reader.batch`."""
        if self._job is None and self._lanes:
            self._begin(epoch * self.order.steps_per_epoch + step)
        found = self._job.take((epoch, step, lane)) if self._job is not None else None
        if found is None:
            self.read += 1
            return self._direct.batch(epoch, step, lane)
        self.streamed += 1
        self._direct.skip(epoch, step, lane)
        return found

    def close(self) -> None:
        """See `Reader.close`."""
        self._lanes = ()
        self._stop()
        deadline = time.monotonic() + END_S
        for job in self._stopping:
            job.join(deadline - time.monotonic())
        self._direct.close()

    def _begin(self, step: int) -> None:
        """Have Ray Data begin, once what it did before has ended: where all CPUs are taken that may be long."""
        self._stopping = [job for job in self._stopping if not job.ended]
        if self._lanes and not self._stopping:
            aim = (self._lanes, step, self._last, self._lead)
            self._job = _Job(self.order, *aim, self._make, self._budget, self._report)

    def _stop(self) -> None:
        if self._job is not None:
            self._job.stop()
            self._stopping.append(self._job)
            self._job = None


class _Job:
    """Ray Data at work for some lanes from a step of the run on; a thread takes in what it gives."""

    def __init__(
        self,
        order: Walk,
        lanes: tuple[int, ...],
        step: int,
        last: int,
        lead: int,
        make: Make,
        budget: int,
        report: OnQuarantine,
    ) -> None:
        self._order, self._lanes, self._last, self._lead = order, lanes, last, lead
        self._make, self._budget, self._report = make, budget, report
        self._changed = threading.Condition()
        self._here: dict[Place, tuple[Batch, int]] = {}
        self._coming: set[Place] = set()
        self._told: set[Any] = set()
        self._bytes = 0
        self._passed = step
        self._came_at = -math.inf
        self._waited_for = self.stopped = False
        self.executor: Any = None
        """Ray Data's thread that runs the execution."""
        self._thread = threading.Thread(target=self._run, name="ray-data", daemon=True)
        self._thread.start()

    def take(self, place: Place) -> Batch | None:
        """The batch, if it is here; it is waited for while it is to come and others keep coming."""
        with self._changed:
            self._passed = self._number(place)
            # Order within a step is by lane: what lies before this step will not be asked for again.
            for stale in [p for p in self._here if self._number(p) < self._passed]:
                self._bytes -= self._here.pop(stale)[1]
            self._changed.notify_all()
            self._waited_for = True
            while place in self._coming and time.monotonic() - self._came_at < FLOW_S and not self.stopped:
                self._changed.wait(FLOW_S)
            self._waited_for = False
            if place not in self._here:
                return None
            batch, size = self._here.pop(place)
            self._bytes -= size
            self._changed.notify_all()
            return batch

    @property
    def flows(self) -> bool:
        """Whether anything has come, or nothing will."""
        return self._came_at > -math.inf or self.ended

    @property
    def ended(self) -> bool:
        """Whether all is done, and nothing of it is left on the cluster."""
        return not self._thread.is_alive()

    def join(self, patience_s: float) -> None:
        """Wait for its end: Ray ends a process that leaves it while one of its threads still asks it for something."""
        self._thread.join(max(0.0, patience_s))

    def stop(self) -> None:
        """Take nothing more; what runs on the cluster is cancelled, see `_Watch`."""
        with self._changed:
            self.stopped = True
            self._here.clear()
            self._changed.notify_all()

    def _number(self, place: Place) -> int:
        """The step of the run."""
        return place[0] * self._order.steps_per_epoch + place[1]

    def _run(self) -> None:
        step, lead = self._passed + self._lead, self._lead
        try:
            while not self.stopped and step < self._last:
                work = _whole(itertools.islice(pieces(self._order, self._lanes, step, self._last), HORIZON))
                if self._stream(work):
                    step = work[-1].epoch * self._order.steps_per_epoch + work[-1].stop
                else:
                    lead = 2 * max(lead, self._passed - step, 1)
                    step = self._passed + lead
        except Exception:  # the direct reader does all from here on, and says in its own words what is wrong
            if not self.stopped:
                logger.warning("Ray Data gave up; batches are read by the worker itself", exc_info=True)

    def _stream(self, work: list[Piece]) -> bool:
        """Have these done; False: broken off, since they come too late."""
        import ray

        items = [{"piece": pickle.dumps(piece)} for piece in work]
        with self._changed:
            self._coming = {(p.epoch, step, p.lane) for p in work for step in range(p.first, p.stop)}
        late = 0
        _job.set(self)
        try:
            for reference in ordered(items, partial(_read, make=self._make), watch=_Watch):
                late = self._take_in(ray.get(reference), late)
                if self.stopped or late > 2 * PIECE_STEPS * len(self._lanes):
                    break
        finally:
            if self.executor is not None:
                _end(self.executor)
                self.executor = None
        with self._changed:
            self._coming.clear()
            self._changed.notify_all()
        return late == 0

    def _take_in(self, table: pa.Table, late: int) -> int:
        """Keep a block's batches; counts on how many in a row came too late."""
        for packed in table["batch"].to_pylist() if table.num_rows else []:
            place, batch, set_aside = unpacked(packed)
            for what in set_aside:
                if what not in self._told:
                    self._told.add(what)
                    self._report(*what)
            late = 0 if self._put(place, batch, len(packed)) else late + 1
        return late

    def _put(self, place: Place, batch: Batch, size: int) -> bool:
        """Keep a batch until it is asked for; False: that is past."""
        number = self._number(place)
        with self._changed:
            while self._bytes and self._bytes + size > self._budget:
                if self._waited_for or self.stopped or number < self._passed:
                    break
                self._changed.wait(FLOW_S)
            self._came_at = time.monotonic()
            self._coming.discard(place)
            in_time = number >= self._passed
            if in_time and not self.stopped:
                self._here[place] = (batch, size)
                self._bytes += size
            self._changed.notify_all()
            return in_time


_job: ContextVar[_Job] = ContextVar("job")
"""Whose execution the thread begins."""


def _end(executor: Any) -> None:
    executor.shutdown(force=False)
    while executor.is_alive():
        executor.join(0.1)
        executor.shutdown(force=False)  # it did not listen if it had not wholly begun


class _Watch:
    """Ends an execution whose job is stopped, also before it has given anything: Ray Data calls this as it goes on."""

    def before_execution_starts(self, executor: Any) -> None:
        self._job, self._ends = _job.get(), False
        self._job.executor = executor

    def on_execution_step(self, executor: Any) -> None:
        if self._job.stopped and not self._ends:
            self._ends = True  # in a thread of its own: it waits for the thread that calls this
            threading.Thread(target=_end, args=(executor,), name="ray-data-end", daemon=True).start()

    def after_execution_succeeds(self, executor: Any) -> None:
        pass

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        pass


def packed_batch(place: Place, batch: Batch, told: list[Any]) -> bytes:
    """A batch and what was set aside, for the way through the object store."""
    return pickle.dumps((place, batch, list(told)), protocol=5)


def unpacked(packed: bytes) -> tuple[Place, Batch, list[Any]]:
    """What `packed_batch` was given, with arrays in memory as the direct reader's."""
    place, batch, told = pickle.loads(packed)
    return place, Batch(aligned_batch(batch.arrays), batch.ids), told


_kept: dict[bytes, tuple[Reader, list[Any]]] = {}
"""The reader that a process of the cluster made last, and what it set aside."""


def _read(rows: pa.Table, make: Make) -> Iterator[pa.Table]:
    """Runs on the cluster: the batches of a piece. A process keeps the reader that it made, with what it knows."""
    import ray.cloudpickle

    key = ray.cloudpickle.dumps(make)
    if key not in _kept:
        for old, _ in _kept.values():
            old.close()
        _kept.clear()
        told: list[Any] = []
        _kept[key] = make(lambda *what: told.append(what)), told
    reader, told = _kept[key]
    piece: Piece = pickle.loads(rows["piece"][0].as_py())
    for step in range(piece.first, piece.stop):
        if reader.order.sizes(step)[piece.lane]:
            batch = reader.batch(piece.epoch, step, piece.lane)
            # All of it each time: what is given may never be taken in. Who keeps the records counts each place once.
            packed = packed_batch((piece.epoch, step, piece.lane), batch, told)
            yield pa.table({"batch": pa.array([packed], pa.large_binary())})
