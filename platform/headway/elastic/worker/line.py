"""A worker's line to the coordinator: it hears of generations, tells how the worker is, and breaks the group's exchange
when a member is gone or out of reach. Threads of its own; the training thread only reads and waits.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headway import certificates
from headway.core import roll
from headway.core.gate import Gate, Word
from headway.core.ledger import BOOKED, Ledger
from headway.core.spots import Spot
from headway.core.watch import LEASED, PULSE_S, At
from headway.elastic.wire import frames, link
from headway.elastic.wire import messages as wire
from headway.elastic.wire.place import Place
from headway.elastic.wire.secured import Secured
from headway.elastic.worker.heart import Heart, Page
from headway.elastic.worker.probe import WITHIN_S, reachable

if TYPE_CHECKING:
    from headway.elastic.worker.rendezvous import LineStore

BEAT_S = 0.2
HEART_PULSES, RARER = 3, 20
"""Pulses in which the heart must have had an answer; so much more the time between beats grows than that of pulses."""
CONNECT_S = 30.0
STORES = 16
"""Of earlier generations that are kept."""
LEASE_POLL_S = 0.01
LOST_EXIT = 3  # exit status of a worker that is no longer led
_AT = {at: index for index, at in enumerate(At)}


@dataclass(frozen=True)
class News:
    """A generation as published, or a pause (no members). lanes: this worker's."""

    number: int
    members: tuple[str, ...]
    lanes: tuple[int, ...]
    urgent: bool
    save: bool = False


@dataclass(frozen=True)
class Seat:
    """Where a member is: the address of its node as the others reach it, and the port there that answers probes."""

    worker: str
    host: str
    probe_port: int


@dataclass(frozen=True)
class Start:
    """Word to go.

    Args:
        news: the generation.
        rank: of this worker in it.
        source: rank of who holds the newest state; None: begin from the newest checkpoint.
        positions: (steps, exchanges) of each member; (-1, _) for one without state.
        spot: of this worker.
    """

    news: News
    rank: int
    source: int | None
    positions: tuple[tuple[int, int], ...]
    spot: Spot


class Dismissed(BaseException):
    """The run goes on without this worker, in good order. Not an Exception, so that no user's code swallows it."""


class Breakable(Protocol):
    """A process group, as far as the line is concerned. Called from the line's threads."""

    def sever(self) -> None:
        """Break every connection."""

    def unanswered(self, patience_s: float) -> tuple[str, ...]:
        """Addresses of peers that have not acknowledged what was sent to them for so long."""

    def bytes_moved(self) -> int:
        """To and from peers, so far; 0 where that is not seen."""

    @property
    def reckoned(self) -> int:
        """Where that is not seen, what was exchanged must have come to."""


class Beats(Protocol):
    """A worker's heart, see `heart.Heart`."""

    page: Page
    probe_port: int

    def start(self) -> None: ...

    def close(self) -> None: ...


class Line:
    """See the module.

    Args:
        place: where the worker belongs.
        ledger: the worker's account, told with each beat.
        silence_s: of the job.
        leave: ends the process at once, with an exit status.
        heart: makes the worker's, see `Heart` for its arguments.
    """

    def __init__(
        self,
        place: Place,
        ledger: Ledger,
        silence_s: float,
        leave: Callable[[int], object] = os._exit,
        heart: Callable[[str, tuple[str, int], str, str], Beats] = Heart,
    ) -> None:
        self._make_heart = heart
        self.place, self._ledger, self._silence_s, self._leave = place, ledger, silence_s, leave
        self.running = False
        self.save_wanted: str | None = None
        self.keepers: tuple[tuple[str, int], ...] = ()
        """Where the run's keepers are, as far as the lead tells."""
        self.lane_s = 0.0
        self._gate = Gate()
        self._at, self._waiting, self._step, self._mark, self._carried = At.STARTING, False, -1, 0, 0
        self._heart: Beats | None = None
        self._connection: socket.socket | Secured | None = None
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._news: News | None = None
        self._start: Start | None = None
        self._entered = 0
        self._told_lost = 0
        """The newest generation that was told to be broken here."""
        self._group: Breakable | None = None
        self._members: tuple[int, tuple[str, ...]] = (0, ())
        """Of the newest generation that was published: its number, and who."""
        self._seats: dict[str, tuple[Seat, ...]] = {}
        """Of the members, by address, as far as they were asked for."""
        self._seats_of = 0
        """The generation whose members these are."""
        self._dismissed: str | None = None
        self._lease_s = LEASED * silence_s
        self._leased_at = 0.0
        self._period_s = PULSE_S
        """Between two signs of life, as the lead wants them."""
        self._heard = 0.0
        self._sent: dict[int, float] = {}
        """When the latest beats were sent, by number."""
        self._exchanged = 0
        self._values: dict[tuple[int, str], bytes] = {}
        self._stores: list[LineStore] = []
        """The latest: torch may hold one beyond its generation, and must not find it gone."""
        self._closing = threading.Event()

    def connect(self, address: str, stays: bool = False) -> None:
        """Say hello.

        Args:
            address: of this node, as the others reach it.
            stays: the process is of use where this run has none for it.

        Raises:
            OSError, ValueError: nobody is there who takes this worker.
            Dismissed: the same, of a process that stays.
        """
        try:
            self._connect(address, stays)
        except (OSError, ValueError) as error:
            if not stays:
                raise
            raise Dismissed(f"nobody leads it: {error}") from None

    def _connect(self, address: str, stays: bool) -> None:
        place = self.place
        self._connection = connection = self._connected()
        heart = self._make_heart(place.worker, (place.host, place.pulse_port), address, place.token)
        with contextlib.suppress(OSError):  # without one it is heard by its beats alone
            heart.start()
        self._heart = heart
        self._show()
        age_s = self._ledger.age(time.monotonic())
        self.tell(wire.Hello(place.worker, place.token, age_s, os.getpid(), address, heart.probe_port))
        lines = connection.makefile("rb")
        welcome = wire.from_lead(_word(lines))
        if isinstance(welcome, wire.Dismiss) and not stays:
            self._leave(LOST_EXIT)
        if not isinstance(welcome, wire.Welcome):
            raise ValueError("no welcome")
        self.running, self.keepers = welcome.running, welcome.keepers
        self._gate = Gate(welcome.until, welcome.leave)
        connection.settimeout(None)
        threads = ((lambda: self._listen(lines), "line-listen"), (self._beat, "line-beat"), (self._mind, "line-mind"))
        for target, name in threads:
            threading.Thread(target=target, name=name, daemon=True).start()

    def _connected(self) -> socket.socket | Secured:
        connection = socket.create_connection((self.place.host, self.place.port), timeout=CONNECT_S)
        link.make_quick(connection)
        context = certificates.context(server=False)
        return connection if context is None else Secured(connection, context, self.place.host)

    # For the training thread: how it is

    @property
    def at(self) -> At:
        """What the training thread is at."""
        return self._at

    @at.setter
    def at(self, at: At) -> None:
        self._at = at
        self.moved()

    @property
    def waiting(self) -> bool:
        """For the others."""
        return self._waiting

    @waiting.setter
    def waiting(self, waiting: bool) -> None:
        self._waiting = waiting
        self.moved()

    @property
    def step(self) -> int:
        """Committed steps; -1 without state."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = step
        self.moved()

    def moved(self) -> None:
        """The training thread gets on."""
        self._mark += 1
        self._show()

    def _show(self) -> None:
        if self._heart is not None:
            self._heart.page.write(self._mark, self._step, _AT[self._at], self._waiting)

    # For the training thread: generations

    def tell(self, message: wire.FromWorker) -> None:
        """Send a message; raises OSError if nobody leads any more, or it is not connected."""
        if self._connection is None:
            raise OSError("not connected")
        line = wire.encode(message)
        with self._sending:
            self._connection.sendall(line)

    def lost(self, generation: int, reason: str, peers: tuple[str, ...] = ()) -> None:
        """The exchange broke off here. Told once a generation, and not where it is known to be over.

        Args:
            peers: members that cannot be reached.
        """
        with self._changed:
            if self.broken or generation <= self._told_lost:
                return
            self._told_lost = generation
        self.tell(wire.Lost(generation, reason[-200:], peers))

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
    def staying(self) -> tuple[int, tuple[str, ...]] | None:
        """Number and members of a generation that was planned, and not entered yet; None: there is none."""
        news = self._news
        if news is None or news.number <= self._entered or news.urgent:
            return None
        return news.number, news.members

    @property
    def entered(self) -> bool:
        """Whether this worker has been in a generation."""
        return self._entered > 0

    @property
    def dismissed(self) -> bool:
        return self._dismissed is not None

    @property
    def until(self) -> int:
        """Where the gate is; -1: there is none."""
        return self._gate.until

    @property
    def leaving(self) -> str:
        """Why all are to leave; empty: they are not."""
        return self._gate.leave

    def stand(self, step: int, wait: bool) -> Word:
        """What to do after `step` steps, see `Gate.word`. wait: until that is known, and not WAIT.

        Raises:
            Dismissed: the run goes on, or ends, without this worker.
        """
        with self._changed:
            while True:
                if self._dismissed is not None:
                    raise Dismissed(self._dismissed)
                news = self._news
                newest, urgent = (0, False) if news is None else (news.number, news.urgent)
                word = self._gate.word(step, self._entered, newest, urgent)
                if not wait or word is not Word.WAIT:
                    return word
                self._changed.wait(1.0)

    def superseded(self, number: int) -> bool:
        """Whether nobody is to make the group of generation `number` any more. (A change that waits for a step's end
        may be known before the group is there: it is made all the same, for that step.)"""
        news = self._news
        return self.dismissed or (news is not None and news.number > number and news.urgent)

    def hold(self, group: Breakable | None, number: int) -> None:
        """The group that the training thread exchanges in; it is severed as soon as urgent news comes."""
        with self._changed:
            self._group, self._entered = group, number
            broken = self.broken
        if broken and group is not None:
            group.sever()

    def await_start(
        self,
        step: int,
        exchanges: int,
        busy: bool,
        on_pause: Callable[[], None],
        account: Callable[[str], None],
    ) -> Start:
        """Stop here, and wait until all members of the newest generation have stopped too.

        Args:
            step: committed steps; -1 without state.
            exchanges: completed exchanges.
            busy: in the middle of an evaluation.
            on_pause: called once if the others pause and ask for a checkpoint first.
            account: told what the time goes to: regroup; spare, or idle, while there is nothing to wait for in a hurry.

        Raises:
            Dismissed: the run goes on without this worker.
        """
        arrived = saved = 0
        before, self.waiting = self.at, True
        try:
            while True:
                with self._changed:
                    if self._dismissed is not None:
                        raise Dismissed(self._dismissed)
                    news, start = self._news, self._start
                    if start is not None and start.news.number > self._entered:
                        return start  # though a change that waits for the end of a step be known: the others go, too
                    if news is None or news.number <= max(arrived, self._entered) or self._waits(news, saved):
                        cause = self._cause(news, step)
                        account(cause)
                        self._rest(At.EXCHANGE if cause == "regroup" else At.IDLE)
                        self._changed.wait(1.0)
                        continue
                if news.save:
                    saved = news.number
                    on_pause()
                    continue
                arrived = news.number
                self.tell(wire.Arrived(news.number, step, exchanges, busy))
        finally:
            self._at, self.waiting = before, False

    def _cause(self, news: News | None, step: int) -> str:
        """What a wait for the newest generation is."""
        if step >= 0 and news is not None and news.members:
            return "regroup"
        others = self.running if news is None else news.members and self.place.worker not in news.members
        return "spare" if step < 0 and others else "idle"

    def _rest(self, at: At) -> None:
        if self._at is not at:
            self.at = at

    def _waits(self, news: News, saved: int) -> bool:
        """Whether this worker has nothing to answer to the news."""
        return self.place.worker not in news.members and not (news.save and saved != news.number)

    @property
    def leased(self) -> bool:
        """Whether a step may be committed now: a beat that was sent lately is known to have reached the coordinator, so
        it cannot have given this worker up and let others go on without it."""
        newest = max(self._leased_at, self._heart.page.leased_at if self._heart is not None else 0.0)
        return time.monotonic() - newest < self._lease_s

    def may_commit(self) -> None:
        """Returns as soon as a step may be committed.

        Raises:
            Dismissed: the run goes on without this worker.
        """
        while not self.leased:
            with self._changed:
                if self._dismissed is not None:
                    raise Dismissed(self._dismissed)
                self._changed.wait(LEASE_POLL_S)

    def over(self) -> None:
        """This worker's part is over, or about to be: from now on it does not matter whether anybody leads it."""
        self._closing.set()

    def close(self) -> None:
        """Say no more."""
        self._closing.set()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
        if self._heart is not None:
            self._heart.close()

    # For the making of groups

    def store(self, generation: int) -> LineStore:
        """Where the members of a generation find one another."""
        from headway.elastic.worker.rendezvous import LineStore

        self._stores = [*self._stores[1 - STORES :], LineStore(self, generation)]
        return self._stores[-1]

    def put(self, generation: int, key: str, value: bytes) -> None:
        """See `Mail`. Raises RuntimeError if nobody leads any more."""
        with self._changed:
            self._values[generation, key] = value
        self._ask(wire.Put(generation, key, base64.b64encode(value).decode()))

    def fetch(self, generation: int, key: str, timeout_s: float) -> bytes:
        """See `Mail`."""
        deadline = time.monotonic() + timeout_s
        asked = False
        while True:
            with self._changed:
                while True:
                    value = self._values.get((generation, key))
                    if value is not None:
                        return value
                    if self.superseded(generation):
                        raise RuntimeError(f"generation {generation} is over")
                    if time.monotonic() > deadline:
                        raise RuntimeError(f"{key} did not come within {timeout_s:g} s")
                    if not asked:
                        break
                    self._changed.wait(min(1.0, timeout_s))
            asked = True
            self._ask(wire.Want(generation, key))

    def known(self, generation: int, key: str) -> bool:
        """See `Mail`."""
        return (generation, key) in self._values

    def _ask(self, message: wire.Put | wire.Want) -> None:
        try:
            self.tell(message)
        except OSError as error:
            raise RuntimeError(f"nobody leads any more: {error}") from error

    # Threads

    def _listen(self, lines: Any) -> None:
        try:
            while word := _word(lines):
                self._take(wire.from_lead(word))
        except (OSError, ValueError):
            pass
        if not self._closing.is_set() and self._dismissed is None:
            self._leave(LOST_EXIT)  # nobody leads this worker any more, and what it did would count for nothing

    def _take(self, message: wire.FromLead) -> None:
        severed: Breakable | None = None
        with self._changed:
            match message:
                case wire.Lease():
                    self._renew(message)
                    return
                case wire.Value(generation, key, value, more):
                    self._values[generation, key] = base64.b64decode(value)
                    if more:
                        return
                case wire.Publish(number, _, urgent, lanes):
                    self._members = number, self._published(message)
                    self._hear(News(number, self._members[1], lanes, urgent))
                case wire.Seats():
                    self._locate(message)
                case wire.Pause(number, urgent, save):
                    self._hear(News(number, (), (), urgent, save))
                case wire.Go():
                    self._begin(message)
                case wire.Keepers(places):
                    self.keepers = places
                case wire.Save(reason):
                    self.save_wanted = reason
                case wire.Until(step):
                    self._gate.moved(step, 0 if self._news is None else self._news.number)
                case wire.Leave(why):
                    self._gate.leaving(why, 0 if self._news is None else self._news.number)
                case wire.Dismiss(graceful, reason):
                    if not graceful:
                        self._leave(LOST_EXIT)
                    self._dismissed = reason
            if self.broken:
                severed = self._group
            self._changed.notify_all()
        if severed is not None:
            severed.sever()

    def _hear(self, news: News) -> None:
        self._news = news
        if news.urgent:
            self._start = None  # nobody goes by a word that this has overtaken

    def _renew(self, lease: wire.Lease) -> None:
        sent = self._sent.pop(lease.number, None)
        self._heard, self._period_s = max(self._heard, lease.at), lease.period_s
        if sent is not None:
            self._leased_at = max(self._leased_at, sent)
            self._changed.notify_all()

    def _published(self, message: wire.Publish) -> tuple[str, ...]:
        number, before = self._members
        if not message.base:
            return roll.read(message.members)
        if message.base != number:
            raise ValueError(f"what became of generation {message.base}, and {number} was the last")
        return roll.changed(before, message.gone, message.members)

    def _begin(self, go: wire.Go) -> None:
        news = self._news
        if news is None or news.number != go.number or self.place.worker not in news.members:
            return
        size = len(news.members)
        positions = [go.newest] * size
        for first, count, step, exchanges in go.behind:
            if not 0 <= first <= first + count <= size:
                raise ValueError(f"ranks {first} to {first + count} of {size} members are behind")
            positions[first : first + count] = [(step, exchanges)] * count
        rank, local_rank, local_size, node_rank, nodes = go.spot
        if not 0 <= rank < size or news.members[rank] != self.place.worker:
            raise ValueError(f"another is rank {rank} of {size}")
        self._lease_s, self._seats_of, self._seats, self._values = go.lease_s, go.number, {}, {}
        spot = Spot(rank, size, local_rank, local_size, node_rank, nodes)
        self._start = Start(news, rank, go.source, tuple(positions), spot)

    def _beat(self) -> None:
        number, last = 0, time.monotonic()
        while not self._closing.wait(max(BEAT_S, self._period_s)):
            now = time.monotonic()
            if now - last < self._between() - BEAT_S / 10:
                continue
            number, last = number + 1, now
            self._sent[number] = now
            self._sent.pop(number - 300, None)
            mark, at = self._mark + self._carried, self._at
            seconds = self._ledger.snapshot(now)
            account = tuple(max(0.0, seconds[cause]) for cause in BOOKED)  # clocks of two threads may cross
            how = (self._waiting, self._step, self.lane_s, account, self._exchanged)
            try:
                self.tell(wire.Beat(number, self._heard, mark, _AT[at], *how))
            except OSError:
                return  # the listening thread sees the same, and acts

    def _between(self) -> float:
        """Seconds between two beats. A heart that is answered tells most of it, so that beats may be rarer; when it is
        answered no more they come at once."""
        if self._heart is not None:
            period_s = self._heart.page.period_s or self._period_s
            if time.monotonic() - self._heart.page.leased_at < HEART_PULSES * period_s:
                return BEAT_S + RARER * max(0.0, period_s - PULSE_S)
        return max(BEAT_S, self._period_s)

    def _mind(self) -> None:
        """Watch the exchange: whether it gets on, and whether the peers can be reached."""
        moved = told = 0
        of: Breakable | None = None
        while not self._closing.wait(BEAT_S):
            with self._changed:
                group, number = self._group, self._entered
            if group is not of:
                of, moved, told = group, 0, 0
            if group is None:
                continue
            before, moved = moved, group.bytes_moved()
            seen, told = told, max(told, moved + group.reckoned)
            self._exchanged += told - seen
            if moved != before:
                self._carried += 1
                if self._heart is not None:
                    self._heart.page.carry(self._carried)
            if self._waiting and not self.broken:
                self._part(group, number)

    def _part(self, group: Breakable, number: int) -> None:
        """Break an exchange with peers that have not acknowledged anything for long."""
        late = group.unanswered(self._silence_s)
        if not late:
            return
        seats = self._located(number, late)
        parted = [address for address in late if not self._reaches(address, seats)]
        if not parted:
            # They can be reached again, and the kernel's next attempt may be far off. It is given a moment.
            if self._closing.wait(WITHIN_S) or not group.unanswered(self._silence_s):
                return
            why = f"{', '.join(late)} did not acknowledge anything for {self._silence_s:g} s"
        else:
            why = f"{', '.join(parted)} cannot be reached"
        with self._changed:
            if self._group is not group or not self._waiting:
                return
        peers = tuple(seat.worker for address in parted for seat in seats.get(address, ()))
        with contextlib.suppress(OSError):
            self.lost(number, why, peers)
        group.sever()

    def _located(self, number: int, addresses: tuple[str, ...]) -> dict[str, tuple[Seat, ...]]:
        """Who is there, as far as the lead says so soon."""
        deadline = time.monotonic() + WITHIN_S
        with self._changed:
            unknown = tuple(a for a in addresses if a not in self._seats)[: wire.MOST_LOCATED]
        if unknown:
            with contextlib.suppress(OSError):
                self.tell(wire.Locate(number, unknown))
        with self._changed:
            while any(a not in self._seats for a in unknown) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return dict(self._seats)

    def _locate(self, found: wire.Seats) -> None:
        if found.generation == self._seats_of:
            for address in found.addresses:
                self._seats[address] = tuple(Seat(*seat) for seat in found.seats if seat[1] == address)

    def _reaches(self, address: str, seats: dict[str, tuple[Seat, ...]]) -> bool:
        ports = [seat.probe_port for seat in seats.get(address, ()) if seat.probe_port]
        return bool(ports) and reachable(address, ports[0])


def _word(lines: Any) -> bytes:
    """What came next over a line; empty at its end."""
    first: bytes = lines.read(1)
    if not first:
        return b""
    size = frames.SIZES.get(first[0])
    rest: bytes = lines.read(size - 1) if size else lines.readline(wire.WORD_BYTES - 1)
    return first + rest
