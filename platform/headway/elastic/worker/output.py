"""All that a worker's process writes to its standard output and error is kept with the run, whoever writes it: Python,
C libraries, its children.

Both go through a pipe to a small process beside the worker, which keeps it (`headway.logs`) in the run's folder or
store, and hands all of it on to where it went before (Ray's log of the worker). Nobody waits for a disk or a store:
what cannot wait is dropped, and counted. The process ends when nobody can write any more, so the last words of a worker
that crashes or is killed are kept too. Of a run in a folder it needs Python's own library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any, Protocol

from headway.logs.writer import EVERY_S, Writer

WAITING_BYTES = 4 << 20
"""That wait to be handed on."""
PIPE_BYTES = 1 << 20
END_S = 2.0
SHIPPED_S = 15.0
"""So long a worker waits, at its end, for what is shipped to a store."""
PATIENCE_S, FOLDER_PATIENCE_S = 300.0, 20.0
"""So long the process beside it tries, after its end: where a store, or a folder, does not take the last of it."""
_ROOT = str(Path(__file__).parents[3])
_PROGRAM = """
import json, sys
given = json.loads(sys.argv[1])
sys.path += [path for path in given.pop("paths") if path not in sys.path]
from headway.elastic.worker.output import main
main(**given)
"""


class Ends(Protocol):
    """What keeps the output."""

    def wait(self, timeout_s: float | None) -> bool:
        """Whether it has ended within the time, and kept all."""


class Attendant(Protocol):
    """See `headway.elastic.worker.attendant.Attendant`."""

    def keep(self, given: dict[str, Any], reads: int, through: int) -> Ends: ...


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def wait(self, timeout_s: float | None) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


class Output:
    """The worker's side.

    Args:
        source: whose words they are, see `headway.logs.layout`.
        where: the run's folder or URL.
        options: how its store is spoken to.
        every_s: how often it is shipped there at most.
        attendant: keeps it, where there is one; else a process of its own does.
    """

    def __init__(
        self,
        source: str,
        where: str,
        options: dict[str, Any] | None = None,
        every_s: float = EVERY_S,
        attendant: Attendant | None = None,
    ) -> None:
        self._given = {"source": source, "where": where, "options": options, "every_s": every_s}
        self._far = "://" in where
        self._before: dict[int, int] = {}
        """Copies of the descriptors 1 and 2 as they were."""
        self._attendant = attendant
        self._keeper: Ends | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """From now on all is kept. Raises OSError if the process cannot be started; then nothing is changed."""
        reads, writes = os.pipe()
        paths = [_ROOT, *sys.path] if self._far else [_ROOT]
        try:
            with contextlib.suppress(OSError):  # more than the system lets a user have
                fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._keeper = self._begun(reads, {**self._given, "paths": paths})
            for descriptor in (1, 2):
                self._before[descriptor] = os.dup(descriptor)
                os.dup2(writes, descriptor)
        finally:
            os.close(reads)
            os.close(writes)
        threading.Thread(target=self._watch, name="output", daemon=True).start()

    def _begun(self, reads: int, given: dict[str, Any]) -> Ends:
        if self._attendant is not None:
            patience_s = PATIENCE_S if self._far else FOLDER_PATIENCE_S
            return self._attendant.keep({**given, "patience_s": patience_s}, reads, 1)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, json.dumps(given)],
            stdin=reads,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it outlives a worker that is killed, by as long as it has to read
        )
        return _Process(process)

    def close(self) -> None:
        """Have the descriptors as they were, and what was written kept."""
        self._restore()
        if self._keeper is not None:
            self._keeper.wait(END_S + (SHIPPED_S if self._far else 0.0))  # a child of the task's may go on writing

    def _watch(self) -> None:
        """Where the process beside this one is ended, nobody may write to a pipe that nobody reads."""
        assert self._keeper is not None
        self._keeper.wait(None)
        self._restore()

    def _restore(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        with self._lock:
            while self._before:
                descriptor, before = self._before.popitem()
                os.dup2(before, descriptor)
                os.close(before)


# In the process beside the worker


class Through:
    """Hands on what was written, in a thread of its own: where nobody takes it, the worker is read all the same."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._ended = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        with self._news:
            self._waiting.append(data)
            self._bytes += len(data)
            while self._bytes > WAITING_BYTES:
                self._bytes -= len(self._waiting.popleft())
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify()
        self._thread.join(END_S)
        if not self._thread.is_alive():
            os.close(self._descriptor)  # whoever waits for its end waits for no store

    def _write(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._ended)
                data, ended = b"".join(self._waiting), self._ended
                self._waiting.clear()
                self._bytes = 0
            with contextlib.suppress(OSError):
                while data:
                    data = data[os.write(self._descriptor, data) :]
            if ended:
                return


def keep(reads: int, writer: Writer, through: Through) -> None:
    """Read until nobody can write any more."""
    looks = select.poll()
    looks.register(reads, select.POLLIN)
    while True:
        looks.poll()
        data = os.read(reads, 1 << 16)
        if not data:
            break
        writer.write(data)
        through.write(data)
    through.close()


def main(source: str, where: str, options: dict[str, Any] | None, every_s: float) -> None:
    """The process beside a worker: standard input is the pipe, standard output where all went before."""
    writer = Writer(source, every_s)
    writer.open(where, options)
    keep(0, writer, Through(1))
    writer.close(PATIENCE_S if "://" in where else FOLDER_PATIENCE_S)
    os._exit(0)  # no thread that still waits for a store keeps it
