"""A worker's heart: a tiny process beside it that tells the coordinator, ten times a second, how the worker is.

It needs nothing of the worker but a page of shared memory and its entry in /proc, so it beats while the worker's
interpreter is locked by foreign code, and while the worker is stopped, which it says. It ends with the worker, however
that ends. Only Python's own library is imported here: it starts in some 50 ms and takes some 10 MB.

It also answers peers that ask whether they reach this machine: it takes their connections and closes them.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from headway.elastic.wire import pulse
from headway.elastic.worker.neighbours import Neighbours

START_S = 10.0
_ROOT = str(Path(__file__).parents[3])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from headway.elastic.worker.heart import main; main()"


class Page:
    """What the worker and its heart share. Each field is eight bytes, written by one side only, and read whole.

    Args:
        descriptor: of a file of at least `mmap.PAGESIZE` bytes.
    """

    _MARK, _CARRIED, _STEP, _AT, _WAITING, _LEASED, _PERIOD = range(0, 56, 8)
    _INTEGER, _FLOAT = struct.Struct("=q"), struct.Struct("=d")

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)

    def close(self) -> None:
        self._memory.close()

    # The worker's

    def write(self, mark: int, step: int, at: int, waiting: bool) -> None:
        """By the training thread."""
        pack, memory = self._INTEGER.pack_into, self._memory
        pack(memory, self._STEP, step)
        pack(memory, self._AT, at)
        pack(memory, self._WAITING, waiting)
        pack(memory, self._MARK, mark)

    def carry(self, number: int) -> None:
        """An exchange got on. By the line's thread."""
        self._INTEGER.pack_into(self._memory, self._CARRIED, number)

    @property
    def leased_at(self) -> float:
        """When the newest pulse was sent that the coordinator has answered (`time.monotonic`); 0 before."""
        found: float = self._FLOAT.unpack_from(self._memory, self._LEASED)[0]
        return found

    @property
    def period_s(self) -> float:
        """Between two pulses, as the lead wants them; 0 before it has said so."""
        found: float = self._FLOAT.unpack_from(self._memory, self._PERIOD)[0]
        return found

    # The heart's

    @property
    def mark(self) -> int:
        """Moves with the training thread and its exchanges."""
        return self._read(self._MARK) + self._read(self._CARRIED)

    @property
    def step(self) -> int:
        return self._read(self._STEP)

    @property
    def at(self) -> int:
        return self._read(self._AT)

    @property
    def waiting(self) -> bool:
        return bool(self._read(self._WAITING))

    def pace(self, period_s: float) -> None:
        """See `period_s`."""
        self._FLOAT.pack_into(self._memory, self._PERIOD, period_s)

    def lease(self, at: float) -> None:
        """See `leased_at`."""
        self._FLOAT.pack_into(self._memory, self._LEASED, at)

    def _read(self, offset: int) -> int:
        found: int = self._INTEGER.unpack_from(self._memory, offset)[0]
        return found


def start_page() -> int:
    """The descriptor of a new one."""
    descriptor = os.memfd_create("headway-heart")
    os.truncate(descriptor, mmap.PAGESIZE)
    return descriptor


class Heart:
    """The worker's side: the page, and the process.

    Args:
        worker: its id.
        lead: address and port that take pulses.
        address: of this node, as the others reach it; nothing is bound to any other.
        token: of the run.
    """

    def __init__(self, worker: str, lead: tuple[str, int], address: str, token: str) -> None:
        self._worker, self._lead, self._address, self._token = worker, lead, address, token
        self._process: subprocess.Popen[bytes] | None = None
        self.probe_port = 0
        """Where peers may ask whether they reach this machine; 0 while it does not beat."""
        self._descriptor = start_page()
        self.page = Page(self._descriptor)

    def start(self) -> None:
        """Begin to beat. Raises OSError if the process cannot be started; the worker can be heard without it."""
        told = {
            "worker": self._worker,
            "lead": self._lead,
            "address": self._address,
            "key": pulse.key(self._token, self._worker).hex(),  # not among the arguments, which everybody sees
            "page": self._descriptor,
            "parent": os.getpid(),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self._descriptor],
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()
        answered = select.poll()  # select() takes no descriptor above 1023, and the process may have many open
        answered.register(self._process.stdout, select.POLLIN)
        if not answered.poll(1000 * START_S):
            raise OSError("the heart does not beat")
        answer = self._process.stdout.readline()
        self._process.stdout.close()
        if not answer:
            raise OSError("the heart could not start")
        self.probe_port = int(answer)

    def close(self) -> None:
        """End it. The page stays readable."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        process.kill()
        process.wait()
        os.close(self._descriptor)


# The heart's own process


def main() -> None:
    """Beat until the worker is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to act on
    told = json.loads(sys.stdin.buffer.readline())
    parent = told["parent"]
    watch = open_pidfd(parent)
    if os.getppid() != parent:
        return
    beating = Beating.of(told, Page(told["page"]))
    sys.stdout.write(f"{beating.port}\n")
    sys.stdout.flush()
    sys.stdout.close()
    beating.run(watch)


class Beating:
    """The pulses of a worker in one run, and the answers to peers that probe.

    Args:
        told: by the worker's side: worker, lead, address, key, parent.
        page: that is shared with it.
        pulses: to the coordinator; listener: for peers.
    """

    def __init__(self, told: dict[str, Any], page: Page, pulses: socket.socket, listener: socket.socket) -> None:
        self._worker, self._lead, self._parent = told["worker"], tuple(told["lead"]), told["parent"]
        self._key = bytes.fromhex(told["key"])
        self._page, self._pulses, self._listener = page, pulses, listener
        self._number = 0
        self._heard = 0.0
        self.period_s = pulse.PULSE_S
        """Between two pulses; the lead says it."""
        self._sent: dict[int, float] = {}
        """When the latest pulses were sent, by number."""
        self._neighbours = Neighbours(self._lead, told["address"], pulses)
        self._due = time.monotonic()

    @classmethod
    def of(cls, told: dict[str, Any], page: Page) -> Self:
        """With sockets of its own."""
        listener = socket.create_server((told["address"], 0), backlog=64)
        pulses = socket.socket(listener.family, socket.SOCK_DGRAM)
        pulses.bind((told["address"], 0))
        for each in (listener, pulses):
            each.setblocking(False)
        return cls(told, page, pulses, listener)

    @property
    def port(self) -> int:
        """That answers probes."""
        return int(self._listener.getsockname()[1])

    @property
    def sources(self) -> list[socket.socket]:
        """Where something may come in; then it is for `take`."""
        return [self._pulses, self._listener, *self._neighbours.sources]

    @property
    def due(self) -> float:
        """When there is something to do next, for `tick`."""
        return min(self._due, self._neighbours.flush_at)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if now >= self._due:
            self._due = self._after(now)
            self.beat(now)
        self._neighbours.flush(now)

    def _after(self, now: float) -> float:
        """When the next pulse is due. Where there are many workers, all hearts of a node beat at the same moments."""
        if self.period_s <= pulse.PULSE_S:
            return max(self._due + self.period_s, now)
        phase_s = self._neighbours.phase * self.period_s
        return (math.floor((now - phase_s) / self.period_s) + 1) * self.period_s + phase_s

    def take(self, ready: list[Any]) -> None:
        if self._listener in ready:
            with contextlib.suppress(OSError):
                self._listener.accept()[0].close()
        if self._pulses in ready:
            with contextlib.suppress(OSError):
                datagram = self._pulses.recv(2048)
                answers = self._neighbours.answered(datagram) if pulse.is_bundle(datagram) else [datagram]
                for answer in answers:
                    self._hear(answer)
        for answer in self._neighbours.take(ready, time.monotonic()):
            self._hear(answer)

    def close(self) -> None:
        self._neighbours.close()
        for each in self.sources:
            each.close()
        self._page.close()

    def run(self, watch: int | None) -> None:
        """Until the worker's end. watch: by which the kernel tells of it."""
        life = sys.stdin.fileno()
        while True:
            now = time.monotonic()
            if now >= self.due:
                if os.getppid() != self._parent:
                    return
                self.tick(now)
            sources = [life, *self.sources, *([] if watch is None else [watch])]
            ready = select.select(sources, [], [], max(0.0, self.due - now))[0]
            if life in ready or watch in ready:
                return
            self.take(ready)

    def beat(self, now: float) -> None:
        """Send a pulse."""
        state, cpu_ms = _look_at_parent()
        self._number += 1
        self._sent[self._number] = now
        if len(self._sent) > 600:
            del self._sent[next(iter(self._sent))]
        page = self._page
        said = pulse.Pulse(
            self._worker, self._number, self._heard, page.mark, page.step, page.at, page.waiting, state in "Tt", cpu_ms
        )
        datagram = pulse.pulse(said, self._key)
        if self.period_s > pulse.PULSE_S and self._neighbours.send(datagram, now):
            return
        with contextlib.suppress(OSError):  # the network is away
            self._pulses.sendto(datagram, self._lead)

    def _hear(self, datagram: bytes) -> None:
        try:
            answer = pulse.opened_answer(datagram, self._key)
        except ValueError:
            return
        self._heard = max(self._heard, answer.at)
        self._neighbours.heard(time.monotonic())
        if answer.period_s != self.period_s:
            self.period_s = answer.period_s
            self._due = min(self._due, self._after(time.monotonic()))
        self._page.pace(self.period_s)
        sent = self._sent.get(answer.number)
        if sent is not None and sent > self._page.leased_at:
            self._page.lease(sent)


def open_pidfd(process: int) -> int | None:
    """By which the kernel tells of a process' end; None where it does not."""
    try:
        return os.pidfd_open(process)
    except (OSError, AttributeError):
        return None  # an old kernel: the parent's number tells as well, a beat later


def _look_at_parent() -> tuple[str, int]:
    """Its state as a letter, and the milliseconds of CPU time that it has used; nothing where /proc does not say."""
    try:
        # By the number that /proc has for it, which may be another namespace's.
        parent = _fields("self")[1]
        fields = _fields(parent)
        return fields[0], int((int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError):
        return "?", 0


def _fields(process: str) -> list[str]:
    """Of a process, from its state on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
