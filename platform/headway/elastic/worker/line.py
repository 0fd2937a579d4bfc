"""A worker's line to the coordinator: it hears of generations, tells how the worker is, and breaks the group's exchange
when a member is gone. Two threads of its own; the training thread only reads and waits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from headway.core.ledger import Ledger
from headway.elastic.wire import messages as wire

BEAT_S = 0.2
CONNECT_S = 30.0
LOST_EXIT = 3  # exit status of a worker that is no longer led


@dataclass(frozen=True)
class Place:
    """Where a worker belongs.

    Args:
        worker: its id.
        host: of the coordinator.
        port: of the coordinator.
        store_port: of the rendezvous store, at the same host.
        token: shows that it belongs to the run.
    """

    worker: str
    host: str
    port: int
    store_port: int
    token: str


@dataclass(frozen=True)
class News:
    """A generation as published, or a pause (no members)."""

    number: int
    members: tuple[str, ...]
    lanes: tuple[tuple[int, ...], ...]
    urgent: bool
    save: bool = False


@dataclass(frozen=True)
class Start:
    """Word to go.

    Args:
        news: the generation.
        rank: of this worker in it.
        source: rank of who holds the newest state; None: begin from the newest checkpoint.
        positions: (steps, exchanges) of each member; (-1, _) for one without state.
        nodes: of each member.
    """

    news: News
    rank: int
    source: int | None
    positions: tuple[tuple[int, int], ...]
    nodes: tuple[str, ...]


class Dismissed(BaseException):
    """The run goes on without this worker, in good order. Not an Exception, so that no user's code swallows it."""


class Breakable(Protocol):
    """A process group."""

    def sever(self) -> None:
        """Break every connection."""


class Control:
    """See the module.

    Args:
        place: where the worker belongs.
        ledger: the worker's account, told with each beat.
        silence_s: of the job; a worker alone commits nothing without word from the coordinator for so long.
        leave: ends the process at once, with an exit status.
    """

    def __init__(
        self, place: Place, ledger: Ledger, silence_s: float, leave: Callable[[int], object] = os._exit
    ) -> None:
        self.place, self._ledger, self._silence_s, self._leave = place, ledger, silence_s, leave
        self.running = False
        self.mark = 0
        """Moves with the training thread."""
        self.step = -1
        self.waiting = True
        self.lane_s = 0.0
        self.save_wanted: str | None = None
        self._connection: socket.socket | None = None
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._news: News | None = None
        self._start: Start | None = None
        self._entered = 0
        self._group: Breakable | None = None
        self._dismissed: str | None = None
        self._leased_at = time.monotonic()
        self._closing = threading.Event()

    def connect(self, facts: dict[str, Any]) -> None:
        """Say hello; raises OSError if nobody is there.

        Args:
            facts: of this process: pid, node_ip.
        """
        self._connection = socket.create_connection((self.place.host, self.place.port), timeout=CONNECT_S)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        age_s = self._ledger.age(time.monotonic())
        self.tell("hello", worker=self.place.worker, token=self.place.token, age_s=age_s, **facts)
        lines = self._connection.makefile("rb")
        welcome = wire.decode(lines.readline())
        if welcome["kind"] == "dismiss":
            self._leave(LOST_EXIT)
        self.running = welcome["running"]
        self._connection.settimeout(None)
        for target, name in ((lambda: self._listen(lines), "control-listen"), (self._beat, "control-beat")):
            threading.Thread(target=target, name=name, daemon=True).start()

    # For the training thread

    def tell(self, kind: str, **fields: Any) -> None:
        """Send a message; raises OSError if nobody leads any more."""
        assert self._connection is not None
        with self._sending:
            self._connection.sendall(wire.encode(kind, **fields))

    @property
    def changed(self) -> bool:
        """Whether a generation newer than the one entered is known."""
        news = self._news
        return news is not None and news.number > self._entered

    @property
    def broken(self) -> bool:
        """Whether a newer generation is known that does not wait for the end of a step."""
        news = self._news
        return news is not None and news.number > self._entered and news.urgent

    @property
    def dismissed(self) -> bool:
        return self._dismissed is not None

    def superseded(self, number: int) -> bool:
        """Whether there is news after generation `number`."""
        news = self._news
        return self.dismissed or (news is not None and news.number > number)

    def hold(self, group: Breakable | None, number: int) -> None:
        """The group that the training thread exchanges in; it is severed as soon as urgent news comes."""
        with self._changed:
            self._group, self._entered = group, number
            broken = self.broken
        if broken and group is not None:
            group.sever()

    def await_start(
        self, step: int, exchanges: int, on_pause: Callable[[], None], account: Callable[[str], None]
    ) -> Start:
        """Stop here, and wait until all members of the newest generation have stopped too.

        Args:
            step: committed steps; -1 without state.
            exchanges: completed exchanges.
            on_pause: called once if the others pause and ask for a checkpoint first.
            account: told what the time goes to: regroup, or idle while there is nothing to wait for in a hurry.

        Raises:
            Dismissed: the run goes on without this worker.
        """
        arrived = saved = 0
        self.waiting = True
        try:
            while True:
                with self._changed:
                    if self._dismissed is not None:
                        raise Dismissed(self._dismissed)
                    news, start = self._news, self._start
                    if start is not None and news is not None and start.news.number == news.number > self._entered:
                        return start
                    if news is None or news.number <= max(arrived, self._entered) or self._waits(news, saved):
                        account("idle" if step < 0 or news is None or not news.members else "regroup")
                        self._changed.wait(1.0)
                        continue
                if news.save:
                    saved = news.number
                    on_pause()
                    continue
                arrived = news.number
                self.tell("arrived", generation=news.number, step=step, exchanges=exchanges)
        finally:
            self.waiting = False
            self.mark += 1

    def _waits(self, news: News, saved: int) -> bool:
        """Whether this worker has nothing to answer to the news."""
        return self.place.worker not in news.members and not (news.save and saved != news.number)

    def leased(self) -> bool:
        """Whether the coordinator was heard of lately: a worker alone must not commit if it may have been given up."""
        return time.monotonic() - self._leased_at < 0.8 * self._silence_s

    def await_lease(self) -> None:
        """Wait until the coordinator is heard of again.

        Raises:
            Dismissed: it is, and goes on without this worker.
        """
        with self._changed:
            while not self.leased():
                if self._dismissed is not None:
                    raise Dismissed(self._dismissed)
                self._changed.wait(0.1)

    def close(self) -> None:
        """Say no more."""
        self._closing.set()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    # Threads

    def _listen(self, lines: Any) -> None:
        try:
            for line in lines:
                self._take(wire.decode(line))
        except (OSError, ValueError):
            pass
        if not self._closing.is_set() and self._dismissed is None:
            self._leave(LOST_EXIT)  # nobody leads this worker any more, and what it did would count for nothing

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        severed: Breakable | None = None
        with self._changed:
            self._leased_at = time.monotonic()
            if kind == "publish":
                lanes = tuple(tuple(lane) for lane in message["lanes"])
                self._news = News(message["number"], tuple(message["members"]), lanes, message["urgent"])
            elif kind == "pause":
                self._news = News(message["number"], (), (), message["urgent"], message["save"])
            elif kind == "go":
                self._begin(message)
            elif kind == "save":
                self.save_wanted = message["reason"]
            elif kind == "dismiss":
                if not message["graceful"]:
                    self._leave(LOST_EXIT)
                self._dismissed = message["reason"]
            if self.broken:
                severed = self._group
            self._changed.notify_all()
        if severed is not None:
            severed.sever()

    def _begin(self, message: dict[str, Any]) -> None:
        news = self._news
        if news is not None and news.number == message["number"]:
            positions = tuple((step, exchanges) for step, exchanges in message["positions"])
            rank = news.members.index(self.place.worker)
            self._start = Start(news, rank, message["source"], positions, tuple(message["nodes"]))

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_S):
            try:
                self.tell(
                    "beat",
                    mark=self.mark,
                    waiting=self.waiting,
                    step=self.step,
                    lane_s=self.lane_s,
                    ledger=self._ledger.snapshot(time.monotonic()),
                )
            except OSError:
                return  # the listening thread sees the same, and acts
