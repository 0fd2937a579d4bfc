"""How often something that costs may be done at once, where it could also wait for its turn."""

from __future__ import annotations


class Allowance:
    """So many times in a row, and then as often as time earns it.

    Args:
        every_s: seconds that earn one.
        most: that can be saved up; so many are there at first.
    """

    def __init__(self, every_s: float, most: int) -> None:
        self._every_s, self._most = every_s, most
        self._saved, self._at = float(most), 0.0

    def took(self, now: float) -> None:
        """One was used, whether or not there was one."""
        self._saved, self._at = max(0.0, self._now(now) - 1.0), now

    def wait_s(self, now: float) -> float:
        """Seconds until there is one; 0 where there is."""
        return max(0.0, (1.0 - self._now(now)) * self._every_s)

    def _now(self, now: float) -> float:
        return min(float(self._most), self._saved + max(0.0, now - self._at) / self._every_s)
