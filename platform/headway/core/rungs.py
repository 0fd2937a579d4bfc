"""Successive halving that promotes, and waits for nobody (ASHA).

L. Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, algorithm 2: a trial that has come to a
rung waits there, and may go on as soon as it is among the best 1/factor of those that have been there. Nobody is
ended: whom others overtake waits on. Whoever was promoted and is overtaken later has had its promotion nonetheless, so
that more than 1/factor may go on in the end; with `delay` they never do (Y. Li et al., Hyper-Tune, VLDB 2022, D-ASHA).
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

Place = tuple[bool, float, int]
"""Of a trial on a rung, the best first: whether it diverged, its loss, its number."""


def steps_of(first: int, factor: float, length: int, every: int = 1) -> tuple[int, ...]:
    """Steps of the rungs below a trial's end: first, first * factor, ..., each put off to an evaluation, none twice.

    Args:
        first: the first rung.
        factor: above 1.
        length: steps of a whole trial, whose end is no rung.
        every: steps from one evaluation to the next.
    """
    found: list[int] = []
    at = float(first)
    while at < length:
        step = math.ceil(at / every) * every
        if step < length and step not in found:
            found.append(step)
        at *= factor
    return tuple(found)


@dataclass
class Rung:
    """Who has been at a step.

    Args:
        step: at which trials are compared.
        places: of all that have been there, the best first.
        waiting: of those of them that wait there.
        came: their numbers, as they came.
        promoted: how many went on.
    """

    step: int
    places: list[Place] = field(default_factory=list)
    waiting: list[Place] = field(default_factory=list)
    came: list[int] = field(default_factory=list)
    promoted: int = 0

    def first_waiting(self) -> Place | None:
        """The best that waits; one that diverged waits for nothing."""
        return self.waiting[0] if self.waiting and not self.waiting[0][0] else None

    def rank(self, place: Place) -> int:
        """How many are better."""
        return bisect_left(self.places, place)


class Rungs:
    """All rungs of a sweep. Every call takes time by the logarithm of the number of trials, moves in a list aside.

    Args:
        steps: of the rungs, rising.
        factor: one of so many goes on.
        delay: never more of them, see the module.
    """

    def __init__(self, steps: Sequence[int], factor: float, delay: bool = False) -> None:
        self.factor, self.delay = factor, delay
        self.all = [Rung(step) for step in steps]
        self._at: dict[int, tuple[int, Place]] = {}

    def after(self, step: int) -> int | None:
        """The step of the next rung; None: there is none."""
        return next((rung.step for rung in self.all if rung.step > step), None)

    def arrive(self, trial: int, step: int, loss: float) -> bool:
        """A trial comes to the highest rung that is not above a step, and waits there. loss: the less the better, NaN
        where it diverged. Returns whether there is such a rung at which it has not been."""
        at = max((level for level, rung in enumerate(self.all) if rung.step <= step), default=-1)
        if at < 0 or self._at.get(trial, (-1,))[0] >= at:
            return False
        place = (True, 0.0, trial) if math.isnan(loss) else (False, loss, trial)
        rung = self.all[at]
        insort(rung.places, place)
        insort(rung.waiting, place)
        rung.came.append(trial)
        self._at[trial] = (at, place)
        return True

    def best(self) -> int | None:
        """The trial that may go on: of the highest rung that has one, its best."""
        for rung in reversed(self.all):
            place = rung.first_waiting()
            if place is None:
                continue
            quota = math.floor(len(rung.places) / self.factor)
            if rung.rank(place) < quota and not (self.delay and rung.promoted >= quota):
                return place[2]
        return None

    def highest(self) -> int | None:
        """The best that waits on the highest rung on which anybody waits, whether it may go on or not."""
        for rung in reversed(self.all):
            place = rung.first_waiting()
            if place is not None:
                return place[2]
        return None

    def promote(self, trial: int) -> None:
        """One that waits goes on. Raises ValueError: it does not wait."""
        level, place = self._at[trial]
        self.all[level].waiting.remove(place)
        self.all[level].promoted += 1

    def leave(self, trial: int) -> None:
        """One that may have waited never goes on; those that it was compared with keep their places."""
        level, place = self._at.get(trial, (-1, None))
        if place is not None and place in self.all[level].waiting:
            self.all[level].waiting.remove(place)

    def standing(self, trial: int) -> tuple[int, int, int]:
        """Where a trial is: the step of its rung, how many are better there, and how many have been there."""
        level, place = self._at[trial]
        rung = self.all[level]
        return rung.step, rung.rank(place), len(rung.places)
