"""A coordinator and workers' lines to it, over loopback, with everything else faked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from headway.core.demand import Worth
from headway.core.events import Launch
from headway.core.ledger import Ledger
from headway.core.membership import Policy
from headway.core.watch import At, Patience
from headway.elastic.lead.coordinator import Coordinator, Failure
from headway.elastic.wire import messages as wire
from headway.elastic.wire.place import Place
from headway.elastic.worker.line import LOST_EXIT, Dismissed, Line, Start

HOST = "127.0.0.1"
DEADLINE_S = 20.0


def wait(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> float:
    """Until it holds; returns the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + deadline_s, "not in time"
        time.sleep(0.002)
    return time.monotonic() - begun


class Group:
    """Stands for a process group."""

    def __init__(self) -> None:
        self.severed = threading.Event()

    def sever(self) -> None:
        self.severed.set()

    def unanswered(self, patience_s: float) -> tuple[str, ...]:
        return ()

    def bytes_moved(self) -> int:
        return 0

    @property
    def reckoned(self) -> int:
        return 0


class Worker:
    """A line as a worker has it; its training thread is the test, or `arrive`'s thread."""

    def __init__(self, cluster: Cluster, name: str, token: str | None = None) -> None:
        here = cluster.coordinator
        place = Place(name, HOST, cluster.port, here.pulse_port, token or here.token)
        self.name, self.left = name, threading.Event()
        self.ledger = Ledger(time.monotonic())
        self.line = Line(place, self.ledger, cluster.silence_s, self._leave)
        self.started: list[Start] = []
        self.dismissed: list[str] = []
        self.pauses = 0
        self.group = Group()
        cluster.workers.append(self)

    def _leave(self, status: int) -> None:
        assert status == LOST_EXIT
        self.left.set()
        if threading.current_thread() is threading.main_thread():
            raise SystemExit

    def connect(self) -> Worker:
        self.line.connect(HOST)
        return self

    def arrive(self, step: int = 0, exchanges: int = 0) -> None:
        """Wait for the next generation in a thread, and enter it."""

        def run() -> None:
            try:
                start = self.line.await_start(step, exchanges, False, self._pause, lambda cause: None)
            except Dismissed as word:
                self.dismissed.append(str(word))
                return
            except OSError:  # the test is over, and the coordinator closed
                return
            self.line.hold(self.group, start.news.number)
            self.started.append(start)

        threading.Thread(target=run, daemon=True).start()

    def _pause(self) -> None:
        self.pauses += 1

    def commit(self, step: int) -> None:
        self.line.at = At.STEP
        self.line.tell(wire.Committed(self.started[-1].news.number, step, 0.1))

    def mute(self) -> None:
        """Nothing is heard of it any more, though its connection stays."""
        self.line._closing.set()
        assert self.line._heart is not None
        self.line._heart.close()

    def drop(self) -> None:
        """The connection ends as a killed process's does."""
        self.line._closing.set()
        assert self.line._connection is not None
        self.line._connection.shutdown(socket.SHUT_RDWR)


class Cluster:
    """A coordinator, and what it asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for worker in self.workers:
            worker.line.close()
        self.coordinator.close()

    def __init__(
        self, silence_s: float = 5.0, hang_s: float = 60.0, alike: bool = False, begins: bool = True, **policy: Any
    ) -> None:
        self.silence_s = silence_s
        self.launched: list[str] = []
        self.dismissed: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.members: list[str] = []
        self.over: list[Failure | None] = []
        self.orders = (0, 0)
        patience = Patience.of(silence_s, hang_s)
        self.coordinator = Coordinator(
            Policy(**{"lanes": 4, "max": 3, "patience": patience, **policy}), self, "head", alike
        )
        self.port = self.coordinator.start(HOST)
        self.workers: list[Worker] = []
        if begins:
            self.coordinator.begin()

    def launch(self, wanted: Launch) -> None:
        self.launched.append(wanted.worker)

    def dismiss(self, worker: str) -> None:
        self.dismissed.append(worker)

    def record(self, event: dict[str, Any]) -> None:
        json.dumps(event)
        self.events.append(event)

    def changed(self, members: list[str]) -> None:
        self.members = members

    def order(self, number: int, worth: Worth) -> None:
        self.orders = number, worth.workers

    def evaluated(self, said: wire.Evaluated) -> None:
        pass

    def ended(self, failure: Failure | None) -> None:
        self.over.append(failure)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["kind"] == kind]

    def start(self, *names: str) -> list[Worker]:
        """Workers that are placed, connected, ready and on their way to the next generation."""
        for name in names:
            self.coordinator.placed(name, f"node-{name}", None)
        found = [Worker(self, name).connect() for name in names]
        for worker in found:
            worker.line.tell(wire.Ready())
        return found

    def train(self, *names: str) -> list[Worker]:
        """Until these are the first generation's members and have committed a step."""
        found = self.start(*names)
        for worker in found:
            worker.arrive(-1)
        wait(lambda: all(w.started for w in found))
        for worker in found:
            worker.commit(1)
        wait(lambda: self.coordinator.membership.committed == 1)
        wait(lambda: all(self.coordinator._peers[name].at is At.STEP for name in names))
        return found


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """The coordinator's thread stands still, for half a minute at most."""
    stands, go_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        stands.set()
        go_on.wait(30.0)

    cluster.coordinator._loop.call_soon_threadsafe(stand_still)
    assert stands.wait(DEADLINE_S)
    try:
        yield
    finally:
        go_on.set()
