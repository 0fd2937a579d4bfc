"""Which processes belong to a local cluster's node: by PID namespace where one can be made, else by descent.

In a PID namespace of its own a node is a machine: what was started on it ends with it, even a daemon that forked twice
and left its session. Its processes then have two numbers, and what Ray and a run's records tell is the inner one.
Without one, the node's program adopts what would go to init, so that such a daemon stays below it (`adopt`).
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

START_S = 10.0
_SET_CHILD_SUBREAPER = 36
_OWN = ("--pid", "--fork", "--kill-child", "--mount-proc")
_AS_USER = ("--user", "--map-root-user")


@functools.cache
def isolation() -> tuple[str, ...]:
    """Options of `unshare` that give a node a PID namespace of its own; none where that is not possible."""
    if shutil.which("unshare") is None:
        return ()
    for options in (_OWN, (*_AS_USER, *_OWN)):  # root of a container may not do the first
        tried = subprocess.run(["unshare", *options, "true"], capture_output=True)
        if tried.returncode == 0:
            return options
    return ()


def only_child(pid: int) -> int:
    """The process that a process begun as `unshare --fork` has started; waits until there is one."""
    deadline = time.monotonic() + START_S
    while True:
        with suppress(OSError):
            found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if found:
                return int(found[0])
        if time.monotonic() > deadline or not Path(f"/proc/{pid}").exists():
            return pid
        time.sleep(0.002)


def numbers(pid: int) -> tuple[int, ...]:
    """A process's numbers, the outermost namespace's first; empty when it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return tuple(map(int, line.split()[1:]))
    return ()


def adopt() -> None:
    """Be the parent of whatever below this process loses its own (Linux's child subreaper)."""
    with suppress(OSError, AttributeError):  # another system, or a C library that does not tell
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def session_of(leader: int) -> list[int]:
    """The live processes of a session: Ray's workers leave the process group, never the session."""
    return [each.pid for each in _living() if each.session == leader]


def below(leader: int) -> list[int]:
    """The live processes of a session, and all that descend from it."""
    living = _living()
    found = {each.pid for each in living if leader in (each.session, each.pid)}
    grown = True
    while grown:
        more = {each.pid for each in living if each.parent in found} - found
        found |= more
        grown = bool(more)
    return sorted(found)


def belonging_to(leader: int) -> list[int]:
    """The live processes of a node: its PID namespace where it has one, else its session and what descends from it."""
    space = _space(leader)
    if space is None or space == _space(os.getpid()):
        return below(leader)
    return [each.pid for each in _living() if _space(each.pid) == space]


def kill_below(leader: int, spare: int = 0) -> None:
    """SIGKILL a session and what descends from it, but for one process to spare, until nothing else of it lives.

    The leader goes last: it may have adopted what lost its parent.
    """
    while living := [pid for pid in below(leader) if pid != spare]:
        for pid in [pid for pid in living if pid != leader] or living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def marked(mark: str) -> list[int]:
    """The live processes that were started with NAME=VALUE in their environment, as far as one may look."""
    wanted = mark.encode()
    found = []
    for each in _living():
        with suppress(OSError):
            if wanted in Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0"):
                found.append(each.pid)
    return found


class _Process(NamedTuple):
    pid: int
    parent: int
    session: int


def _living() -> list[_Process]:
    """All that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if state not in "ZX":
            found.append(_Process(int(path.parent.name), int(parent), int(session)))
    return found


def _space(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None
