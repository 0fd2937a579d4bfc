"""The agent's keeper: a small process of its own that starts the agent anew if it ends."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from headway.errors import BAD_INPUT

FIRST_S, LONGEST_S = 0.5, 30.0
WELL_S = 60.0
"""An agent that lived so long was well."""
LOOK_S = 0.05
_DEATH_SIGNAL = 1


def keep(command: Sequence[str], last: Sequence[str] = (), first_s: float = FIRST_S) -> int:
    """Run a command again and again, until it is told to end; blocks.

    SIGTERM and SIGINT go on to the command, whose end is waited for then. It does not outlive this process.

    Args:
        last: what is run at SIGTERM if the command is not there to hear it.
        first_s: until it is begun again; twice as long each time.

    Returns:
        The exit code of what was run last; BAD_INPUT at once if the command gives that.
    """
    told = 0
    child: subprocess.Popen[bytes] | None = None

    def tell(number: int, _: Any) -> None:
        nonlocal told
        told = number
        if child is not None:
            with suppress(ProcessLookupError):
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    wait_s = first_s
    while True:
        begun = time.monotonic()
        child = subprocess.Popen(command, preexec_fn=_end_with_parent)
        if told:  # while it was begun
            child.send_signal(told)
        code = child.wait()
        if not told and code != BAD_INPUT:
            wait_s = first_s if begun + WELL_S < time.monotonic() else wait_s
            print(f"the agent ended ({code}); another begins in {wait_s:g} s", file=sys.stderr, flush=True)
            until, wait_s = time.monotonic() + wait_s, min(2 * wait_s, LONGEST_S)
            while not told and time.monotonic() < until:
                time.sleep(LOOK_S)
        if told == signal.SIGTERM and code != 0 and last:
            return subprocess.call(last, preexec_fn=_end_with_parent)
        if told or code == BAD_INPUT:
            return code


def _end_with_parent() -> None:
    """Of the process that becomes the command: the system ends it with its parent (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
