"""What a process had loaded before it trained is left out of every later search for garbage, which then takes a
millisecond. Python itself counts what is left out one by one (30 ms of a million objects), so that it is asked once."""

from __future__ import annotations

import gc

_left_out = False


def leave_out() -> None:
    """Leave out all that there is, unless something is left out already: a session's remains would stay for good."""
    global _left_out
    if not _left_out and not gc.get_freeze_count():
        gc.freeze()
    _left_out = True


def take_in() -> None:
    """Search through all again; the next session leaves out what is there then."""
    global _left_out
    gc.unfreeze()
    _left_out = False
