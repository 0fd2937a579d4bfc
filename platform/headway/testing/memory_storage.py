"""A store in memory, with what stores do to their clients: stop answering, answer too late, lose answers.

Several clients share one store, as processes share a bucket:

    store = Memory()
    one, other = store.client(), store.client(Troubles(stop_at=7))
"""

from __future__ import annotations

import builtins
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from headway.storage.protocol import Absent, Buffer, Conflict, Found, OutOfReach, named

WRITES = ("put", "upload", "delete")


class Stopped(BaseException):
    """The client's process has ended, at this request; none of its code runs on."""


@dataclass
class Troubles:
    """What befalls a client. Its requests are counted from 1.

    Args:
        stop_at: the request at which it stops for ever: before it is done, or, with `stop_after`, when it was.
        lost_answers: requests that are done and whose answers do not arrive.
        late: writes that seem to fail, and are done after so many more requests of any client: {request: requests}.
        outages: times (of the store's clock) from and to which nothing arrives.
    """

    stop_at: int | None = None
    stop_after: bool = False
    lost_answers: frozenset[int] = frozenset()
    late: dict[int, int] = field(default_factory=dict)
    outages: tuple[tuple[float, float], ...] = ()


@dataclass
class Request:
    number: int
    kind: str
    name: str
    bytes: int


class Memory:
    """The store: objects with versions.

    Args:
        clock: gives the seconds by which outages begin and end, and ages are told.
        between: called before each request, with nothing locked: other clients may do something then.
        written: called with name and content of every object that is written, when it is.
    """

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.clock = clock
        self.between: Callable[[], None] = lambda: None
        self.written: Callable[[str, bytes], None] = lambda _name, _content: None
        self.objects: dict[str, tuple[bytes, str, float]] = {}
        self.lock = threading.RLock()
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._requests = 0

    def client(self, troubles: Troubles | None = None, url: str = "memory://store") -> MemoryStorage:
        return MemoryStorage(self, _Client(troubles or Troubles()), url, "")

    def put(self, name: str, content: bytes, only_if: Absent | str | None) -> str:
        held = self.objects.get(name)
        if isinstance(only_if, Absent) and held is not None:
            raise Conflict(f"{name} is there", "it was to be written only if absent")
        if isinstance(only_if, str) and (held is None or held[1] != only_if):
            raise Conflict(f"{name} was changed", "it was to be written only if it was not")
        version = hashlib.sha256(content).hexdigest()[:16]  # as S3's e_tags: the same content has the same
        self.objects[name] = (content, version, self.clock())
        self.written(name, content)
        return version

    def later(self, requests: int, action: Callable[[], None]) -> None:
        self._waiting.append((self._requests + requests, action))

    def arrived(self) -> None:
        """One more request: what was late may be done now."""
        self._requests += 1
        self.land(self._requests)

    def land(self, until: int | None = None) -> None:
        """Do what is late; all of it unless told until when."""
        due = [entry for entry in self._waiting if until is None or entry[0] <= until]
        self._waiting = [entry for entry in self._waiting if entry not in due]
        for _, action in due:
            action()


class _Client:
    """One process's connection, shared by all of its places in the store."""

    def __init__(self, troubles: Troubles) -> None:
        self.troubles = troubles
        self.requests: list[Request] = []
        self.number = 0
        self.stopped = False


class MemoryStorage:
    """A client's view of the store, from below a prefix. See `Storage`."""

    def __init__(self, store: Memory, client: _Client, url: str, prefix: str) -> None:
        self.store, self.url = store, url
        self._client, self._prefix = client, prefix

    @property
    def requests(self) -> list[Request]:
        """All that this client asked for, wherever."""
        return self._client.requests

    @property
    def writes(self) -> int:
        """Of these, those that write."""
        return sum(request.kind in WRITES for request in self._client.requests)

    @property
    def troubles(self) -> Troubles:
        return self._client.troubles

    def get(self, name: str) -> bytes:
        return self.look(name)[0]

    def look(self, name: str) -> tuple[bytes, str]:
        with self._asked("get", name):
            content, version, _ = self._held(name)
        return content, version

    def read(self, name: str, offset: int, length: int) -> Buffer:
        with self._asked("get", name):
            content = self._held(name)[0]
        if offset + length > len(content):
            raise EOFError(f"{name} has {len(content)} bytes")
        return content[offset : offset + length]

    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        held = bytes(content)
        named(name)
        with self._asked("put", name, len(held), lambda: self.store.put(self._prefix + name, held, only_if)):
            return self.store.put(self._prefix + name, held, only_if)

    def upload(self, name: str, blocks: Iterable[Buffer]) -> int:
        content = b"".join(bytes(block) for block in blocks)
        with self._asked("upload", name, len(content), lambda: self.store.put(self._prefix + name, content, None)):
            self.store.put(self._prefix + name, content, None)
        return len(content)

    def list(self, prefix: str = "") -> list[Found]:
        whole = self._prefix + prefix
        with self._asked("list", prefix):
            now = self.store.clock()
            return [
                Found(name.removeprefix(self._prefix), len(content), version, now - written)
                for name, (content, version, written) in sorted(self.store.objects.items())
                if name.startswith(whole)
            ]

    def folders(self, prefix: str = "") -> builtins.list[str]:
        whole = self._prefix + prefix
        with self._asked("list", prefix):
            below = (name.removeprefix(whole) for name in self.store.objects if name.startswith(whole))
            return sorted({name.partition("/")[0] for name in below if "/" in name})

    def delete(self, names: Sequence[str]) -> None:
        def remove() -> None:
            for name in names:
                self.store.objects.pop(self._prefix + name, None)

        with self._asked("delete", " ".join(names), 0, remove):
            remove()

    def at(self, prefix: str) -> MemoryStorage:
        return MemoryStorage(self.store, self._client, f"{self.url}/{prefix.rstrip('/')}", self._prefix + prefix)

    def close(self) -> None:
        """Nothing is held."""

    def _held(self, name: str) -> tuple[bytes, str, float]:
        try:
            return self.store.objects[self._prefix + named(name)]
        except KeyError:
            raise FileNotFoundError(f"{self.url}/{name}") from None

    @contextmanager
    def _asked(self, kind: str, name: str, size: int = 0, action: Callable[[], object] | None = None) -> Iterator[None]:
        """A request on its way. action: what it does, should it arrive late."""
        client, troubles = self._client, self._client.troubles
        self.store.between()
        with self.store.lock:
            if client.stopped:
                raise Stopped
            self.store.arrived()
            client.number += 1
            number, now = client.number, self.store.clock()
            client.requests.append(Request(number, kind, name, size))
            if troubles.stop_at == number and not troubles.stop_after:
                client.stopped = True
                raise Stopped
            if any(begin <= now < end for begin, end in troubles.outages):
                raise OutOfReach(f"{self.url} does not answer", "an outage")
            if number in troubles.late and action is not None:
                self.store.later(troubles.late[number], lambda: _anyhow(action))
                raise OutOfReach(f"{self.url} does not answer", "timed out")
            try:
                yield
            finally:
                if troubles.stop_at == number and troubles.stop_after:
                    client.stopped = True
                    raise Stopped
                if number in troubles.lost_answers:
                    raise OutOfReach(f"{self.url} does not answer", "the connection was reset")


def _anyhow(action: Callable[[], object]) -> None:
    """A late write whose condition does not hold any more changes nothing, and nobody hears of it."""
    try:
        action()
    except Conflict:
        return
