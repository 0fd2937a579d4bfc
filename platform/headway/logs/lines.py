"""Whole lines out of what a process writes, and what of them waits to be kept, in bounds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from headway.logs.layout import stamp

PARTIAL_S = 5.0
"""A line without an end (a progress bar) is kept so often."""
LINE_BYTES = 64 << 10
"""A longer line is cut."""


class Lines:
    """Whole lines out of bytes. Of a line that is written again and again (a progress bar) the last state is kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = b""
        self._clock = clock
        self._since = 0.0
        """When the line without an end began."""

    @property
    def partial(self) -> bool:
        """Whether a line without an end waits."""
        return bool(self._rest)

    def take(self, data: bytes) -> list[bytes]:
        """What can be kept now: lines without their ends."""
        if not self._rest or b"\n" in data:
            self._since = self._clock()
        *whole, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in whole:
            state = last_state(line)
            found += [state[at : at + LINE_BYTES] for at in range(0, len(state), LINE_BYTES)] or [b""]
        if len(self._rest) > LINE_BYTES:
            found.append(last_state(self._rest)[-LINE_BYTES:])
            self._rest = b""
        return found

    def late(self, end: bool = False) -> list[bytes]:
        """The line without an end, where it has stood for long or there comes no more."""
        now = self._clock()
        if not self._rest or not (end or now - self._since >= PARTIAL_S):
            return []
        rest, self._rest = self._rest, b""
        return [last_state(rest)]


def stamped(lines: list[bytes], now: float) -> bytes:
    """Lines as they are kept; now: in Unix seconds."""
    before = stamp(now)
    return b"".join(before + line + b"\n" for line in lines)


def pieces(data: bytes, most: int) -> list[bytes]:
    """Whole lines in pieces of at most so many bytes, or of one line."""
    found = []
    while len(data) > most:
        end = data.rfind(b"\n", 0, most) + 1 or data.find(b"\n") + 1 or len(data)
        found.append(data[:end])
        data = data[end:]
    return [*found, data] if data else found


def last_state(line: bytes) -> bytes:
    """Of a line that is written again and again."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class Waiting:
    """Lines that wait to be kept: the first that ever came, and the newest. What came between is dropped, where it
    cannot wait, and counted. Not for several threads.

    Args:
        first: bytes from the beginning that are never dropped.
        most: bytes of the newest.
    """

    def __init__(self, first: int, most: int) -> None:
        self._room, self._most = first, most
        self._first: list[bytes] = []
        self._newest: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0

    def __bool__(self) -> bool:
        return bool(self._first or self._newest or self._dropped)

    def add(self, data: bytes) -> None:
        """Whole lines, as they are kept. A piece is dropped whole."""
        if self._room > 0 and not self._newest and not self._dropped:
            self._first.append(data)
            self._room -= len(data)
            return
        self._newest.append(data)
        self._bytes += len(data)
        while self._bytes > self._most:
            gone = len(self._newest.popleft())
            self._bytes -= gone
            self._dropped += gone

    def take(self, now: float, why: str = "") -> bytes:
        """All that waits, with a line for what does not. why: it could not be kept."""
        notice = [f"... {self._dropped:,} bytes could not be kept{f': {why}' if why else ''} ...".encode()]
        found = b"".join([*self._first, stamped(notice, now) if self._dropped else b"", *self._newest])
        self._first, self._newest = [], deque()
        self._bytes = self._dropped = 0
        return found
