"""The gate of a run that goes in stretches: all its workers stand at a step until they are told to go on, or to leave.

What the lead says comes to each worker in one order, and at different moments. So what a worker does at a step follows
from the order alone: of two that stand at the same step, one that has heard more must do as the other will.
"""

from __future__ import annotations

from enum import StrEnum


class Word(StrEnum):
    """What a worker does between two steps: go on; wait to hear more; enter a newer generation, here; leave."""

    PASS = "pass"
    WAIT = "wait"
    REGROUP = "regroup"
    LEAVE = "leave"


class Gate:
    """See the module. Steps are numbers of committed ones; generations go by their numbers.

    Args:
        until: where the gate is; -1: there is none.
        leave: why all are to leave already; empty: they are not.
    """

    def __init__(self, until: int = -1, leave: str = "") -> None:
        self._moves: list[tuple[int, int]] = [(until, 0)]
        """Where the gate was, from the first on, and the newest generation that was known as it came there."""
        self.leave = leave
        """Why all are to leave; empty: they are not."""
        self._leave_after = 0

    @property
    def until(self) -> int:
        """Where the gate is; -1: there is none."""
        return self._moves[-1][0]

    def moved(self, until: int, newest: int) -> None:
        """The lead has said `Until`. newest: generation that is known by now."""
        if until > self.until:
            self._moves.append((until, newest))

    def leaving(self, why: str, newest: int) -> None:
        """The lead has said `Leave`."""
        if not self.leave:
            self.leave, self._leave_after = why, newest

    def word(self, step: int, entered: int, newest: int, urgent: bool) -> Word:
        """What to do after so many steps.

        Args:
            step: committed.
            entered: generation that this worker is in.
            newest: that is known.
            urgent: whether the newest waits for no end of a step.
        """
        if newest > entered and urgent:
            return Word.REGROUP
        if self.until < 0:
            return Word.PASS
        while len(self._moves) > 1 and self._moves[1][0] <= step:
            del self._moves[0]
        place = next((number for number, (until, _) in enumerate(self._moves) if until > step), None)
        if place is not None:
            # Where the gate was beyond this step before, nobody stood here. Else all did, until it was moved: whoever
            # had heard of a generation by then has gone into it, and is waited for there.
            stood = place > 0
            return Word.REGROUP if stood and self._moves[place][1] > entered else Word.PASS
        if self.leave and self._leave_after <= entered:
            return Word.LEAVE
        return Word.REGROUP if newest > entered else Word.WAIT
