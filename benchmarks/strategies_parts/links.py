"""Workers on links of so many kilobits a second: each in a network of its own, on a switch, shaped by tbf both ways.

The benchmark goes into a network of its own first, so that nothing of the machine's is touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from headway.testing.links import possible
from headway.testing.network import namespace
from headway.testing.network.switch import HEAD, NETWORK, Switch

INSIDE = "HEADWAY_BENCHMARK_NETWORK"
_NEWNET = 0x40000000


def apart() -> str | None:
    """Go on in a network of this process's own, from the program's beginning; None then. Else why it cannot be."""
    if os.environ.get(INSIDE):
        namespace.ip(os.getpid(), "link set lo up")
        return None
    why = possible("rate")
    if why is not None:
        return why
    os.environ[INSIDE] = "1"
    return os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])  # this program, once more


class Links:
    """A context manager.

    Args:
        workers: how many networks, for w0, w1, ...
        kbit: of each one's link, each way; None: as fast as can be.
    """

    def __init__(self, workers: int, kbit: float | None) -> None:
        self._workers, self._kbit = workers, kbit
        self._switch = Switch()
        self._holders: list[subprocess.Popen[bytes]] = []

    host = f"{NETWORK}.{HEAD + 2}"
    """Of whoever is not shaped: the coordinator."""

    def __enter__(self) -> Self:
        self._switch.open()
        self._switch.plug_in(HEAD, os.getpid())
        for number in range(self._workers):
            holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, start_new_session=True)
            self._holders.append(holder)
            namespace.wait_for_namespace(holder.pid)
            self._switch.plug_in(number, holder.pid)
            if self._kbit is not None:
                self._switch.slow(number, self._kbit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for holder in self._holders:
            holder.kill()
            holder.communicate()
        subprocess.run(["ip", "link", "del", "eth0"], check=False, capture_output=True)
        self._switch.close()

    @property
    def enter(self) -> Callable[[str], str]:
        """For `headway.testing.elastic.Run`."""
        return partial(enter, [holder.pid for holder in self._holders])


def enter(pids: list[int], worker: str) -> str:
    """This process goes into the worker's network; returns its address there. It must have one thread."""
    number = int(worker.removeprefix("w"))
    with Path(f"/proc/{pids[number]}/ns/net").open() as space:
        os.setns(space.fileno(), _NEWNET) if hasattr(os, "setns") else _setns(space.fileno())
    return f"{NETWORK}.{number + 2}"


def _setns(descriptor: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the network of a process cannot be entered")
