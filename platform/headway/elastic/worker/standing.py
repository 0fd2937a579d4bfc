"""How far a worker's own code has come beside the others'."""

from __future__ import annotations

from enum import IntEnum


class Standing(IntEnum):
    """Grows only.

    OUTSIDE: the session is not entered, or waits for the first generation.
    REHEARSING: the others train; this worker does one lane for nothing before it joins them.
    WATCHING: it has the others' state, but its own code has not begun a step with it: what it says would be said twice.
    ABREAST: its code is where the others' is.
    ENDING: its loop is over; what it leaves behind is being made safe.
    """

    OUTSIDE = 0
    REHEARSING = 1
    WATCHING = 2
    ABREAST = 3
    ENDING = 4
