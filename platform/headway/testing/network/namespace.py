"""A network namespace lives as long as the processes in it, so there is nothing to clean up, even after SIGKILL."""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from headway.errors import BadInput

START_S = 10.0
_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def inside(pid: int) -> list[str]:
    """What a command line begins with to run in the network of a process."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]


def wait_for_namespace(pid: int) -> None:
    """Wait until a process begun by `unshare --net` has a network of its own.

    Raises:
        BadInput: it does not get one.
    """
    ours, deadline = Path("/proc/self/ns/net").readlink(), time.monotonic() + START_S
    while Path(f"/proc/{pid}/ns/net").readlink() == ours:
        if time.monotonic() > deadline:
            raise BadInput(f"process {pid} got no network namespace", f"not within {START_S:.0f} s", "Try again.")
        time.sleep(0.002)


def ip(pid: int, *orders: str) -> None:
    """Run `ip` orders in the network of a process.

    Raises:
        BadInput: one was refused.
    """
    run(pid, ["ip", "-batch", "-"], "\n".join(orders) + "\n")


def run(pid: int, command: list[str], text: str = "") -> str:
    """Run a command in the network of a process; returns what it prints.

    Raises:
        BadInput: it failed.
    """
    done = subprocess.run([*inside(pid), *command], input=text, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise BadInput("the drill's network cannot be set up", said, "See headway.testing.network.")
    return done.stdout


def within(pid: int, make: Callable[[], T]) -> T:
    """What `make` returns, run in the network of a process: a socket that it opens is of that network for good.

    Raises:
        OSError: the network cannot be entered.
    """
    made: list[T] = []
    trouble: list[BaseException] = []

    def enter() -> None:
        try:
            with Path(f"/proc/{pid}/ns/net").open() as space:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(space.fileno(), _CLONE_NEWNET) != 0:  # of this thread alone, which ends here
                    raise OSError(ctypes.get_errno(), "the network of a process cannot be entered")
            made.append(make())
        except BaseException as error:  # raised again by the caller's thread
            trouble.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return made[0]
