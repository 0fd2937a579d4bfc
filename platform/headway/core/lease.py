"""Who leads a run that lives in a store: what a leader and those who watch it may conclude from their own clocks.

A lease is an object that its leader writes anew all the time. Nobody believes a time that another machine wrote: who
saw the object unchanged for the lease's length, by its own clock, may take it; a leader that could not write it for
nearly that long must expect that somebody did. Neither is what keeps two leaders apart (the store's conditional writes
do); they are for not disturbing one that lives, and for telling people in time.

Times are seconds on the clock of whoever decides, which only has to go on.
"""

from __future__ import annotations

LENGTH_S = 30.0
SURE = 0.8
"""Of its length: for so long a leader may be sure of a lease that it wrote. Two clocks of which one is a tenth too slow
and the other a tenth too fast differ by 1.1 / 0.9, less than 1 / 0.8."""
RENEWALS = 3
"""A lease is written at least so many times within its length."""


class Watch:
    """What an observer knows of a lease. It asks for the lease's version now and then."""

    def __init__(self) -> None:
        self._version: str | None = None
        self._since = 0.0
        self.moved = False
        """Whether the lease was seen to change: somebody lives who leads."""

    def saw(self, now: float, version: str) -> None:
        """It has this version. now: when the answer had come."""
        if version != self._version:
            self.moved = self._version is not None
            self._version, self._since = version, now

    def lapsed(self, asked: float, length_s: float) -> bool:
        """Whether it may be taken. asked: when the version was asked for that was seen last."""
        return self._version is not None and asked - self._since >= length_s


class Tenure:
    """What a leader knows of its lease.

    Args:
        length_s: of the lease.
        asked: when the write was begun by which it became the leader.
    """

    def __init__(self, length_s: float, asked: float) -> None:
        self.length_s = length_s
        self._asked = asked

    def renewed(self, asked: float) -> None:
        """A write succeeded that was begun then."""
        self._asked = max(self._asked, asked)

    def due(self, now: float) -> bool:
        """Whether it is to be written, even where there is nothing to tell."""
        return now >= self.due_at

    @property
    def due_at(self) -> float:
        return self._asked + self.length_s / RENEWALS

    def sure(self, now: float) -> bool:
        """Whether nobody can have taken it who keeps to the rules."""
        return now - self._asked < self.length_s * SURE
