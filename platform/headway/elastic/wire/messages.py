"""Messages between the controller and its workers: a JSON object a line, over one connection per worker."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_UNACKNOWLEDGED, _LAST_ACK_MS = 24, 56  # offsets in Linux' struct tcp_info: tcpi_unacked, tcpi_last_ack_recv


def encode(kind: str, **fields: Any) -> bytes:
    """One message."""
    return json.dumps({"kind": kind, **fields}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Raises ValueError for what is no message."""
    message = json.loads(line)
    if not isinstance(message, dict) or "kind" not in message:
        raise ValueError("not a message")
    return message


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
