"""ASHA that pauses and promotes: the arithmetic is `headway.core.rungs`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

from headway.core.rungs import Rungs
from headway.sweeps.events import Config
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict


class Promoting(Scheduler):
    """Every trial pauses at every rung; whoever is among the best goes on, before a new one is begun.

    Args:
        steps: of the rungs, see `headway.core.rungs.steps_of`.
        factor: one of so many goes on.
        mode: whether the metric is to be small or large.
        delay: never more of them, however often the best changes.
    """

    def __init__(self, steps: Sequence[int], factor: float, mode: Literal["min", "max"], delay: bool = False) -> None:
        self._rungs = Rungs(steps, factor, delay)
        self._sign = 1.0 if mode == "min" else -1.0
        self._lengths: dict[int, int] = {}
        self._fresh: deque[int] = deque()
        self._diverged: set[int] = set()
        self._whole = False

    def added(self, trial: int, config: Config, length: int) -> None:
        self._lengths[trial] = length
        self._fresh.append(trial)

    def gate(self, trial: int, step: int) -> int:
        rung = self._rungs.after(step)
        return self._lengths[trial] if rung is None else min(rung, self._lengths[trial])

    def reported(self, trial: int, step: int, value: float) -> tuple[Verdict | Exploit, str]:
        if not self._rungs.arrive(trial, step, self._sign * value):
            return Verdict.CONTINUE, "between two rungs"
        if math.isnan(value):
            self._diverged.add(trial)
            return Verdict.STOP, "it diverged"
        rung, better, there = self._rungs.standing(trial)
        return Verdict.PAUSE, f"place {better + 1} of {there} at step {rung}"

    def ended(self, trial: int, step: int, value: float | None) -> None:
        if trial in self._fresh:
            self._fresh.remove(trial)
        if value is not None and math.isnan(value) and trial not in self._diverged:
            self._rungs.arrive(trial, self.gate(trial, step), value)
        self._rungs.leave(trial)
        if value is not None and not math.isnan(value):
            self._whole = self._whole or step >= self._lengths[trial]

    def choose(self) -> int | None:
        best = self._rungs.best()
        if best is not None:
            self._rungs.promote(best)
            return best
        return self._fresh.popleft() if self._fresh else None

    def finale(self) -> int | None:
        """The best of the highest rung, until one has gone its whole way: of five trials of which one in four goes on,
        none would."""
        highest = None if self._whole else self._rungs.highest()
        if highest is not None:
            self._rungs.promote(highest)
        return highest

    @property
    def rungs(self) -> dict[int, list[int]]:
        return {rung.step: list(rung.came) for rung in self._rungs.all}
