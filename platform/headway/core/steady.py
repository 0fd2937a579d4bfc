"""A number that does not flap: another is taken once it was wished for long, longer after each change of mind."""

from __future__ import annotations

HOLD_S = 60.0
LONGEST_S = 3600.0


class Steady:
    """See the module. In `s` seconds it changes at most `len(sizes) * (2 + log2(1 + s / hold_s))` times, whatever is
    wished: in one direction there are no more sizes, and each turn doubles the time until the next.

    Args:
        value: to begin with.
        hold_s: so long another must be wished without a break.
    """

    def __init__(self, value: int, hold_s: float = HOLD_S) -> None:
        self.value = value
        self._hold_s = hold_s
        self._direction = 0
        self._wished: tuple[int, float] | None = None
        """In which direction another is wished, and since when."""

    def settle(self, wished: int, now: float) -> int:
        """The number that holds, where this one is wished now. now: seconds on one clock."""
        direction = (wished > self.value) - (wished < self.value)
        if direction == 0:
            self._wished = None
            return self.value
        if self._wished is None or self._wished[0] != direction:
            self._wished = direction, now
        if now - self._wished[1] >= self._needs(direction):
            if self._direction == -direction:
                self._hold_s = min(LONGEST_S, 2.0 * self._hold_s)
            self.value, self._direction, self._wished = wished, direction, None
        return self.value

    def take(self, value: int) -> int:
        """This number holds at once: what forces it is no wish. It counts as a change of mind like others."""
        direction = (value > self.value) - (value < self.value)
        if direction:
            if self._direction == -direction:
                self._hold_s = min(LONGEST_S, 2.0 * self._hold_s)
            self._direction = direction
        self.value, self._wished = value, None
        return value

    def _needs(self, direction: int) -> float:
        return min(LONGEST_S, 2.0 * self._hold_s) if self._direction == -direction else self._hold_s
