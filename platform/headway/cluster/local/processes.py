"""Which processes belong to a drill's node: by PID namespace where one can be made, by session where not.

In a PID namespace of its own a node is a machine: what was started on it ends with it, even a daemon that forked twice
and left its session. Its processes then have two numbers, and what Ray and a run's records tell is the inner one.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

START_S = 10.0
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


def session_of(leader: int) -> list[int]:
    """The live processes of a session: Ray's workers leave the process group, never the session."""
    return [pid for pid, session in _living() if session == leader]


def belonging_to(leader: int) -> list[int]:
    """The live processes of a node: its PID namespace where it has one, else its session."""
    space = _space(leader)
    if space is None or space == _space(os.getpid()):
        return session_of(leader)
    return [pid for pid, _ in _living() if _space(pid) == space]


def kill_session(leader: int, spare: int = 0) -> None:
    """SIGKILL a session, but for one process to spare, until nothing else of it lives."""
    while living := [pid for pid in session_of(leader) if pid != spare]:
        for pid in living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _living() -> list[tuple[int, int]]:
    """Process and session of all that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if state not in "ZX":
            found.append((int(path.parent.name), int(session)))
    return found


def _space(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None
