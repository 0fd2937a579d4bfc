"""A connection under TLS that one thread reads while others write: OpenSSL lets only one at a time at a connection.

So nobody waits inside OpenSSL. The socket does not block; who has nothing to read, or no room to write, waits for the
kernel with the lock free.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any


class Secured:
    """A client's end; as far as it goes, it is used as a socket is.

    Args:
        connection: that is connected, and is taken over. What it waits at most is what the handshake, and later each
            read and write, may take.
        context: with this side's certificate, and the authority that must vouch for the other's.
        host: of the other side, which its certificate has to name.

    Raises:
        OSError: the other side is not whom the authority vouches for, or does not take this one (ssl.SSLError), or is
            gone.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._patience_s = connection.gettimeout()
        try:
            self._socket = context.wrap_socket(connection, server_hostname=host)
        except BaseException:  # raised again: nothing stays open
            connection.close()
            raise
        self._socket.setblocking(False)
        self._lock = threading.Lock()
        self._closed = False

    def settimeout(self, patience_s: float | None) -> None:
        self._patience_s = patience_s

    def sendall(self, data: Any) -> None:
        """One at a time: who calls it sees to that."""
        view, deadline = memoryview(data), self._deadline()
        while view:
            with self._lock:
                wants, sent = self._tried(self._socket.send, view)
            if sent is None:
                self._wait(wants, deadline)
            else:
                view = view[sent:]

    def recv(self, most: int) -> bytes:
        """Empty at the end of the connection."""
        deadline = self._deadline()
        while True:
            with self._lock:
                if self._closed:
                    return b""
                try:
                    wants, read = self._tried(self._socket.recv, most)
                except ssl.SSLEOFError:
                    return b""
            if read is not None:
                return bytes(read)
            self._wait(wants, deadline)

    def makefile(self, mode: str) -> io.BufferedReader:
        """For reading bytes only."""
        if mode != "rb":
            raise ValueError(f"{mode!r} is not rb")
        return io.BufferedReader(_Raw(self))

    def shutdown(self, how: int) -> None:
        """Ends the connection below TLS: who reads wakes up."""
        socket.socket.shutdown(self._socket, how)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._socket.close()

    def _tried(self, action: Callable[[Any], Any], argument: Any) -> tuple[int, Any]:
        """What it gave; None where it cannot be done now, and what it waits for. The lock is held."""
        if self._closed:
            raise OSError("the connection is closed")
        try:
            return 0, action(argument)
        except ssl.SSLWantReadError:
            return select.POLLIN, None
        except ssl.SSLWantWriteError:
            return select.POLLOUT, None

    def _wait(self, wants: int, deadline: float | None) -> None:
        with self._lock:
            if self._closed:
                return
            poll = select.poll()
            poll.register(self._socket.fileno(), wants)
        left_ms = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left_ms):
            raise TimeoutError("timed out")

    def _deadline(self) -> float | None:
        return None if self._patience_s is None else time.monotonic() + self._patience_s


class _Raw(io.RawIOBase):
    def __init__(self, connection: Secured) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self._connection.recv(len(buffer))
        buffer[: len(read)] = read
        return len(read)
