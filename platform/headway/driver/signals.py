"""What signals to this process mean: Ctrl-C, SIGTERM (`kill`, a batch system, a container's end), SIGHUP (no terminal).

Each asks for an end. A run hears it and takes a checkpoint first; whatever else a command does is interrupted. Asked a
second time, the process ends at once, and all that it has started with it. A signal that was ignored when the process
began (SIGHUP under nohup) stays ignored.
"""

from __future__ import annotations

import atexit
import errno
import io
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headway.errors import INTERRUPTED

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.2
"""Signals closer than this are one request: `timeout` and others send one to a process and one to its group."""


class _Ear:
    """Hears the signals of this process. There is one of it, as there is one table of handlers.

    Requests are counted in a thread of its own, which the interpreter wakes up at once: the main thread may be in C++
    code of Ray's that hears nothing for seconds.
    """

    def __init__(self) -> None:
        self.stop: threading.Event | None = None
        """Set when an end is asked for; while there is none, KeyboardInterrupt is raised instead."""
        self.installed = False
        self._before: dict[int, Any] = {}
        self._first = self._raised = False
        self._last = -AGAIN_S
        self._pipe: tuple[int, int] = (-1, -1)
        self._wakeup = -1

    @property
    def asked(self) -> bool:
        """Whether an end has been asked for."""
        return self._first

    def install(self) -> None:
        """Begin to hear. Only the main thread may."""
        self._first = self._raised = False
        self._last, self.stop = -AGAIN_S, None
        heeded = [n for n in ASKING if n == signal.SIGINT or signal.getsignal(n) is not signal.SIG_IGN]
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=self._count, args=(self._pipe[0],), name="signals", daemon=True).start()
        self._before = {number: signal.signal(number, self._handle) for number in heeded}
        self.installed = True

    def remove(self) -> None:
        """Let signals mean what they meant before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._pipe[1])  # ends the thread
        self.installed = False

    def ignore(self) -> None:
        """Hear nothing more: the exit code is decided, and the interpreter would put the default handlers back."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: Any) -> None:
        if self.stop is not None:
            self.stop.set()
        elif not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def _count(self, pipe: int) -> None:
        with open(pipe, "rb", buffering=0) as told:
            while numbers := told.read(64):
                for number in numbers:
                    if number == signal.SIGHUP:
                        _leave_terminal()
                    if number in ASKING and not self._is_anothers(number):
                        self._asked(time.monotonic())

    def _is_anothers(self, number: int) -> bool:
        """Whether an interrupt is heard by somebody else now: a debugger, which takes it while the program runs."""
        return number == signal.SIGINT and signal.getsignal(number) != self._handle

    def _asked(self, now: float) -> None:
        if now - self._last < AGAIN_S:
            return
        if self._first:
            end_at_once()
        self._first, self._last = True, now


_ear = _Ear()


def begin() -> None:
    """For the process of a command: an end that is asked for is a KeyboardInterrupt, but where a run hears it."""
    if _ear.installed:
        return
    _outlive_terminal()
    atexit.register(_ear.ignore)  # the first to be registered is the last to be called
    _ear.install()


def asked() -> bool:
    """Whether an end of this process has been asked for."""
    return _ear.asked


@contextmanager
def asking(stop: threading.Event) -> Iterator[None]:
    """Set `stop` when an end is asked for. In a command's process nothing is interrupted any more after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = not _ear.installed
    if own:
        _ear.install()
    _ear.stop = stop
    if _ear.asked:  # and it was swallowed: exceptions are, in some callbacks
        stop.set()
    try:
        yield
    finally:
        if own:
            _ear.remove()


@contextmanager
def kept() -> Iterator[None]:
    """Keep the handlers while Ray starts or connects.

    `ray.init` puts one for SIGTERM in the place of ours, and its C++ core then another, which dumps the stack, has the
    process aborted after three seconds, and calls the one before it.
    """
    import ray._raylet
    from ray._private import utils

    core: Any = ray._raylet
    theirs, make = utils.set_sigterm_handler, core.CoreWorker
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ASKING}

    def put_back() -> None:
        for number, handler in before.items():
            if main and handler is not None:  # None: one of C's, which Python cannot put back
                signal.signal(number, handler)

    def made(*arguments: Any, **named: Any) -> Any:
        worker = make(*arguments, **named)
        put_back()
        return worker

    utils.set_sigterm_handler, core.CoreWorker = lambda handler: None, made
    try:
        yield
    finally:
        utils.set_sigterm_handler, core.CoreWorker = theirs, make
        put_back()
        if main and _ear.installed and _ear.asked:
            signal.alarm(0)  # the core's, should it have been quicker


def end_at_once() -> None:
    """End this process and all that it has started, whatever these are doing."""
    with suppress(OSError, ValueError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nended at once, as asked twice\n")
    end_descendants()
    os._exit(INTERRUPTED)


def end_descendants() -> None:
    """SIGKILL every process below this one. Each is stopped before it is looked below: it could start another."""
    found, at = [os.getpid()], 0
    while at < len(found):
        for child in _children(found[at]):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGSTOP)
                found.append(child)
        at += 1
    for process in reversed(found[1:]):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _children(process: int) -> list[int]:
    """The processes that any thread of a process has started."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


class _Terminal(io.FileIO):
    """A terminal that may hang up: the kernel tells who writes to it of that before it sends SIGHUP."""

    def write(self, b: Any, /) -> int:
        try:
            return super().write(b)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            _leave_terminal()
            return super().write(b)


def _outlive_terminal() -> None:
    """Let what this process says go nowhere once its terminal has hung up."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            stream.flush()
            raw = io.BufferedWriter(_Terminal(stream.fileno(), "w", closefd=False))
            lasting = io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True)
            setattr(sys, name, lasting)


def _leave_terminal() -> None:
    """Write to nowhere what would go to a terminal that has hung up: to write there is an error."""
    for descriptor in (0, 1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
