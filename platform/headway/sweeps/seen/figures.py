"""A sweep in figures, for Prometheus (see `headway.core.families`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from headway.core.families import TRIAL_STATES
from headway.core.figures import Sample
from headway.sweeps.seen.view import View

EVERY_S = 1.0


def samples(view: View, used: float | None) -> Iterator[Sample]:
    """Of what is to be seen now. used: share of the budget that is spent; None without a budget."""
    counts = view.counts
    for state in TRIAL_STATES:
        yield "sweep_trials", (state,), float(counts[state])
    best = view.best.best if view.best is not None else None
    if best is not None and math.isfinite(best):
        yield "sweep_best", (), best
    yield "sweep_workers", (), float(view.workers)
    yield "sweep_worker_seconds_total", (), view.worker_s
    if used is not None:
        yield "sweep_budget_used_ratio", (), used
    if view.dollars is not None:
        yield "sweep_dollars_total", (), view.dollars


class Given:
    """Gives the figures away as they change, once in a while.

    Args:
        give: takes them; may not block.
        used: gives the share of the budget that is spent.
        clock: seconds on a clock that only goes on.
    """

    def __init__(
        self,
        give: Callable[[Sequence[Sample]], None],
        used: Callable[[View], float | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._give, self._used, self._clock = give, used, clock
        self._at = -math.inf

    def __call__(self, view: View) -> None:
        """Look at the sweep."""
        now = self._clock()
        if now - self._at >= EVERY_S:
            self._at = now
            self._give(list(samples(view, self._used(view))))
