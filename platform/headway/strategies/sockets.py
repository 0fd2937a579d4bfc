"""A group's TCP connections, seen from outside: found by what a call opened, asked for their state, and broken.

Gloo's connections are not told by torch, and their kernel knows what gloo does not: whether the peer's kernel still
acknowledges what was sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
TCP_RTO_MAX_MS = 44
"""Linux 6.15 and later: the longest pause between two attempts to send again. By default it grows to 120 s."""
RTO_MAX_MS = 1000

Named = tuple[int, str]
"""File descriptor and inode: a number may have been given to another file since."""


@dataclass(frozen=True)
class State:
    """Of one connection. Bytes since it was made; `acked_s` seconds since the peer's kernel last acknowledged
    anything; `pending`: something was sent that it has not acknowledged."""

    peer: str
    pending: bool
    acked_s: float
    moved: int


class Sockets:
    """Those of one group. Any thread may call.

    Args:
        found: connections.
    """

    def __init__(self, found: frozenset[Named] = frozenset()) -> None:
        self._found = found
        self._pending_since: dict[Named, float] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def try_often(self) -> None:
        """Send again at least once a second what is not acknowledged, so that a link that comes back is noticed."""
        for _, connection in self._connections():
            with contextlib.suppress(OSError):  # an older kernel
                connection.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, RTO_MAX_MS)

    def unanswered(self, patience_s: float) -> tuple[str, ...]:
        """Addresses of peers whose kernel has acknowledged nothing for so long though something was sent to it.

        A peer that is stopped or busy still acknowledges. Seen from call to call, so ask regularly.
        """
        now, found = time.monotonic(), set()
        for name, state in self._states():
            since = self._pending_since.setdefault(name, now)
            if not state.pending:
                del self._pending_since[name]
            elif state.acked_s < now - since:
                self._pending_since[name] = now - state.acked_s
            elif now - since >= patience_s:
                found.add(state.peer)
        return tuple(sorted(found))

    def bytes_moved(self) -> int:
        """Both ways, acknowledged; over all connections."""
        return sum(state.moved for _, state in self._states())

    def shut_down(self) -> None:
        """Break the connections: whoever waits for them is told at once, here and at the peers."""
        for _, connection in self._connections():
            # A listening socket must stay as it is: gloo's accept loop ends the process when it breaks.
            with contextlib.suppress(OSError):
                if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    connection.shutdown(socket.SHUT_RDWR)

    def _connections(self) -> Iterator[tuple[Named, socket.socket]]:
        for name in self._found:
            descriptor, target = name
            with contextlib.suppress(OSError):
                copy = os.dup(descriptor)
                try:
                    same = os.readlink(DESCRIPTORS / str(copy)) == target  # noqa: PTH115
                    connection = socket.socket(fileno=copy) if same else None
                finally:
                    if not same:
                        os.close(copy)
                if connection is not None:
                    with connection:
                        yield name, connection

    def _states(self) -> Iterator[tuple[Named, State]]:
        for name, connection in self._connections():
            with contextlib.suppress(OSError):
                yield name, _state(connection)


def opened() -> frozenset[Named]:
    """The process's sockets that a new program would inherit. Gloo's are; those of Python, torch's store and gRPC are
    not, so what other threads open while a group is made stays untouched."""
    found = set()
    for name in os.listdir(DESCRIPTORS):  # noqa: PTH208  names only: the entries come and go
        with contextlib.suppress(OSError):
            target = os.readlink(DESCRIPTORS / name)  # noqa: PTH115
            if target.startswith("socket:") and not fcntl.fcntl(int(name), fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                found.add((int(name), target))
    return frozenset(found)


def _state(connection: socket.socket) -> State:
    """From Linux's struct tcp_info."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    (probes,) = struct.unpack_from("B", info, 3)
    (unacked,) = struct.unpack_from("=I", info, 24)
    (last_ack_ms,) = struct.unpack_from("=I", info, 56)
    acked, received = struct.unpack_from("=QQ", info, 120)
    # A peer whose buffer is full is probed; it answers while it lives, so one probe on its way says nothing.
    return State(connection.getpeername()[0], unacked > 0 or probes > 1, last_ack_ms / 1000, acked + received)
