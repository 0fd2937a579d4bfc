"""The workers' process group, and how one that hangs in it is freed.

A worker that leaves does not reliably free those that wait for it: gloo's `abort` does nothing, and destroying the
group leaves its connections open. Shutting the group's sockets down does; the others' collectives fail within
milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class Group:
    """A process group of all workers.

    Args:
        handle: torch's, for `group=`.
        sockets: file descriptor and inode of each socket that making it opened.
    """

    handle: Any
    sockets: frozenset[tuple[int, str]]

    def sever(self) -> None:
        """Break every connection of the group, from any thread. Its collectives fail here and at the peers."""
        for descriptor, _ in self.sockets & _sockets():  # a number may have been given to another file since
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
                # A listening socket must stay as it is: gloo's accept loop ends the process when it breaks.
                if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    connection.shutdown(socket.SHUT_RDWR)


def join(timeout_s: float) -> Group:
    """Make a group of all workers of the default group; every worker must call it."""
    import torch.distributed as dist

    before = _sockets()
    handle = dist.new_group(timeout=timedelta(seconds=timeout_s))
    return Group(handle, frozenset(_sockets() - before))


def _sockets() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir(DESCRIPTORS):  # noqa: PTH208  names only: the entries come and go
        with contextlib.suppress(OSError):
            target = os.readlink(DESCRIPTORS / name)  # noqa: PTH115
            if target.startswith("socket:"):
                found.add((int(name), target))
    return found
