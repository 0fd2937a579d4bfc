"""The money of a run while it is led: what was spent, and whether it has to end for want of more."""

from __future__ import annotations

from collections import deque

from headway.core.cost import Terms
from headway.core.purses import HOUR_S, Purse

BY = "its budget"
"""Who asks a run to end that has spent its money."""
SAVES_S = 5.0
"""A checkpoint takes so long, until one has shown what it takes."""
LINGERS_S = 10.0
"""On a cluster that buys, a run's processes take so long to end, and those who give its machines back to see that."""
LATELY_S = 20.0
"""What is spent in an hour is reckoned by so long."""
MORE = 2.0
"""To go on, a run is to be given so many times what it had."""


class Spending:
    """For one thread at a time.

    Args:
        terms: of the run.
    """

    def __init__(self, terms: Terms) -> None:
        self._purse, self._terms = Purse(terms.dollars), terms
        self._lately: deque[tuple[float, float]] = deque()
        self._begun_at: float | None = None
        self._saves_s = SAVES_S
        self.spent, self.per_hour = 0.0, 0.0

    def saving(self, at: float) -> None:
        """A checkpoint was begun. at: seconds on one clock."""
        self._begun_at = at

    def saved(self, at: float) -> None:
        """It is written."""
        if self._begun_at is not None:
            self._saves_s, self._begun_at = max(0.0, at - self._begun_at), None

    def look(self, at: float, dollars: float | None, per_hour: float | None, step_s: float) -> str:
        """Why the run has to end now, for want of money; empty where it has not.

        Args:
            at: seconds on one clock.
            dollars: spent so far, in all starts; None where nobody knows.
            per_hour: dollars, now; None: as it was lately.
            step_s: what a step takes: the one under way is finished first.
        """
        if dollars is None:
            return ""
        self.spent, self.per_hour = dollars, self._rate(at, dollars) if per_hour is None else per_hour
        lingers_s = self._terms.idle_s + LINGERS_S if self._terms.idle_s else 0.0
        to_end_s = 2.0 * step_s + 2.0 * self._saves_s + lingers_s
        lasts_s = self._purse.lasts_s(dollars, self.per_hour, to_end_s)
        if lasts_s is None or lasts_s > 0:
            return ""
        return f"{BY} of {self._purse.usd:g} dollars is spent"

    def _rate(self, at: float, dollars: float) -> float:
        lately = self._lately
        lately.append((at, dollars))
        while len(lately) > 2 and at - lately[1][0] >= LATELY_S:
            lately.popleft()
        (since, before) = lately[0]
        seconds = at - since
        return max(0.0, dollars - before) / seconds * HOUR_S if seconds > 0 else 0.0


def more(usd: float) -> list[str]:
    """Settings with which a run goes on that has spent so many dollars."""
    return [f"budget.usd={MORE * usd:g}"]
