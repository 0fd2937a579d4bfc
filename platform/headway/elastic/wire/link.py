"""What a connection's kernel is told, and what it tells."""

from __future__ import annotations

import contextlib
import socket
import struct

RTO_MAX_MS = 44  # TCP_RTO_MAX_MS of Linux 6.15; Python has no name for it
LONGEST_RETRY_MS = 1000
GIVEN_UP_MS = 900_000  # about what kernels take that know no RTO_MAX_MS; who is gone is for the watch to say
_UNACKNOWLEDGED, _LAST_ACK_MS = 24, 56  # offsets in Linux' struct tcp_info: tcpi_unacked, tcpi_last_ack_recv


def make_quick(connection: socket.socket) -> None:
    """Send at once, and where the kernel can (Linux 6.15), try again each second when packets are lost: its own pauses
    double, and after 10 s without a link the next try would be up to 10 s away. As it gives up after so many tries, it
    would then do so within 15 s, and the connection's end would be taken for the worker's."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, RTO_MAX_MS, LONGEST_RETRY_MS)
    with contextlib.suppress(OSError, AttributeError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GIVEN_UP_MS)


def answers(connection: socket.socket, patience_s: float) -> bool:
    """Whether the machine at the other end acknowledges what was sent.

    A process that is stopped has a kernel that still does; a machine that is gone or cut off has not. Where the kernel
    does not tell (not Linux), it is taken to answer.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except (OSError, AttributeError):
        return True
    if len(info) < _LAST_ACK_MS + 4:
        return True
    unacknowledged = struct.unpack_from("I", info, _UNACKNOWLEDGED)[0]
    last_ack_ms = struct.unpack_from("I", info, _LAST_ACK_MS)[0]
    return not (unacknowledged and last_ack_ms > 1000 * patience_s)
