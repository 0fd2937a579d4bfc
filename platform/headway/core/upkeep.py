"""How often a state is kept in memory: so that it costs at most a small share of the steps' time."""

from __future__ import annotations

import math
from collections import deque

SHARE = 0.02
STEPS, COSTS = 9, 3
"""So many of the newest are looked at."""


class Upkeep:
    """Told of steps and of what keeping cost, says when the next is due.

    Args:
        every: steps between two; None: as few as cost no more than SHARE of the steps' time.
    """

    def __init__(self, every: int | None = None) -> None:
        self._fixed = every
        self._step_s: deque[float] = deque(maxlen=STEPS)
        self._cost_s: deque[float] = deque(maxlen=COSTS)
        self._at: float | None = None
        self._spent = 0.0
        self._kept: int | None = None

    @property
    def step_s(self) -> float:
        """Of a step, without keeping; 0 where it is not known."""
        return sorted(self._step_s)[len(self._step_s) // 2] if self._step_s else 0.0

    @property
    def cost_s(self) -> float:
        """Of keeping once; 0 where it is not known."""
        return sum(self._cost_s) / len(self._cost_s) if self._cost_s else 0.0

    @property
    def every(self) -> int:
        """Steps between two."""
        if self._fixed is not None:
            return self._fixed
        if not self._step_s or not self._cost_s:
            return 1
        return max(1, math.ceil(self.cost_s / max(SHARE * self.step_s, 1e-9) - 1e-9))

    def restart(self) -> None:
        """The next is due at once: what is kept is of a course that the run has left."""
        self._kept, self._at, self._spent = None, None, 0.0

    def stepped(self, at: float) -> None:
        """Another step is committed. at: seconds on any one clock."""
        if self._at is not None:
            self._step_s.append(max(0.0, at - self._at - self._spent))
        self._at, self._spent = at, 0.0

    def due(self, step: int) -> bool:
        """Whether the state after so many steps is to be kept."""
        return self._kept is None or step - self._kept >= self.every

    def kept(self, step: int, cost_s: float) -> None:
        """It is, and took so long."""
        self._kept = step
        self._cost_s.append(cost_s)
        self._spent += cost_s

    def tried(self, cost_s: float) -> None:
        """It could not be, and that took so long."""
        self._spent += cost_s
