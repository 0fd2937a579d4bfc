"""Locks of this machine's processes on files, which go with whoever holds them, however that ends."""

from __future__ import annotations

import fcntl
import time
from typing import IO

PAUSE_S = 0.02


def taken(file: int | IO[str], within_s: float = 0.0, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file; returns whether that could be done within the time. kind: LOCK_EX or LOCK_SH."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(PAUSE_S)
        else:
            return True
