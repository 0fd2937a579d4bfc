"""The one process beside a process of a pool: its heart in each of its runs (see `heart`), and the keeper of what it
writes in each (see `output`). It lives as long as the worker's process, and ends when all that was written is kept.

Both sides speak over a pair of sockets, a line of JSON each way; what is shared comes with it as descriptors.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from headway.elastic.wire import pulse
from headway.elastic.worker.heart import Beating, Page, open_pidfd, start_page
from headway.elastic.worker.output import Through, keep
from headway.logs.writer import Writer

START_S = 10.0
IDLE_S = 1.0
"""Between two looks whether the worker is there, while its heart rests and the kernel does not tell."""
_ROOT = str(Path(__file__).parents[3])
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from headway.elastic.worker.attendant import main
main(int(sys.argv[2]))
"""


class Attendant:
    """The worker's side. `Attended` is the heart of one run; `keep` is for `Output`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._sending = threading.Lock()
        self._news = threading.Condition()
        self._port = 0
        self._kept: set[int] = set()
        self._number = 0
        self._gone = False

    def start(self) -> None:
        """Raises OSError if the process cannot be started."""
        mine, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # it outlives a worker that is killed, by as long as it has to read
            )
        except BaseException:  # raised again: nothing stays open
            mine.close()
            raise
        finally:
            theirs.close()
        self._connection = mine
        threading.Thread(target=self._listen, args=(mine,), name="attendant", daemon=True).start()

    @property
    def lives(self) -> bool:
        return self._process is not None and not self._gone

    @property
    def pid(self) -> int:
        """0: it was not started."""
        return self._process.pid if self._process is not None else 0

    def beat(self, told: dict[str, Any], page: int) -> int:
        """Let the heart beat for a run. Returns the port that answers probes.

        Args:
            told: worker, lead, address, key (see `heart`).
            page: descriptor of what is shared.

        Raises:
            OSError: it does not.
        """
        with self._news:
            self._port = 0
        self._say({"do": "beat", **told, "parent": os.getpid()}, [page])
        with self._news:
            if not self._news.wait_for(lambda: self._port or self._gone, START_S) or self._gone:
                raise OSError("the heart does not beat")
            return self._port

    def rest(self) -> None:
        """The heart's run is over."""
        with contextlib.suppress(OSError):
            self._say({"do": "rest"})

    def keep(self, given: dict[str, Any], reads: int, through: int) -> Kept:
        """Keep what comes through a pipe, until nobody can write to it any more.

        Args:
            given: arguments of `output.kept`; paths: for the import path.
            reads: its end; through: where all of it goes as well.

        Raises:
            OSError: it is not there.
        """
        self._number += 1
        self._say({"do": "keep", "number": self._number, **given}, [reads, through])
        return Kept(self, self._number)

    def wait(self, number: int, timeout_s: float | None) -> bool:
        """Whether all of a keeping is kept, or the process gone, within the time."""
        with self._news:
            return bool(self._news.wait_for(lambda: number in self._kept or self._gone, timeout_s))

    def close(self) -> None:
        """It ends when all is kept."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()

    def _say(self, word: dict[str, Any], files: list[int] | None = None) -> None:
        if self._connection is None or self._gone:
            raise OSError("the process beside this one is not there")
        with self._sending:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
            line = json.dumps(word).encode() + b"\n"
            sent = self._connection.sendmsg([line], ancillary)
            self._connection.sendall(line[sent:])

    def _listen(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as lines:
            for line in lines:
                word = json.loads(line)
                with self._news:
                    self._port = int(word.get("port", self._port))
                    self._kept |= {int(word["kept"])} if "kept" in word else set()
                    self._news.notify_all()
        with self._news:
            self._gone = True
            self._news.notify_all()
        if self._process is not None:
            self._process.wait()


class Kept:
    """What is written in one run, and kept by the attendant."""

    def __init__(self, attendant: Attendant, number: int) -> None:
        self._attendant, self._number = attendant, number

    def wait(self, timeout_s: float | None = None) -> bool:
        """See `Attendant.wait`."""
        return self._attendant.wait(self._number, timeout_s)


class Attended:
    """The heart of a run, as `heart.Heart`, in an attendant's process. Arguments as of it."""

    def __init__(self, attendant: Attendant, worker: str, lead: tuple[str, int], address: str, token: str) -> None:
        self._attendant = attendant
        key = pulse.key(token, worker).hex()
        self._told = {"worker": worker, "lead": lead, "address": address, "key": key}
        self._descriptor = start_page()
        self.page = Page(self._descriptor)
        self.probe_port = 0

    def start(self) -> None:
        """Begin to beat. Raises OSError if it does not; the worker can be heard without it."""
        self.probe_port = self._attendant.beat(self._told, self._descriptor)

    def close(self) -> None:
        """Beat no more. The page stays readable."""
        self._attendant.rest()
        os.close(self._descriptor)


# The process


def main(control: int) -> None:
    """Attend to the worker until it is gone, and all that it wrote is kept."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to act on
    parent = os.getppid()
    attending = _Attending(socket.socket(fileno=control), parent, open_pidfd(parent))
    if os.getppid() == parent:
        attending.run()
    attending.hear_out()
    for thread in attending.threads:
        thread.join()
    os._exit(0)  # no thread that still waits for a store keeps it


class _Attending:
    def __init__(self, control: socket.socket, parent: int, watch: int | None) -> None:
        self._control, self._parent, self._watch = control, parent, watch
        self._read, self._files = bytearray(), list[int]()
        self._sending = threading.Lock()
        self._heart: Beating | None = None
        self.threads: list[threading.Thread] = []

    def run(self) -> None:
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                if os.getppid() != self._parent:
                    return
                if self._heart is not None:
                    self._heart.tick(now)
                due = self._heart.due if self._heart is not None else now + IDLE_S
            sources: list[Any] = [self._control, *([] if self._watch is None else [self._watch])]
            sources += self._heart.sources if self._heart is not None else []
            ready = select.select(sources, [], [], max(0.0, due - now))[0]
            if self._watch in ready:
                return
            if self._heart is not None:
                self._heart.take(ready)
                due = min(due, self._heart.due)
            if self._control in ready:
                if not self._hear():
                    return
                due = time.monotonic()

    def hear_out(self) -> None:
        """What the worker said before its end counts: it may have begun to write where nobody reads yet."""
        self._rest()
        while select.select([self._control], [], [], 0.0)[0] and self._hear():
            pass

    def _hear(self) -> bool:
        """Whether the worker may say more."""
        try:
            data, files, _, _ = socket.recv_fds(self._control, 1 << 16, 8)
        except OSError:
            return False
        self._files += files
        self._read += data
        while (end := self._read.find(b"\n")) >= 0:
            word = json.loads(self._read[:end])
            del self._read[: end + 1]
            self._do(word)
        return bool(data)

    def _do(self, word: dict[str, Any]) -> None:
        match word.pop("do"):
            case "beat":
                self._rest()
                self._heart = Beating.of(word, Page(page := self._files.pop(0)))
                os.close(page)
                self._say({"port": self._heart.port})
            case "rest":
                self._rest()
            case "keep":
                reads, through = self._files.pop(0), self._files.pop(0)
                self.threads = [thread for thread in self.threads if thread.is_alive()]
                self.threads.append(threading.Thread(target=self._keep, args=(word, reads, through), daemon=True))
                self.threads[-1].start()

    def _rest(self) -> None:
        if self._heart is not None:
            self._heart.close()
            self._heart = None

    def _keep(self, word: dict[str, Any], reads: int, through: int) -> None:
        number = word.pop("number")
        sys.path += [path for path in word.pop("paths") if path not in sys.path]
        try:
            _kept(reads, through, **word)
        finally:
            os.close(reads)
            self._say({"kept": number})

    def _say(self, word: dict[str, Any]) -> None:
        with contextlib.suppress(OSError), self._sending:
            self._control.sendall(json.dumps(word).encode() + b"\n")


def _kept(
    reads: int, through: int, source: str, where: str, options: dict[str, Any] | None, every_s: float, patience_s: float
) -> None:
    """Until nobody can write to the pipe any more. Arguments as of `output.main`; patience_s: for its end."""
    writer = Writer(source, every_s)
    writer.open(where, options)
    keep(reads, writer, Through(through))
    writer.close(patience_s)
