"""Keys that are pressed while something is shown, one by one and without an echo."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def pressed() -> Iterator[Callable[[float], str]]:
    """Gives what waits so many seconds for a key, at most, and gives it; empty where none was pressed. Where standard
    input is no terminal of ours it only waits."""
    try:
        file = sys.stdin.fileno()
        ours = os.isatty(file) and os.getpgrp() == os.tcgetpgrp(file)  # in the background it would be stopped
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        yield _wait
        return
    import termios
    import tty

    before = termios.tcgetattr(file)
    try:
        tty.setcbreak(file)
        yield lambda within_s: _key(file, within_s)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def _wait(within_s: float) -> str:
    time.sleep(within_s)
    return ""


def _key(file: int, within_s: float) -> str:
    ready, _, _ = select.select([file], [], [], within_s)
    if not ready:
        return ""
    content = os.read(file, 64)
    if not content:  # the terminal is gone
        raise KeyboardInterrupt
    return content.decode(errors="replace")
