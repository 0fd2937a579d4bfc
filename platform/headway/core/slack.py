"""What it will cost to be in time, by the slack that is left: a dynamic programme over time, slack and phases.

Slack is the time until the deadline less what is still to be computed (a restart that is under way among it). Running
keeps it, waiting spends it, and so does a restart. The programme goes back from the deadline tick by tick and keeps the
least expected cost of every state (R. Bellman, Dynamic Programming, 1957). It takes the phase for known once the next
tick has come (M. Littman and others' QMDP, ICML 1995): what is believed of it now weighs the costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headway.core.phases import Phases

NOTHING, SPOT, ON_DEMAND = "nothing", "spot", "on demand"
"""What may run."""

WAYS = (NOTHING, SPOT, ON_DEMAND)

Floats = NDArray[np.float64]

MOST_TICKS = 600
"""Into how many the time until the deadline is cut, at most."""

MOST_STEPS = 400
"""Into how many the slack is cut, at most."""


@dataclass(frozen=True)
class Terms:
    """What a programme is made for.

    Args:
        tick_s: between two of its decisions.
        ticks: until the deadline.
        slack_s: most slack.
        restart_s: what starting to run, or to run elsewhere, takes.
        price: of spot by that of on demand.
    """

    tick_s: float
    ticks: int
    slack_s: float
    restart_s: float
    price: float


class Programme:
    """The least expected costs, in hours on demand; made in some tenths of a second."""

    def __init__(self, terms: Terms, phases: Phases) -> None:
        self.terms = terms
        self.moves = phases.after(terms.tick_s)
        self.there = np.array(phases.there)
        self.step_s = max(terms.tick_s / 5.0, terms.slack_s / MOST_STEPS)
        self.costs = self._made()

    def _made(self) -> NDArray[np.float32]:
        """Shape (ticks left + 1, ways, steps of slack, phases)."""
        terms, there, onward = self.terms, self.there, self.moves.T
        tick_s, restart_s, hour = terms.tick_s, terms.restart_s, terms.tick_s / 3600.0
        slack = self.step_s * np.arange(int(np.ceil(terms.slack_s / self.step_s)) + 1, dtype=np.float64)
        costs = np.zeros((terms.ticks + 1, len(WAYS), len(slack), len(there)), np.float32)
        waits, restarts = _Down(slack, tick_s), _Down(slack, restart_s)
        # What leaves too little for a restart on demand is not chosen: `core.late` sees to that, exactly.
        may_wait = (slack - tick_s >= restart_s - 1e-6)[:, None]
        may_stay = (slack >= restart_s - 1e-6)[:, None] & there
        may_start = (slack >= 2.0 * restart_s - 1e-6)[:, None] & there
        for left in range(1, terms.ticks + 1):
            idle, spot, demand = costs[left - 1].astype(np.float64)
            after_spot = np.where(there, spot, idle) @ onward
            after_demand = demand @ onward
            wait = np.where(may_wait, waits(idle @ onward), np.inf)
            stay = np.where(may_stay, terms.price * hour + after_spot, np.inf)
            start = np.where(may_start, terms.price * hour + restarts(after_spot), np.inf)
            hire = hour + restarts(after_demand)
            now = costs[left]
            now[0] = np.minimum(np.minimum(wait, start), hire)
            now[1] = np.minimum(np.minimum(wait, stay), hire)
            now[2] = np.minimum(np.minimum(wait, start), hour + after_demand)
            now[:, slack >= left * tick_s - 1e-6] = 0.0  # nothing is left to compute
        return costs

    def ahead(self, running: str, belief: Floats, left_s: float, slack_s: float) -> dict[str, float]:
        """Expected cost of each way from now to the end, in hours on demand; SPOT only where it is to be had.

        Args:
            running: one of WAYS.
            belief: chance of each phase, shape (phases,).
            left_s: until the deadline.
            slack_s: of it, not needed; both are cut to what the programme was made for.
        """
        terms = self.terms
        before = self.costs[min(max(round(left_s / terms.tick_s), 1), terms.ticks) - 1]
        soon, hour = belief @ self.moves, terms.tick_s / 3600.0
        restart_s = terms.restart_s
        found = {
            NOTHING: self._at(before[0], soon, slack_s - terms.tick_s),
            ON_DEMAND: hour + self._at(before[2], soon, slack_s - (0.0 if running == ON_DEMAND else restart_s)),
        }
        if float(belief @ self.there) > 0.5:
            then = slack_s - (0.0 if running == SPOT else restart_s)
            stays = self._at(before[1], soon * self.there, then) + self._at(before[0], soon * ~self.there, then)
            found[SPOT] = terms.price * hour + stays
        return found

    def _at(self, costs: NDArray[np.float32], chances: Floats, slack_s: float) -> float:
        """Of one way, between two steps of slack."""
        steps = min(max(slack_s / self.step_s, 0.0), len(costs) - 1.0)
        low = int(steps)
        part = steps - low
        here = float(costs[low] @ chances)
        return here if part < 1e-9 else here + part * (float(costs[low + 1] @ chances) - here)


class _Down:
    """Costs by slack, as they are with `seconds` less of it; below none as at none."""

    def __init__(self, slack: Floats, seconds: float) -> None:
        step_s = slack[1] - slack[0] if len(slack) > 1 else 1.0
        steps = np.maximum((slack - seconds) / step_s, 0.0)
        self.low = np.floor(steps + 1e-9).astype(int)
        self.part = np.maximum(steps - self.low, 0.0)[:, None]

    def __call__(self, costs: Floats) -> Floats:
        low = costs[self.low]
        found: Floats = low + self.part * (costs[np.minimum(self.low + 1, len(costs) - 1)] - low)
        return found
