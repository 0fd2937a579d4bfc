"""Thousands of workers in one process, as far as the coordinator sees: they say hello, are ready, arrive, commit, beat.

    python clients.py HOST PORT PULSE_PORT      (started by benchmarks/scale.py; the token comes first on its input)

Orders come as lines on standard input, answers as lines of JSON on standard output:

    open NAME...     connect these, and have them be ready
    kill NAME...     their connections end, as killed processes' do
    meet SIZE FIRST  as gloo's members do, of whom these are from that rank on: each leaves a value, and asks for all
    told             when the last of them was told what: {"publish": {number: [how many, last]}, "go": ..., "met": ...}
    end
"""

from __future__ import annotations

import base64
import contextlib
import heapq
import json
import os
import resource
import selectors
import socket
import sys
import time
from typing import Any

from headway.core.ledger import BOOKED
from headway.core.watch import PULSE_S, At
from headway.elastic.wire import frames, pulse
from headway.elastic.wire import messages as wire
from headway.elastic.worker.line import BEAT_S, RARER

AT_STEP = list(At).index(At.STEP)
PER_NODE = 8
VALUE_BYTES, VALUE_BYTES_EACH = 154, 8
"""Of what a member of a gloo group leaves for the others, and for each of them (torch 2.13, measured)."""
AT_ONCE = 200
"""Connections that are on their way."""


class Client:
    """One worker."""

    def __init__(self, name: str) -> None:
        self.name, self.socket = name, socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.key, self.read, self.heard, self.period_s = b"", bytearray(), 0.0, PULSE_S
        self.step, self.number, self.mark = -1, 0, 0
        self.open, self.welcome = True, False
        self.node: list[Client] = []
        self.values: set[str] = set()
        self.wants = -1

    def say(self, message: Any) -> None:
        with contextlib.suppress(OSError):
            self.socket.send(wire.encode(message))


class Clients:
    """All of this process."""

    def __init__(self, host: str, port: int, pulse_port: int, token: str) -> None:
        self.where, self.pulses_at, self.host, self.token = (host, port), (host, pulse_port), host, token
        self.selector = selectors.DefaultSelector()
        self.pulses = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.pulses.bind((host, 0))
        self.pulses.setblocking(False)
        self.selector.register(self.pulses, selectors.EVENT_READ, self._hear)
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._obey)
        os.set_blocking(sys.stdin.fileno(), False)
        self.orders = bytearray()
        self.clients: dict[str, Client] = {}
        self.waiting: list[str] = []
        self.opening = 0
        self.due: list[tuple[float, int, str, Client]] = []
        self.asked: dict[int, Client] = {}
        self.nodes: list[list[Client]] = [[]]
        self.bundles: dict[int, list[Client]] = {}
        self.numbers = 0
        self.told: dict[str, dict[int, list[float]]] = {"publish": {}, "go": {}, "met": {}}
        self.size = 0
        self.over = False

    def run(self) -> None:
        while not self.over:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                _, _, what, client = heapq.heappop(self.due)
                if what == "pulse":
                    self._pulse(client, now)
                elif client.open:
                    self._beat(client, now)
            until = self.due[0][0] - now if self.due else 1.0
            for key, _ in self.selector.select(max(0.0, min(1.0, until))):
                if isinstance(key.data, Client):
                    self._read(key.data)
                else:
                    key.data()

    def _obey(self) -> None:
        try:
            data = os.read(sys.stdin.fileno(), 1 << 20)
        except BlockingIOError:
            return
        self.orders += data
        self.over = not data
        while (end := self.orders.find(b"\n")) >= 0:
            verb, *names = self.orders[:end].decode().split()
            del self.orders[: end + 1]
            if verb == "open":
                self.waiting += names[::-1]
                self._connect()
            elif verb == "kill":
                for name in names:
                    self._close(self.clients.pop(name))
            elif verb == "meet":
                self._meet(*map(int, names))
            elif verb == "told":
                sys.stdout.write(json.dumps(self.told) + "\n")
                sys.stdout.flush()
            else:
                self.over = True

    def _connect(self) -> None:
        while self.waiting and self.opening < AT_ONCE:
            name = self.waiting.pop()
            client = self.clients[name] = Client(name)
            client.key = pulse.key(self.token, name)
            self.opening += 1
            client.socket.settimeout(30.0)
            client.socket.connect(self.where)
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.socket.setblocking(False)
            self.selector.register(client.socket, selectors.EVENT_READ, client)
            client.say(wire.Hello(name, self.token, 0.1, 1, self.host, 4000))

    def _close(self, client: Client) -> None:
        client.open = False
        self.selector.unregister(client.socket)
        client.socket.close()

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._close(client)
            self.clients.pop(client.name, None)
            return
        read = client.read
        read += data
        while read:
            size = frames.SIZES.get(read[0]) or read.find(b"\n") + 1
            if not size or len(read) < size:
                return
            word = bytes(read[:size])
            del read[:size]
            self._take(client, word)

    def _take(self, client: Client, word: bytes) -> None:
        if word[:1] == frames.LEASE:
            _, at, client.period_s = frames.read_lease(word)
            client.heard = max(client.heard, at)
        elif word.startswith(b'{"kind":"publish"'):
            said = json.loads(word)
            self._note("publish", said["number"])
            if said["lanes"]:
                client.number = said["number"]
                client.say(wire.Arrived(client.number, client.step, 0, False))
        elif word.startswith(b'{"kind":"go"'):
            said = json.loads(word)
            self._note("go", said["number"])
            client.step, client.mark = max(client.step, said["newest"][0], 0) + 1, client.mark + 1
            client.say(wire.Committed(said["number"], client.step, 0.1))
        elif word.startswith(b'{"kind":"value"'):
            said = json.loads(word)
            client.values.add(said["key"])
            if not said["more"]:
                self._want(client)
        elif not client.welcome and word.startswith(b'{"kind":"welcome"'):
            client.welcome = True
            self.opening -= 1
            client.say(wire.Ready())
            now = time.monotonic()
            if not self.nodes[-1] or len(self.nodes[-1]) == PER_NODE:
                self.nodes.append([])
                self._later(now, "pulse", client)  # it leads its node's
            self.nodes[-1].append(client)
            client.node = self.nodes[-1]
            self._later(now + BEAT_S, "beat", client)
            self._connect()

    def _meet(self, size: int, first: int) -> None:
        self.size = size
        value = base64.b64encode(os.urandom(VALUE_BYTES + VALUE_BYTES_EACH * size)).decode()
        for rank, client in enumerate(self.clients.values(), first):
            client.say(wire.Put(client.number, f"0/{rank}", value))
        for client in self.clients.values():
            self._want(client)

    def _want(self, client: Client) -> None:
        """The next that it does not know; each is asked for once."""
        if client.wants >= 0 and f"0/{client.wants}" not in client.values:
            return
        while client.wants < self.size and (client.wants < 0 or f"0/{client.wants}" in client.values):
            client.wants += 1
        if client.wants < self.size:
            client.say(wire.Want(client.number, f"0/{client.wants}"))
        elif client.wants == self.size:
            client.wants += 1
            self._note("met", client.number)

    def _note(self, kind: str, number: int) -> None:
        found = self.told[kind].setdefault(number, [0, 0.0])
        found[0] += 1
        found[1] = time.monotonic()

    def _later(self, at: float, what: str, client: Client) -> None:
        self.numbers += 1
        heapq.heappush(self.due, (at, self.numbers, what, client))

    def _pulse(self, client: Client, now: float) -> None:
        """Of all hearts of a node: each its own, or together where the lead wants few."""
        there = [each for each in client.node if each.open]
        period_s = max([each.period_s for each in there], default=PULSE_S)
        parts = []
        for each in there:
            self.numbers += 1
            self.asked[self.numbers] = each
            parts.append(
                pulse.pulse(
                    pulse.Pulse(each.name, self.numbers, each.heard, each.mark, each.step, AT_STEP, False, False, 0),
                    each.key,
                )
            )
        while len(self.asked) > 100_000:
            del self.asked[next(iter(self.asked))]
        if period_s > PULSE_S and parts:
            self.bundles[self.numbers % 2**32] = there
            if len(self.bundles) > 10_000:
                del self.bundles[next(iter(self.bundles))]
            parts = [pulse.bundle(self.numbers % 2**32, parts)]
        for part in parts:
            with contextlib.suppress(OSError):
                self.pulses.sendto(part, self.pulses_at)
        self._later(now + period_s, "pulse", client)

    def _beat(self, client: Client, now: float) -> None:
        self.numbers += 1
        client.say(
            wire.Beat(
                self.numbers, client.heard, client.mark, AT_STEP, False, client.step, 0.1, tuple(0.5 for _ in BOOKED)
            )
        )
        self._later(now + BEAT_S + RARER * (client.period_s - PULSE_S), "beat", client)

    def _hear(self) -> None:
        for _ in range(256):
            try:
                data = self.pulses.recv(2048)
            except OSError:
                return
            if pulse.is_bundle(data):
                number, parts = pulse.unbundled(data)
                for client, part in zip(self.bundles.pop(number, ()), parts, strict=False):
                    self._answered(client, part)
            else:
                found = self.asked.pop(int.from_bytes(data[4:12], "big"), None)
                if found is not None:
                    self._answered(found, data)

    def _answered(self, client: Client, data: bytes) -> None:
        if data:
            answer = pulse.opened_answer(data, client.key)
            client.heard, client.period_s = max(client.heard, answer.at), answer.period_s


def main() -> None:
    host, port, pulse_port = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    token = b""
    while not token.endswith(b"\n"):  # byte by byte: what comes after it is not for this
        token += os.read(sys.stdin.fileno(), 1)
    Clients(host, int(port), int(pulse_port), token.decode().strip()).run()


if __name__ == "__main__":
    main()
