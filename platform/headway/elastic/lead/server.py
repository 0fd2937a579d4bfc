"""Who may speak to the coordinator: connections that show the run's token, and pulses that are sealed with it.

Where the cluster's links are under mutual TLS (see `headway.certificates`), so are these connections, and who shows no
certificate of the cluster's does not come so far as to be asked for a token; pulses are datagrams, and stay sealed.
Strangers cost nothing but a number: they are few at a time and short-lived, whatever they send is counted and dropped,
and none of it reaches the coordinator.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections import Counter
from typing import Any, Protocol

from headway import certificates
from headway.elastic.wire import frames, link, pulse
from headway.elastic.wire import messages as wire

HELLO_S = 10.0
FAREWELL_S = 1.0
"""For the end of a connection under TLS that is closed in good order."""
STRANGERS = 128
"""Connections that have not said hello, beside as many as there are workers to come; when there are more, the oldest
goes: workers speak at once."""
BACKLOG = 1024
PULSES = 256
"""That are taken in a row, before others get a turn."""
MANY, REST_S = 500, 0.005
"""From so many workers on pulses are looked for so often."""
DRAINED = 32
"""Times so many, before workers are judged."""
PULSE_BYTES = 2048
ROOM_BYTES = 2**22
"""For pulses that come while the coordinator is busy; kernels grant less."""
UNREAD_BYTES = 2**26
"""Of words that a worker has not read; it is given up then."""


class Hears(Protocol):
    """What the coordinator does with what comes in; called in its loop."""

    def expects(self, worker: str) -> bool:
        """Whether such a worker was launched, and is not gone."""

    def joined(self, hello: wire.Hello, line: Line) -> None:
        """A worker's process has connected."""

    def heard(self, worker: str, message: wire.FromWorker) -> None:
        """Raises ValueError for what makes no sense."""

    def left(self, worker: str, line: Line) -> None:
        """The connection of one that had joined is closed."""

    def beat(self, said: pulse.Pulse) -> pulse.Answer | None:
        """A worker's heart beats. Raises ValueError for what makes no sense; None: no answer."""

    def awaited(self) -> int:
        """How many workers were launched, are not gone, and have not said hello."""


class Server:
    """See the module.

    Args:
        hears: the coordinator.
    """

    def __init__(self, hears: Hears) -> None:
        self.token = secrets.token_hex(16)
        self.port = self.pulse_port = 0
        self.refused: Counter[str] = Counter()
        """What was dropped, by reason."""
        self.hears = hears
        self.lines: dict[str, Line] = {}
        """Of workers that are connected."""
        self.strangers: dict[Line, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._pulses: _Pulses | None = None
        self._keys: dict[str, bytes] = {}
        self.context: ssl.SSLContext | None = None
        self.securing: set[asyncio.Task[None]] = set()
        """Handshakes that go on."""

    async def start(self, host: str) -> None:
        """Begin to listen, at this address only. Raises OSError; BadInput: this machine's certificate is of no use."""
        self.context = certificates.context(server=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Line(self), host, 0, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        self._pulses = _Pulses(self, (await loop.getaddrinfo(host, 0, type=socket.SOCK_DGRAM))[0])
        self.pulse_port = self._pulses.open(loop)

    def deafen(self) -> None:
        """Let nobody in any more. Who was on the way in is in after a round of the loop, and can be cut then: asyncio's
        server, once closed, would leave such a connection open behind it."""
        for listening in self._server.sockets if self._server is not None else ():
            asyncio.get_running_loop().remove_reader(listening.fileno())

    def close(self) -> None:
        """Stop, after `deafen`; connections are cut."""
        if self._server is not None:
            self._server.close()
        if self._pulses is not None:
            self._pulses.close()
        for line in [*self.lines.values(), *self.strangers]:
            line.cut()
        for task in self.securing:
            task.cancel()

    def hear_out(self) -> None:
        """Take all pulses that have come and were not read yet: who has sent one is not silent."""
        if self._pulses is not None:
            self._pulses.drain()

    def refuse(self, reason: str) -> None:
        """Count it."""
        self.refused[reason] += 1

    def key(self, worker: str) -> bytes:
        """Of the worker's pulses."""
        if worker not in self._keys:
            self._keys[worker] = pulse.key(self.token, worker)
        return self._keys[worker]

    def forget(self, worker: str) -> None:
        """It is gone."""
        self._keys.pop(worker, None)

    def knocked(self, line: Line) -> None:
        """Somebody has connected."""
        late = asyncio.get_running_loop().call_later(HELLO_S, self._late, line)
        self.strangers[line] = late
        if len(self.strangers) > STRANGERS + self.hears.awaited():
            self._late(next(iter(self.strangers)))

    def hello(self, line: Line, text: bytes) -> None:
        """A stranger's first line. Raises ValueError if it may not come in."""
        said = wire.from_worker(text)
        if not isinstance(said, wire.Hello):
            raise ValueError("no hello")
        if not secrets.compare_digest(said.token.encode(), self.token.encode()):
            raise ValueError("another run's token")
        if not self.hears.expects(said.worker):
            line.say(wire.Dismiss(False, "it is no longer part of the run"))
            line.finish()
            return
        if said.worker in self.lines:
            raise ValueError("a second hello")
        self.known(line)
        line.worker = said.worker
        self.lines[said.worker] = line
        self.hears.joined(said, line)

    def known(self, line: Line) -> None:
        """It is no stranger any more, or gone."""
        late = self.strangers.pop(line, None)
        if late is not None:
            late.cancel()

    def _late(self, line: Line) -> None:
        self.refuse("silent")
        self.known(line)
        line.cut()


class Line(asyncio.Protocol):
    """One connection: a stranger's until it has said hello, a worker's from then on."""

    def __init__(self, server: Server) -> None:
        self.worker: str | None = None
        self._server = server
        self._transport: Any = None
        self._read = bytearray()
        self._secured = server.context is None

    @property
    def socket(self) -> socket.socket:
        found: socket.socket = self._transport.get_extra_info("socket")
        return found

    def say(self, message: wire.FromLead) -> None:
        """Send it, unless the connection is closed."""
        self.write(wire.encode(message))

    def write(self, line: bytes) -> None:
        """Send an encoded message."""
        if self._transport.is_closing():
            return
        self._transport.write(line)
        if self._transport.get_write_buffer_size() > UNREAD_BYTES:
            self.cut()

    def finish(self) -> None:
        """Close it when all that was said is sent."""
        self._transport.close()

    def cut(self) -> None:
        """Close it at once."""
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        link.make_quick(self.socket)
        self._server.knocked(self)
        if self._server.context is not None:
            self._transport.pause_reading()
            task = asyncio.get_running_loop().create_task(self._secure(self._server.context))
            self._server.securing.add(task)
            task.add_done_callback(self._server.securing.discard)

    async def _secure(self, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            under = await loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=HELLO_S,
                ssl_shutdown_timeout=FAREWELL_S,
            )
        except (OSError, RuntimeError):  # no certificate, a wrong or an old one; or gone, or cut, meanwhile
            self._server.refuse("bad handshake")
            self.cut()
            return
        self._transport, self._secured = under, True
        self.data_received(b"")  # what came with the handshake's end

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self._secured:
            return
        while self._read and not self._transport.is_closing():
            try:
                word = self._next()
                if word is None:
                    return
                if self.worker is None:
                    self._server.hello(self, word)
                else:
                    self._server.hears.heard(self.worker, wire.from_worker(word))
            except ValueError:
                self._server.refuse("bad hello" if self.worker is None else "bad message")
                self.cut()

    def _next(self) -> bytes | None:
        """The next line or frame; None: not all of it is there. Raises ValueError: it is too long."""
        size = frames.SIZES.get(self._read[0]) if self.worker is not None else None
        if size is None:
            end = self._read.find(b"\n")
            most = wire.HELLO_BYTES if self.worker is None else wire.LINE_BYTES
            if end > most or (end < 0 and len(self._read) > most):
                raise ValueError("too long")
            size = end + 1 or most + 1
        if len(self._read) < size:
            return None
        word = bytes(self._read[:size])
        del self._read[:size]
        return word

    def connection_lost(self, error: Exception | None) -> None:
        self._server.known(self)
        if self.worker is not None:
            self._server.lines.pop(self.worker, None)
            self._server.hears.left(self.worker, self)


class _Pulses:
    """Takes all datagrams that are there in one go: asyncio's own way takes one at each turn of its loop."""

    def __init__(self, server: Server, where: tuple[Any, ...]) -> None:
        family, kind, _, _, address = where
        self._server = server
        self._socket = socket.socket(family, kind)
        self._socket.setblocking(False)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
        self._socket.bind(address)
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, loop: asyncio.AbstractEventLoop) -> int:
        """Returns the port."""
        self._loop = loop
        loop.add_reader(self._socket, self._wake)
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop = None
            self._socket.close()

    def _wake(self) -> None:
        """Something has come. Among many workers more comes all the time: it is then looked for now and again, since to
        be woken for each costs more than to read it."""
        self._read()
        if self._loop is not None and len(self._server.lines) >= MANY:
            self._loop.remove_reader(self._socket)
            self._loop.call_later(REST_S, self._look)

    def _look(self) -> None:
        if self._loop is None:
            return
        if self._read():
            self._loop.call_later(REST_S, self._look)
        else:
            self._loop.add_reader(self._socket, self._wake)

    def drain(self) -> None:
        for _ in range(DRAINED):
            if self._loop is None or self._read() < PULSES:
                return

    def _read(self) -> int:
        """How many there were."""
        for number in range(PULSES):
            try:
                data, address = self._socket.recvfrom(PULSE_BYTES)
            except OSError:  # no more are there, or an earlier answer could not be delivered
                return number
            self._take(data, address)
        return PULSES

    def _take(self, data: bytes, address: Any) -> None:
        if not pulse.is_bundle(data):
            answer = self._answer(data)
        else:
            try:
                number, parts = pulse.unbundled(data)
            except ValueError:
                self._server.refuse("bad pulse")
                return
            answers = [self._answer(part) for part in parts]
            answer = pulse.bundle(number, answers) if any(answers) else b""
        if answer:
            with contextlib.suppress(OSError):
                self._socket.sendto(answer, address)

    def _answer(self, data: bytes) -> bytes:
        """To one pulse; empty: there is none."""
        server = self._server
        try:
            worker = pulse.claimed(data)
            if not server.hears.expects(worker):
                raise ValueError("not expected")
            key = server.key(worker)
            answer = server.hears.beat(pulse.opened(data, key))
        except ValueError:
            server.refuse("bad pulse")
            return b""
        return pulse.answer(answer, key) if answer is not None else b""
