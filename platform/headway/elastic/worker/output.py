"""All that a worker's process writes to its standard output and error is kept with the run, whoever writes it: Python,
C libraries, its children.

Both go through a pipe to a tiny process beside the worker, which keeps the beginning and the newest of it in
RUN/logs and hands all of it on to where it went before (Ray's log of the worker). Nobody waits for a disk: what cannot
be written is dropped, and counted. It ends when nobody can write any more, so the last words of a worker that crashes
or is killed are kept too. Only Python's own library is imported here.

Of a run in a store, what is kept lies on the worker's machine, and is shipped now and then, and at the end, by a
process that is started for that (`headway.runs.logs`).
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
import time
from collections import deque
from pathlib import Path
from typing import Any

HEAD_BYTES = 512 << 10
"""Of the first that a worker writes, in NAME.log."""
TAIL_BYTES = 512 << 10
"""Of each of the two files that hold the newest, NAME.end.log and before it NAME.end.old.log."""
PARTIAL_S = 5.0
"""A line without an end (a progress bar) is kept so often."""
WAITING_BYTES = 4 << 20
LINE_BYTES = 64 << 10
PIPE_BYTES = 1 << 20
END_S = 2.0
SHIPPED_S = 15.0
"""So long the end waits for what is shipped."""
_ROOT = str(Path(__file__).parents[3])
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from headway.elastic.worker.output import main; main()"
_SHIP = "import sys; sys.path.insert(0, sys.argv[1]); from headway.runs.logs import main; main()"


class Output:
    """The worker's side.

    Args:
        log: that holds the first of it, see `headway.runs.RunFolder.log_of`.
        far: of a run in a store, see `headway.runs.RunFolder.far`.
        every_s: how often it is shipped there.
    """

    def __init__(self, log: Path, far: dict[str, Any] | None = None, every_s: float = 300.0) -> None:
        self._log = log
        self._ships = [json.dumps(far), str(every_s)] if far is not None else []
        self._before: dict[int, int] = {}
        """Copies of the descriptors 1 and 2 as they were."""
        self._keeper: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """From now on all is kept. Raises OSError if the process cannot be started; then nothing is changed."""
        reads, writes = os.pipe()
        try:
            with contextlib.suppress(OSError):  # more than the system lets a user have
                fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT, str(self._log), *self._ships],
                stdin=reads,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # it outlives a worker that is killed, by as long as it has to read
            )
            for descriptor in (1, 2):
                self._before[descriptor] = os.dup(descriptor)
                os.dup2(writes, descriptor)
        finally:
            os.close(reads)
            os.close(writes)
        threading.Thread(target=self._watch, name="output", daemon=True).start()

    def close(self) -> None:
        """Have the descriptors as they were, and what was written kept."""
        self._restore()
        if self._keeper is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # a child of the task's may go on writing
                self._keeper.wait(END_S + (SHIPPED_S if self._ships else 0.0))

    def _watch(self) -> None:
        """Where the process beside this one is ended, nobody may write to a pipe that nobody reads."""
        assert self._keeper is not None
        self._keeper.wait()
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


class Log:
    """Keeps the beginning and the newest of what it is given; see the module. Raises OSError where the disk does.

    Args:
        path: of the beginning; what an earlier worker of that name left is gone on with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end, self._old = ends(path)

    def write(self, data: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        room = HEAD_BYTES - _size(self._path)
        if room > 0 and not self._end.exists():
            head, data = _cut(data, room, HEAD_BYTES)
            _append(self._path, head)
            if data:
                _append(self._path, f"... what comes next is in {self._end.name}, the newest of it ...\n".encode())
        while data:
            head, data = _cut(data, TAIL_BYTES - _size(self._end), TAIL_BYTES)
            if head:
                _append(self._end, head)
            if data:
                self._end.replace(self._old)


class Lines:
    """Whole lines out of bytes. Of a line that is written again and again (a progress bar) the last state is kept."""

    def __init__(self) -> None:
        self._rest = b""
        self._told_at = time.monotonic()

    def take(self, data: bytes) -> bytes:
        """What can be kept now."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            whole.append(self._rest)
            self._rest = b""
        return b"".join(_state(line) + b"\n" for line in whole)

    def late(self, end: bool = False) -> bytes:
        """The line without an end, where it has stood for long or there comes no more."""
        now = time.monotonic()
        if not self._rest or not (end or now - self._told_at >= PARTIAL_S):
            return b""
        rest, self._rest, self._told_at = self._rest, b"", now
        return _state(rest) + b"\n"


class Keeper:
    """Reads and writes in threads of their own: however slow the disk is, the worker is read."""

    def __init__(self, log: Path, through: int | None, ships: Ships | None = None) -> None:
        self._log, self._through, self._ships = Log(log), through, ships
        self._waiting: deque[bytes] = deque()
        self._bytes = self._dropped = 0
        self._why = ""
        self._ended = False
        self._news = threading.Condition()
        self._lines = Lines()

    def run(self, descriptor: int) -> None:
        """Until nobody can write any more."""
        thread = threading.Thread(target=self._write, daemon=True)
        thread.start()
        looks = select.poll()
        looks.register(descriptor, select.POLLIN)
        while True:
            data = os.read(descriptor, 1 << 16) if looks.poll(1000) else None
            with self._news:
                if data is not None and data:
                    self._waiting.append(data)
                    self._bytes += len(data)
                    while self._bytes > WAITING_BYTES:
                        gone = len(self._waiting.popleft())
                        self._bytes -= gone
                        self._dropped += gone
                self._ended = data == b""
                self._news.notify_all()
            if self._ended:
                break
        thread.join(END_S)
        if self._ships is not None:
            self._ships.end()

    def _write(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._ended, 1.0)
                data = b"".join(self._waiting)
                self._waiting.clear()
                self._bytes, ended = 0, self._ended
            if data and self._through is not None:
                with contextlib.suppress(OSError):
                    os.write(self._through, data)
            kept = self._lines.take(data) + self._lines.late(ended)
            if kept:
                self._keep(kept)
            if ended:
                return
            if self._ships is not None:
                self._ships.now_and_then()

    def _keep(self, data: bytes) -> None:
        try:
            if self._dropped:
                why = f": {self._why}" if self._why else ""
                self._log.write(f"... {self._dropped:,} bytes could not be kept{why} ...\n".encode())
                self._dropped, self._why = 0, ""
            self._log.write(data)
        except OSError as error:
            self._dropped += len(data)
            self._why = error.strerror or str(error)


class Ships:
    """Has the files of a log shipped to the store that holds the run.

    Args:
        log: the first of them.
        far: of the run, as JSON.
        every_s: how often.
    """

    def __init__(self, log: Path, far: str, every_s: float) -> None:
        self._log, self._far, self._every_s = log, far, every_s
        self._process: subprocess.Popen[bytes] | None = None
        self._due = time.monotonic() + every_s
        self._sent: list[tuple[str, int]] = []

    def now_and_then(self) -> None:
        """Where it is due, and there is something new; nobody waits for it."""
        if time.monotonic() < self._due or (self._process is not None and self._process.poll() is None):
            return
        self._due = time.monotonic() + self._every_s
        self._ship()

    def end(self) -> None:
        """All of it; then nothing is left here. Where it cannot be shipped in time, it stays."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(SHIPPED_S)
            self._ship("--remove")
            if self._process is not None:
                self._process.wait(SHIPPED_S)

    def _ship(self, *options: str) -> None:
        files = [path for path in (self._log, *ends(self._log)) if path.exists()]
        found = [(path.name, path.stat().st_size) for path in files]
        changed = [str(path) for path, now in zip(files, found, strict=True) if options or now not in self._sent]
        if not changed:
            return
        with contextlib.suppress(OSError):
            command = [sys.executable, "-c", _SHIP, _ROOT, self._far, *options, *changed]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self._sent = found


def ends(log: Path) -> tuple[Path, Path]:
    """The files of the newest that was written, the older one second."""
    return log.with_suffix(".end.log"), log.with_suffix(".end.old.log")


def _state(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _cut(data: bytes, room: int, whole: int) -> tuple[bytes, bytes]:
    """What fits, up to the end of a line; a line that fits into no file of `whole` bytes is cut."""
    if len(data) <= room:
        return data, b""
    end = data.rfind(b"\n", 0, max(0, room)) + 1 or (room if room == whole else 0)
    return data[:end], data[end:]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _append(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        while data:
            data = data[os.write(file, data) :]
    finally:
        os.close(file)


def main() -> None:
    """The process beside a worker: standard input is the pipe, standard output where all went before."""
    log, rest = Path(sys.argv[2]), sys.argv[3:]
    Keeper(log, 1, Ships(log, rest[0], float(rest[1])) if rest else None).run(0)
