"""A worker's server: ranges that it carries, and copies of those that the worker before it carries.

What is acknowledged is in two places (replication of a state machine, as in Li et al. 2014): the carrier sends every
update on to whoever has the copy, and answers when that has made it too. A push says whose it is and of which step, so
that one that comes again is answered and not made again. Where a step is complete without it, the answer says that it
is late.

Who pushes and finds the carrier silent asks for the copy. From then on that is the range: it takes no more updates
from the carrier, which therefore can promise nothing any more, and says so. So there is no moment in which two servers
acknowledge updates of one range, whoever can reach whom.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from headway.core import clocks as core
from headway.core.clocks import Clocks, FirstOf
from headway.strategies.kept import Tree
from headway.strategies.lost import PeerLost
from headway.strategies.parameter_server.frames import (
    FALLBACK,
    LATE,
    Connection,
    Frame,
    Verb,
    accepted,
    as_sent,
    connected,
)

PATIENCE_S = 1.0
"""A client's, for an answer."""
COPY_PATIENCE_S = 0.6
"""A carrier's, for that of whoever has the copy: its client must hear from it before it gives the carrier up."""
HANDSHAKE_S = 10.0
"""For whoever has connected to prove that it belongs to the run."""
WAIT_S = 0.25
"""A pull that must wait is told so again and again, so that its sender knows that the server lives."""
_PUSHES = (Verb.PUSH, Verb.PUSH_PULL)
Address = tuple[str, int]
Room = Callable[[int], torch.Tensor]
"""Memory for so many float32."""


def new_room(elements: int) -> torch.Tensor:
    """Memory that nobody has."""
    return torch.empty(elements, dtype=torch.float32)


class Store(Protocol):
    """What a server has of a range; called by one thread at a time."""

    version: int

    @property
    def clocks(self) -> Clocks | FirstOf:
        """Whose steps are in it."""

    def tree(self) -> Tree:
        """All of it, to be kept."""

    def fits(self, size: int) -> bool:
        """Whether a push of so many bytes is of this range."""

    def apply(self, content: torch.Tensor, factor: float) -> None:
        """Make an update of a push's bytes. Raises ValueError where they are none; then nothing has changed."""

    def read(self, content: torch.Tensor, room: Room) -> torch.Tensor:
        """What a pull with these bytes gives: float32, in room of its own, so that it stays as it is while updates are
        made. Raises ValueError as `apply`."""


class Role(enum.Enum):
    """Of a server for a range."""

    CARRIER = enum.auto()
    COPY = enum.auto()
    DEPOSED = enum.auto()
    """It was the carrier, and somebody who could not reach it asked for the copy."""


@dataclass
class Held:
    """A range at a server.

    Args:
        store: what is there.
        role: of the server.
        follower: where the copy is; None: nowhere.
        rated: an update by old values is divided by their age.
        term: see below.
    """

    store: Store
    role: Role
    follower: Address | None = None
    rated: bool = False
    term: int = 0
    """How often a copy has become the carrier: what was made of a range under an older term was never promised."""
    link: Connection | None = None
    owed: tuple[Frame, torch.Tensor] | None = None
    """An update that is made here, and of which it is not known whether it is made there."""
    turn: threading.Condition = field(default_factory=threading.Condition)


class Server:
    """Serves from `start` to `close`, in threads of its own: one per connection.

    Args:
        token: the run's; who does not know it gets nothing.
        patience_s: for the answer of whoever has a copy.
    """

    def __init__(self, token: bytes, patience_s: float = COPY_PATIENCE_S) -> None:
        self._token, self._patience_s = token, patience_s
        self._held: dict[int, Held] = {}
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self._closed = False

    def start(self, host: str, port: int = 0) -> Address:
        """Listen, on this address of the machine.

        Returns:
            Host and port.

        Raises:
            OSError: the address is none of this machine, or taken.
        """
        self._listener = socket.create_server((host, port))
        threading.Thread(target=self._accept, name="headway-server", daemon=True).start()
        found: Address = self._listener.getsockname()[:2]
        return found

    def carry(
        self, number: int, store: Store, follower: Address | None = None, rated: bool = False, term: int = 0
    ) -> None:
        """Serve a range; its updates go on to the follower, if there is one.

        Args:
            number: of the range.
            store: what is there.
            follower: address of the server that has called `copy`.
            rated: see `headway.core.clocks.share`.
            term: of the tree that the store goes on from, see `trees`.
        """
        self._held[number] = Held(store, Role.CARRIER, follower, rated, term)

    def copy(self, number: int, store: Store, rated: bool = False, term: int = 0) -> None:
        """Make the same updates of a range as its carrier does."""
        self._held[number] = Held(store, Role.COPY, None, rated, term)

    def follow(self, number: int, follower: Address | None) -> None:
        """The copy of a range that is carried here is elsewhere from now on, as complete as the range; or nowhere."""
        held = self._held[number]
        with held.turn:
            self._unlink(held)
            held.follower, held.owed = follower, None

    def consist_of(self, replicas: Iterable[int]) -> None:
        """These train now: nobody waits for others."""
        members = frozenset(replicas)
        for held in self._held.values():
            with held.turn:
                held.store.clocks.consist_of(members)
                held.turn.notify_all()

    def change(self, number: int, change: Callable[[Any], None]) -> None:
        """Call change(store) of a range that is here, while nobody else looks at it."""
        held = self._held[number]
        with held.turn:
            change(held.store)
            held.turn.notify_all()

    def role(self, number: int) -> Role:
        """Of this server for a range."""
        return self._held[number].role

    def store(self, number: int) -> Store:
        """What is here of a range; not to be looked at while it is served."""
        return self._held[number].store

    def answer(
        self, frame: Frame, content: torch.Tensor, room: Room = new_room
    ) -> tuple[Frame, tuple[torch.Tensor, ...]]:
        """To one question, with its bytes as uint8: also without a connection, for who is in the same process. Values
        are put into the room."""
        held = self._held.get(frame.number)
        if held is None:
            return Frame(Verb.ELSEWHERE, frame.number), ()
        with held.turn:
            try:
                verb, parts = self._done(held, frame, content, room)
            except ValueError as error:
                return Frame(Verb.REFUSED, frame.number), (_text(str(error)),)
            flags = 0 if frame.verb not in _PUSHES or held.store.clocks.took(frame.replica, frame.step) else LATE
            version = held.store.version
            return Frame(verb, frame.number, frame.replica, frame.step, version, flags=flags), parts

    def trees(self) -> dict[int, Tree]:
        """All that is here, by range, to be kept or handed over (`hand_over(..., newest=True)`)."""
        found = {}
        for number, held in self._held.items():
            with held.turn:
                found[number] = {**held.store.tree(), "term": held.term}
        return found

    def close(self) -> None:
        """Serve nobody any more. Connections end at once."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for connection in connections:
            connection.close()
        for held in self._held.values():
            with held.turn:
                self._unlink(held)
                held.turn.notify_all()

    # Inside

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closed:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(link,), name="headway-server-of-one", daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        try:
            connection = accepted(link, self._token, HANDSHAKE_S)
        except OSError:
            link.close()
            return
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._connections.add(connection)
        room = torch.empty(0, dtype=torch.float32)

        def again(elements: int) -> torch.Tensor:
            """Fresh memory for each answer would cost more than filling it."""
            nonlocal room
            if len(room) < elements:
                room = new_room(elements)
            return room[:elements]

        try:
            while True:
                frame, content = connection.receive()
                answer, parts = self.answer(frame, content, again)
                connection.send(answer, *parts)
        except OSError:
            pass  # it left, or says what nobody understands
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _done(
        self, held: Held, frame: Frame, content: torch.Tensor, room: Room
    ) -> tuple[Verb, tuple[torch.Tensor, ...]]:
        """Raises ValueError."""
        if frame.verb is Verb.FORWARD:
            if held.role is not Role.COPY:
                return Verb.ELSEWHERE, ()
            self._take(held, frame, content, frame.factor)
            return Verb.DONE, ()
        if held.role is Role.COPY and frame.flags & FALLBACK:
            held.role, held.term = Role.CARRIER, held.term + 1
        if held.role is not Role.CARRIER:
            return Verb.ELSEWHERE, ()
        if frame.verb is Verb.PULL:
            ready = held.turn.wait_for(lambda: self._closed or _ready(held, frame), WAIT_S)
            return (Verb.DONE, (held.store.read(content, room),)) if ready and not self._closed else (Verb.WAIT, ())
        if frame.verb not in _PUSHES:
            raise ValueError(f"{frame.verb.name} is nothing that a server is asked")
        if not held.store.fits(len(content)):
            raise ValueError(f"a push of {len(content)} bytes is not of range {frame.number}")
        if (verb := self._pay(held)) is not Verb.DONE:
            return verb, ()
        if held.store.clocks.is_new(frame.replica, frame.step):
            factor = as_sent(core.share(held.store.version - frame.version) if held.rated else frame.factor)
            verb = self._push(held, Frame(Verb.FORWARD, frame.number, frame.replica, frame.step, 0, factor), content)
            if verb is not Verb.DONE:
                return verb, ()
        return Verb.DONE, (held.store.read(content[:0], room),) if frame.verb is Verb.PUSH_PULL else ()

    def _push(self, held: Held, frame: Frame, content: torch.Tensor) -> Verb:
        """A new update: here while it is on its way to the copy."""
        sent = held.follower is None or self._sent(held, frame, content)
        self._take(held, frame, content, frame.factor)
        if held.follower is None:
            return Verb.DONE
        verb = self._confirmed(held) if sent else Verb.AGAIN
        if verb is not Verb.DONE:
            held.owed = frame, content.clone()
        return verb

    def _pay(self, held: Held) -> Verb:
        """Before anything new: the update that the copy may lack. There it is made once, however often it comes."""
        if held.owed is None:
            return Verb.DONE
        verb = self._confirmed(held) if self._sent(held, *held.owed) else Verb.AGAIN
        if verb is Verb.DONE:
            held.owed = None
        return verb

    def _take(self, held: Held, frame: Frame, content: torch.Tensor, factor: float) -> None:
        if not held.store.clocks.is_new(frame.replica, frame.step):
            return
        if not held.store.fits(len(content)):
            raise ValueError(f"a push of {len(content)} bytes is not of range {frame.number}")
        held.store.apply(content, factor)
        held.store.clocks.take(frame.replica, frame.step)
        held.turn.notify_all()

    def _sent(self, held: Held, frame: Frame, content: torch.Tensor) -> bool:
        try:
            if held.link is None and held.follower is not None:
                held.link = connected(held.follower, self._token, self._patience_s)
            assert held.link is not None
            held.link.send(frame, content)
        except (OSError, PeerLost):
            self._unlink(held)
            return False
        return True

    def _confirmed(self, held: Held) -> Verb:
        try:
            assert held.link is not None
            frame, _ = held.link.receive()
        except OSError:
            self._unlink(held)
            return Verb.AGAIN
        if frame.verb is Verb.DONE:
            return Verb.DONE
        held.role = Role.DEPOSED
        return Verb.ELSEWHERE

    def _unlink(self, held: Held) -> None:
        if held.link is not None:
            held.link.close()
        held.link = None


def _ready(held: Held, frame: Frame) -> bool:
    return (
        held.role is Role.CARRIER
        and held.store.version >= frame.version
        and (frame.step < 0 or held.store.clocks.may_begin(frame.step))
    )


def _text(words: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(words.encode()), dtype=torch.uint8)
