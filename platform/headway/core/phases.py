"""How spot machines come and go: hidden phases, in each of which they are either to be had or not.

A spell of either kind ends sooner or later by the phase that it is in, and one sees only whether there are machines; so
how long a spell has lasted, and how the spells before it went, tell the phases apart (a hidden Markov model whose
observations are certain; L. Rabiner, A Tutorial on Hidden Markov Models, Proceedings of the IEEE 1989, whose forward
step is `Seen.looked`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Phases:
    """A pool's habits.

    Args:
        tick_s: seconds that a move takes.
        there: by phase, whether machines are to be had in it.
        moves: chance of each phase after a tick, by the phase before it; each row adds up to 1.
        start: chance of each phase when nothing was seen yet.
    """

    tick_s: float
    there: tuple[bool, ...]
    moves: tuple[tuple[float, ...], ...]
    start: tuple[float, ...]

    def scaled(self, factor: float) -> Phases:
        """The same habits, `factor` times as slow."""
        return replace(self, tick_s=self.tick_s * factor)

    def after(self, seconds: float) -> Matrix:
        """Chance of each phase that many seconds on, by the phase before, shape (phases, phases).

        Whole ticks move as they were learned; within one it is a part of a move.
        """
        return _after(self, round(max(0.0, seconds), 3))


@lru_cache(maxsize=256)
def _after(phases: Phases, seconds: float) -> Matrix:
    moves = np.array(phases.moves)
    whole, part = divmod(seconds / phases.tick_s, 1.0)
    one = np.eye(len(moves))
    found: Matrix = np.linalg.matrix_power(moves, int(whole)) @ (one + part * (moves - one))
    return found


@dataclass(frozen=True)
class Seen:
    """What was seen so far.

    Args:
        belief: chance of each phase now.
        at: when it was last looked, in seconds by the caller's clock; None: never.
    """

    belief: tuple[float, ...]
    at: float | None = None

    def looked(self, phases: Phases, there: bool, at: float) -> Seen:
        """After a look that found machines to be had, or not. A clock that was put back counts as no time passed."""
        before = np.array(self.belief)
        if self.at is not None:
            before = before @ phases.after(at - self.at)
        after = before * (np.array(phases.there) == there)
        if not after.sum() > 0.0:  # what the phases hold impossible: any phase of its kind
            after = (np.array(phases.there) == there) * 1.0
        return Seen(tuple((after / after.sum()).tolist()), at)

    def as_json(self) -> dict[str, Any]:
        """For a run's records; `of_json` reads it."""
        return {"belief": list(self.belief), "at": self.at}


def unseen(phases: Phases) -> Seen:
    """Before the first look."""
    return Seen(phases.start)


def of_json(tree: Any, phases: Phases) -> Seen:
    """What `as_json` wrote; nothing seen where it is of other phases, or is none."""
    try:
        belief = tuple(float(chance) for chance in tree["belief"])
        at = None if tree["at"] is None else float(tree["at"])
    except (KeyError, TypeError, ValueError):
        return unseen(phases)
    sound = len(belief) == len(phases.there) and all(chance >= 0.0 for chance in belief) and 0.99 < sum(belief) < 1.01
    return Seen(belief, at) if sound else unseen(phases)
