"""What a run may spend, how long that lasts, and when it has to end so that it is not overdrawn."""

from __future__ import annotations

from dataclasses import dataclass

HOUR_S = 3600.0


@dataclass(frozen=True)
class Purse:
    """What a job allows.

    Args:
        usd: dollars, over all starts; None for any number.
        usd_per_hour: at a time; likewise.
    """

    usd: float | None = None
    usd_per_hour: float | None = None

    def most(self, prices: list[float]) -> int:
        """How many workers may be had at a time, of those at these prices per hour, in their order."""
        if self.usd_per_hour is None:
            return len(prices)
        number, sum_ = 0, 0.0
        for price in prices:
            sum_ += price
            if sum_ > self.usd_per_hour * (1 + 1e-9):
                break
            number += 1
        return number

    def left(self, spent: float) -> float | None:
        """Dollars; None of any number."""
        return None if self.usd is None else max(0.0, self.usd - spent)

    def lasts_s(self, spent: float, rate: float, to_end_s: float) -> float | None:
        """Seconds until the run has to begin to end.

        Args:
            spent: dollars so far.
            rate: dollars per hour, now.
            to_end_s: what a checkpoint takes, and machines cost on until they are given back.

        Returns:
            None where it never has to; 0 or less: now.
        """
        if self.usd is None or (rate <= 0 and spent < self.usd):
            return None
        if rate <= 0:
            return 0.0
        return (self.usd - spent) / rate * HOUR_S - to_end_s

    def short(self, spent: float, rate: float, rest_s: float) -> float:
        """Dollars that are missing to the end of a run that has so many seconds left at this rate; 0 where none are."""
        return 0.0 if self.usd is None else max(0.0, spent + rate * rest_s / HOUR_S - self.usd)
