"""What a sweep's loop keeps to: how long a trial is, what counts as better, and when it is enough. Plain values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

from headway.errors import BadInput, nearest
from headway.sweeps.events import Config, Limits, Spent, Values

SECONDS_PER_HOUR = 3600.0


class Unfit(BadInput):
    """A trial's settings make no valid job together: that trial fails, and no other."""


@dataclass(frozen=True)
class Way:
    """How long a trial is, and where it is evaluated.

    Args:
        length: steps.
        every: steps between its evaluations; None: at its end only. It is always evaluated at its end.
    """

    length: int
    every: int | None = None

    def at(self, step: int) -> int:
        """The first step from this one on after which there is an evaluation."""
        if self.every is None:
            return self.length
        return min(self.length, max(1, -(-step // self.every)) * self.every)


@dataclass(frozen=True)
class Budget:
    """What a sweep may spend, in all its starts together; None: as much as it takes.

    Args:
        worker_s: seconds of workers that it held.
        seconds: of the clock while it ran.
        dollars: by the price.
        price: dollars per hour of a worker.
        steps: of all trials together; in `order: strict` the only one that ends it at the same place every time.
    """

    worker_s: float | None = None
    seconds: float | None = None
    dollars: float | None = None
    price: float = 0.0
    steps: int | None = None

    def gone(self, spent: Spent) -> str:
        """Which of them is spent, in words; empty where none is."""
        dollars = spent.worker_s / SECONDS_PER_HOUR * self.price
        if self.worker_s is not None and spent.worker_s >= self.worker_s:
            return f"its budget of {self.worker_s / SECONDS_PER_HOUR:g} worker-hours is spent"
        if self.dollars is not None and dollars >= self.dollars:
            return f"its budget of {self.dollars:g} dollars is spent"
        if self.seconds is not None and spent.seconds >= self.seconds:
            return f"its deadline of {self.seconds:g} s is over"
        return ""

    def used(self, spent: Spent, steps: int) -> float | None:
        """The share that is spent, of the limit that is nearest; None without any. steps: of all trials together."""
        dollars = spent.worker_s / SECONDS_PER_HOUR * self.price
        limits = (
            (spent.worker_s, self.worker_s),
            (spent.seconds, self.seconds),
            (dollars, self.dollars),
            (steps, self.steps),
        )
        return max((value / limit for value, limit in limits if limit is not None), default=None)


@dataclass(frozen=True)
class Rules:
    """See the module.

    Args:
        metric, mode: what is wanted of a trial.
        trials: how many at most; None: as many as the searcher has and the budget allows.
        way: of a trial, by its settings; raises Unfit.
        max_failures: so many trials may fail before the sweep does.
        ahead: so many trials are asked for before there is room for them: for searchers that take their time. What they
            suggest knows of that many fewer results.
        patience: the sweep ends when so many trials in a row stood at a gate, and none was better than the best before
            by at least min_delta; None: it does not.
    """

    metric: str
    mode: Literal["min", "max"]
    trials: int | None
    way: Callable[[Config], Way]
    max_failures: int = 3
    budget: Budget = field(default_factory=Budget)
    ahead: int = 0
    patience: int | None = None
    min_delta: float = 0.0

    @property
    def limits(self) -> Limits:
        """What of them may change while the sweep goes on."""
        return Limits(self.trials, self.max_failures, self.patience, self.min_delta, **asdict(self.budget))

    def within(self, limits: Limits) -> Rules:
        """The same with other limits."""
        given = asdict(limits)
        budget = Budget(**{each.name: given.pop(each.name) for each in fields(Budget)})
        return replace(self, budget=budget, **given)

    def value(self, values: Values) -> float:
        """The metric, of all that were reported.

        Raises:
            BadInput: it is not among them.
        """
        if self.metric in values:
            return float(values[self.metric])
        reason = f"the job's evaluations report {', '.join(sorted(values)) or 'nothing'}"
        raise BadInput(
            f"metric: {self.metric} is not reported by any trial", reason, nearest(self.metric, list(values))
        )

    def better(self, value: float, than: float | None, by: float = 0.0) -> bool:
        """Whether one value of the metric is better than another, by so much at least. NaN never is; anything else is
        better than none."""
        if math.isnan(value):
            return False
        if than is None or math.isnan(than):
            return True
        gain = value - than if self.mode == "max" else than - value
        return gain > 0 and gain >= by
