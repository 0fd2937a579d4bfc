"""How the processes of a submission tell whoever submitted: by a pipe to the parent, who alone writes told lines.

On standard output, beside all that a task and its libraries print there, a told line could begin in the middle of
another; and whatever prints could tell.

Only Python's own library is imported here.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, BinaryIO

from headway.jobs import told

WAY = "HEADWAY_TOLD_TO"
"""The descriptor of that pipe, as a child finds it."""

Tell = Callable[..., None]
"""Takes a kind of line, and its content by names; see `headway.jobs.told.line`."""


def teller(environ: MutableMapping[str, str] = os.environ) -> Tell:
    """For a child: tells its parent; on standard output where it has none that listens."""
    number = environ.pop(WAY, None)
    if number is None:
        return Out().tell
    os.set_inheritable(int(number), False)  # its own children do not tell
    pipe = os.fdopen(int(number), "wb", buffering=0)
    lock = threading.Lock()

    def tell(what: Any, **content: Any) -> None:
        with lock, suppress(OSError):  # the parent is gone, and nobody hears
            pipe.write(told.line(what, **content).encode())

    return tell


class Out:
    """Standard output, shared by what is told and what is printed: each told line begins at the beginning of one."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._within = False

    def tell(self, what: Any, **content: Any) -> None:
        self.write_told(told.line(what, **content).encode())

    def write_told(self, line: bytes) -> None:
        """A line that was told."""
        with self._lock:
            self._write(b"\n" + line if self._within else line)

    def write(self, printed: bytes) -> None:
        """A line that was printed, or the rest of one. None of them tells."""
        with self._lock:
            self._write(b" " + printed if printed.startswith(told.MARK.encode()) else printed)

    def _write(self, data: bytes) -> None:
        stream = self._stream or sys.stdout.buffer
        with suppress(OSError, ValueError):  # the disk of Ray's log is full: a run does not end, or hang, by that
            stream.write(data)
            stream.flush()
        self._within = not data.endswith(b"\n")
