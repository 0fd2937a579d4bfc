"""A way from this machine to a cluster's job API and dashboard that nobody else sees: ssh, begun again when it breaks.

ssh runs `cat` on the far side and ends when its input does: it outlives neither this process, however that ends, nor a
connection that is gone.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from headway.core.retry import Policy
from headway.errors import BadInput, RunFailed

JOBS_PORT = 8265
LOOPBACK = "127.0.0.1"
ALIVE_S, ALIVE_TRIES = 10, 3
"""A far side that does not answer for so long, so often, is given up."""
UP = "headway-tunnel-is-up"
AGAIN = Policy(first_pause_s=2.0, longest_pause_s=30.0)
LASTED_S = 60.0
"""A connection that lasted so long has worked: pauses begin anew."""
END_S = 5.0
_TARGET = re.compile(r"[A-Za-z0-9_.%+@:\[\]-]{1,300}")
_LASTING = re.compile(
    r"Permission denied|Host key verification failed|Could not resolve hostname|Bad configuration|not accessible"
    r"|REMOTE HOST IDENTIFICATION|Too many authentication failures|Bad owner or permissions|bad local forwarding"
    r"|administratively prohibited"
)
"""What ssh says when trying again is of no use; of a host that had been reached before, not all of it."""

Say = Callable[[str], object]


@dataclass(frozen=True)
class Forward:
    """A port of this machine that leads to one on the far side."""

    local: int
    remote: int
    host: str = LOOPBACK
    """On the far side, as seen from there."""


@dataclass(frozen=True)
class Way:
    """How the far side is reached.

    Args:
        to: as ssh takes it: HOST, USER@HOST, or a name of ~/.ssh/config.
        forwards: at least one.
        listen: address of this machine at which its ports are.
        identity: file of the key.
        port: of ssh there.
        options: more of ssh's, KEY=VALUE.
        more: other arguments of ssh's, as they are.
    """

    to: str
    forwards: Sequence[Forward]
    listen: str = LOOPBACK
    identity: Path | None = None
    port: int | None = None
    options: Sequence[str] = ()
    more: Sequence[str] = ()

    def command(self, ssh: str = "ssh") -> list[str]:
        """ssh's arguments. Raises BadInput: the far side can be no such thing."""
        if _TARGET.fullmatch(self.to) is None or self.to.startswith("-"):
            raise BadInput(f"{self.to!r} is no host", "", "Give HOST, USER@HOST, or a name of ~/.ssh/config.")
        settings = {
            "ExitOnForwardFailure": "yes",
            "ServerAliveInterval": str(ALIVE_S),
            "ServerAliveCountMax": str(ALIVE_TRIES),
            "ConnectTimeout": "20",
            "ForwardAgent": "no",
            "ControlPath": "none",  # a shared connection would not end with this one
            "RequestTTY": "no",
        }
        options = [f"-o{key}={value}" for key, value in settings.items()]
        options += [f"-o{each}" for each in self.options]
        options += self.more
        options += ["-i", str(self.identity)] if self.identity is not None else []
        options += ["-p", str(self.port)] if self.port is not None else []
        listen = f"[{self.listen}]" if ":" in self.listen else self.listen
        ways = [f"{listen}:{each.local}:{each.host}:{each.remote}" for each in self.forwards]
        return [ssh, *options, *(f"-L{way}" for way in ways), "--", self.to, f"echo {UP}; exec cat"]


def free_port(wanted: int | None, listen: str, preferred: int = JOBS_PORT) -> int:
    """A port of this machine that nobody uses: the one that is wanted, else the preferred one, else any.

    Raises:
        BadInput: the one that is wanted is taken, or there is no such address here.
    """
    for port in [wanted] if wanted is not None else [preferred, 0]:
        family = socket.AF_INET6 if ":" in listen else socket.AF_INET
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((listen, port))
                return int(probe.getsockname()[1])
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if wanted is not None or not port:
                raise BadInput(f"{listen}:{port} cannot be used", reason, "Give another: --port.") from None
    raise AssertionError


def answers(host: str, port: int, within_s: float = 10.0) -> bool:
    """Whether anything does, at the end of a tunnel, that speaks HTTP."""
    with suppress(OSError), socket.create_connection((host, port), timeout=within_s) as connection:
        connection.sendall(b"GET /api/version HTTP/1.0\r\nHost: localhost\r\n\r\n")
        return connection.recv(4) == b"HTTP"
    return False


class Tunnel:
    """See the module.

    Args:
        way: to the far side.
        say: takes news for people.
    """

    def __init__(self, way: Way, say: Say = lambda _: None) -> None:
        found = shutil.which("ssh")
        if found is None:
            raise BadInput("no tunnel can be opened", "there is no ssh on this machine", "Install an OpenSSH client.")
        self._command, self._way, self._say = way.command(found), way, say
        self._process: subprocess.Popen[bytes] | None = None
        self._last: deque[str] = deque(maxlen=20)
        self._reading: list[threading.Thread] = []
        self._closing = threading.Event()
        self.up = threading.Event()
        """While connections get through, as far as is known."""

    def open(self) -> None:
        """Connect for the first time.

        Raises:
            RunFailed: ssh did not; its last words are the reason.
        """
        self._begin()
        self._await_up()
        if not self.up.is_set():
            raise self._failed()

    def keep(self) -> None:
        """Connect again whenever the connection breaks, until `close`.

        Raises:
            RunFailed: that is of no use any more.
        """
        tries, since = 0, time.monotonic()
        while not self._closing.is_set():
            self._ended()
            if self._closing.is_set():
                return
            was_up, words = self.up.is_set(), self._words()
            self.up.clear()
            if time.monotonic() - since > LASTED_S:
                tries = 0
            if not was_up and _LASTING.search(words):
                raise self._failed()
            if was_up:
                self._say(f"the connection to {self._way.to} is gone ({words}); connecting again")
            self._closing.wait(AGAIN.pause_s(tries, random.uniform(0.5, 1.0)))
            tries += 1
            if self._closing.is_set():
                return
            since = time.monotonic()
            self._begin()
            self._await_up()
            if self.up.is_set():
                self._say(f"connected to {self._way.to} again")

    def close(self) -> None:
        """End it; ssh is gone when this returns."""
        self._closing.set()
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._ended()

    def _begin(self) -> None:
        self._last.clear()
        self._process = process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is ours to hear; ssh asks for words at the terminal all the same
        )
        self._started = threading.Event()
        work = ((process.stdout, self._hear_up), (process.stderr, self._hear_words))
        self._reading = [threading.Thread(target=hear, args=(pipe,), daemon=True) for pipe, hear in work]
        for thread in self._reading:
            thread.start()

    def _await_up(self) -> None:
        """Until it is up, or has ended: somebody may be asked for a word meanwhile, so there is no deadline here."""
        while not self._started.wait(0.1):
            if self._closing.is_set():
                return

    def _ended(self) -> None:
        process = self._process
        assert process is not None
        process.wait()
        if process.stdin is not None:  # first: what ssh may have started, and left behind, ends with it
            with suppress(OSError):
                process.stdin.close()
        for thread in self._reading:
            thread.join(END_S)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _hear_up(self, pipe: Iterator[bytes]) -> None:
        """What the far side prints: first that it is there. (What its start-up files print comes before.)"""
        with suppress(ValueError, OSError):
            for line in pipe:
                if line.strip() == UP.encode():
                    self.up.set()
                    self._started.set()
        self._started.set()

    def _hear_words(self, pipe: Iterator[bytes]) -> None:
        with suppress(ValueError, OSError):
            for line in pipe:
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._last.append(text)

    def _words(self) -> str:
        """The last that ssh said."""
        code = self._process.returncode if self._process is not None else None
        return self._last[-1] if self._last else f"ssh ended with {code}"

    def _failed(self) -> RunFailed:
        self._ended()
        remedy = f"See whether `ssh {self._way.to}` works, and whether a dashboard listens there."
        return RunFailed(f"no tunnel to {self._way.to}", "; ".join(self._last) or self._words(), remedy)


@contextmanager
def opened(way: Way, say: Say = lambda _: None) -> Iterator[Tunnel]:
    """A tunnel that is up, and is ended with this. Raises BadInput, RunFailed."""
    tunnel = Tunnel(way, say)
    try:
        tunnel.open()
        yield tunnel
    finally:
        tunnel.close()
