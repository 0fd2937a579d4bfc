"""The one worker of a run in this process: it is always a member, and the recorder is an object beside it."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from headway.core.pace import Typical
from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker.journal import Journal
from headway.elastic.worker.line import Start
from headway.elastic.worker.members import Alone
from headway.elastic.worker.pact import Pact

NAME = "w0"


class Ended(BaseException):
    """Leaves the user's loop, whose code may catch exceptions: the run is not to go on, not even to a checkpoint."""


class Seat:
    """The recorder, which does one thing at a time, as an actor does.

    Args:
        recorder: has begun.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.RLock()

    def push(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        with self._lock:
            return self._recorder.push(worker, records)

    def event(self, kind: str, **fields: Any) -> None:
        """One thing that happened now."""
        with self._lock:
            self._recorder.event({"kind": kind, "time": time.time(), **fields})

    def ask(self, verb: str, *arguments: Any, **named: Any) -> Any:
        """Any other verb of the recorder's."""
        with self._lock:
            return getattr(self._recorder, verb)(*arguments, **named)


class Orders:
    """What the training thread is told by others of this process, and tells them."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        """The run is to end after the step under way, with a checkpoint."""
        self.cut = threading.Event()
        """It is to end as soon as it can, without one."""
        self.lane = Typical()
        """Of the training thread."""

    def heed(self) -> None:
        """Raises Ended."""
        if self.cut.is_set():
            raise Ended


class Near(Journal):
    """A journal whose recorder is in this process.

    Args:
        seat: the recorder's.
        orders: whether the run is to end, known at once.
    """

    def __init__(self, seat: Seat, orders: Orders) -> None:
        super().__init__(None, NAME)
        self._seat, self._orders = seat, orders

    @property
    def stop_requested(self) -> bool:
        self._orders.heed()
        return self._orders.stop.is_set() or self._stop

    def _push(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        return self._seat.push(self._worker, records)


class Sole(Alone):
    """Membership of one, which the records are told of as a cluster's coordinator does.

    Args:
        lanes: of the job.
        seat: the recorder's.
        orders: heeded between lanes.
    """

    def __init__(self, lanes: int, seat: Seat, orders: Orders) -> None:
        super().__init__(lanes)
        self._seat, self._orders = seat, orders

    def join(self, start: Start) -> Pact:
        pact = super().join(start)
        members = {"generation": pact.generation, "members": pact.names, "workers": 1, "lanes": pact.lanes}
        self._seat.event("generation", **members, step=-1, reason="one worker, in the process that began the run")
        there = {"id": NAME, "rank": 0, "phase": "member", "pid": os.getpid(), "node_id": None, "node_ip": None}
        self._seat.event("members", generation=pact.generation, workers=[{**there, "lanes": pact.lanes}])
        self._seat.event("waits", reason="", more="")
        return pact

    def moved(self, lane_s: float | None = None) -> None:
        if lane_s is not None:
            self._orders.lane.note(lane_s)
        self._orders.heed()
