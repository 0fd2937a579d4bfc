"""Whether another machine is reachable from here, asked without waiting for any kernel's patience."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import time

ATTEMPTS = 8
WITHIN_S = 1.2


def reachable(host: str, port: int, within_s: float = WITHIN_S) -> bool:
    """Whether anything answers there. A refusal does: the machine is there, and only the heart is not.

    Several attempts, one after the other, and the first success counts: packets may be lost, and a kernel would try
    again only after a second.
    """
    begun = time.monotonic()
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        for attempt in range(ATTEMPTS):
            connection = opened.enter_context(socket.socket(_family(host), socket.SOCK_STREAM))
            connection.setblocking(False)
            found = connection.connect_ex((host, port))
            if found in (0, errno.ECONNREFUSED):
                return True
            if found == errno.EINPROGRESS:
                selector.register(connection, selectors.EVENT_WRITE)
            until = begun + within_s * (attempt + 1) / ATTEMPTS
            while (left := until - time.monotonic()) > 0:
                if not selector.get_map():
                    time.sleep(left)
                for key, _ in selector.select(left):
                    answered: socket.socket = key.fileobj  # type: ignore[assignment]
                    if answered.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED):
                        return True
                    selector.unregister(answered)
    return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
