"""What a sweep will run, before it costs anything: its loop and scheduler are gone through on a virtual clock, once
with results that keep as many trials as can be, and once with those of chance.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Literal, Protocol

from headway.core.allotment import at_once
from headway.core.lanes import carried
from headway.errors import BadInput
from headway.job import Job
from headway.sweeps.admission import admit, corners
from headway.sweeps.events import Ask, Clone, Config, GoOn, Over, Reported, Start, Suggested, Width
from headway.sweeps.file import Sweep
from headway.sweeps.loop import Loop
from headway.sweeps.rules import SECONDS_PER_HOUR, Budget, Rules
from headway.sweeps.schedule.registry import create
from headway.sweeps.sharing import configurations, shared
from headway.sweeps.ways import Ways

MOST_TRIALS = 2_000
"""Of a sweep that is gone through; what more trials take is in proportion."""
AGAIN = 10
"""Times the steps of all trials after which a population that goes back again and again is gone through no further."""


@dataclass(frozen=True)
class Rung:
    """A step at which trials are compared.

    Args:
        step: of a trial.
        most, about: trials that come to it, at most, and with results of chance.
    """

    step: int
    most: int
    about: int


@dataclass(frozen=True)
class Cost:
    """Of all trials together.

    Args:
        steps: of all their runs.
        worker_s: seconds of workers; None while nobody knows the pace.
        dollars: None without a price, or a pace.
    """

    steps: int
    worker_s: float | None
    dollars: float | None


@dataclass(frozen=True)
class Preview:
    """See the module.

    Args:
        sweep: its name.
        trials: configurations; None: as many as the budget allows.
        repeats: runs of each.
        search, scheduler, order: their names.
        length: steps of the shortest and of the longest trial.
        every: steps between two evaluations.
        workers: of the whole sweep, fewest and most.
        trial_workers: of a trial.
        at_once: trials that are under way at once, with as many workers as there may be.
        rungs: where trials are compared.
        whole: the cost if every trial went its whole way; None of a sweep that only its budget ends.
        most: the cost at worst, by the scheduler and the budget.
        about: with results of chance.
        pace_s: seconds of one worker for a step; None: unknown.
        seconds: of the clock, at worst, with as many workers as there may be.
        shared: what trials have in common, in words; empty where they share nothing.
        notes: what else is to be known.
    """

    sweep: str
    trials: int | None
    repeats: int
    search: str
    scheduler: str
    order: str
    length: tuple[int, int]
    every: int | None
    workers: tuple[int, int]
    trial_workers: tuple[int, int]
    at_once: int
    rungs: list[Rung]
    whole: Cost | None
    most: Cost | None
    about: Cost | None
    pace_s: float | None
    seconds: float | None
    shared: str = ""
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def preview(sweep: Sweep, pace_s: float | None = None) -> Preview:
    """Look ahead.

    Args:
        sweep: to be run.
        pace_s: seconds that one worker takes for a step, as measured.

    Raises:
        BadInput: as `headway.sweeps.admission.admit`.
    """
    ways, job = Ways(sweep), sweep.example
    admit(sweep, ways)
    lengths = [ways(config) for config in (*corners(sweep), _middle(sweep))]
    trials = number_of(sweep)
    width = sweep.width or at_once(sweep.workers.max, job.workers.min * sweep.repeats)
    price = _Price(sweep, job, pace_s)
    longest = max(way.length for way in lengths)
    bounded = trials if trials is not None else _by_steps(sweep, min(way.length for way in lengths))
    most = about = None
    if bounded is not None:
        # A population goes back to the steps of whoever is better: where each one is, that has no end.
        worst = _Chance() if sweep.scheduler.exploits else _Better(sweep.mode)
        most = _gone_through(sweep, ways, bounded, width, worst)
        about = _gone_through(sweep, ways, bounded, width, _Chance())
    common = shared(sweep, ways, trials)
    return Preview(
        sweep=sweep.name,
        trials=trials,
        repeats=sweep.repeats,
        search=sweep.search.name,
        scheduler=sweep.scheduler.name,
        order=sweep.order,
        length=(min(way.length for way in lengths), longest),
        every=ways.of(job).every,
        workers=(sweep.workers.min, sweep.workers.max),
        trial_workers=(job.workers.min, job.workers.max),
        at_once=width,
        rungs=_rungs(most, about),
        whole=None if trials is None else price.of(trials * longest * sweep.repeats, at_worst=True, budget=False),
        most=price.of(most.steps * sweep.repeats, at_worst=True) if most else price.budgeted(),
        about=price.of(about.steps * sweep.repeats) if about else None,
        pace_s=pace_s,
        seconds=price.seconds(most.steps * sweep.repeats if most else None),
        shared=common.said,
        notes=[*_notes(sweep, trials, pace_s), *_of_evaluations(sweep, ways), *common.notes(sweep)],
    )


def number_of(sweep: Sweep) -> int | None:
    """Configurations that are tried; None where only the budget says."""
    if sweep.search.name != "grid":
        return sweep.trials
    size = sum(1 for _ in sweep.searched.grid())
    return size if sweep.trials is None else min(size, sweep.trials)


def _middle(sweep: Sweep) -> Config:
    return sweep.searched.at(dict.fromkeys(sweep.searched.order, 0.5))


def _by_steps(sweep: Sweep, shortest: int) -> int | None:
    """Trials that the budget of steps has room for, if each is as short as can be."""
    return None if sweep.budget.steps is None else max(1, -(-sweep.budget.steps // max(1, shortest)))


@dataclass(frozen=True)
class _Gone:
    steps: int
    rungs: dict[int, int]


def _gone_through(sweep: Sweep, ways: Ways, trials: int, width: int, results: _Results) -> _Gone:
    """The sweep's own loop, on a clock on which a step of each trial costs one."""
    fewer = min(trials, MOST_TRIALS)
    steps = None if sweep.budget.steps is None else max(1, sweep.budget.steps // sweep.repeats * fewer // trials)
    rules = Rules(sweep.metric, sweep.mode, fewer, ways, budget=Budget(steps=steps))
    smaller = sweep if trials == fewer else sweep.model_copy(update={"trials": fewer})
    loop = Loop(rules, create(smaller, ways.lengths))
    configs, ticket, due = configurations(sweep), count(), list[tuple[int, int, int, int]]()

    def carry_out(actions: list[Any], now: int) -> None:
        for action in actions:
            if isinstance(action, Ask):
                carry_out(loop.feed(Suggested(action.trial, next(configs, None))), now)
            elif isinstance(action, Start | GoOn | Clone):
                if isinstance(action, Clone):
                    results.took_over(action.trial, action.source)
                left = action.until - loop.trials[action.trial].step
                heapq.heappush(due, (now + left, next(ticket), action.trial, action.until))
            elif isinstance(action, Over):
                due.clear()

    most = AGAIN * fewer * ways.lengths.steps if sweep.scheduler.exploits else math.inf
    carry_out(loop.feed(Width(min(width, fewer))), 0)
    while due and loop.over is None and loop.steps < most:
        now, _, trial, step = heapq.heappop(due)
        carry_out(loop.feed(Reported(trial, step, {sweep.metric: results.value(trial)}, waits=True)), now)
    more = trials / fewer
    rungs = {step: round(len(there) * more) for step, there in loop.scheduler.rungs.items()}
    return _Gone(round(loop.steps * more), rungs)


class _Results(Protocol):
    """What trials come to."""

    def value(self, trial: int) -> float:
        """At its next evaluation."""

    def took_over(self, trial: int, source: int) -> None:
        """It has the weights of another one."""


class _Better:
    """Whoever comes is the best so far, so that as many as can be go on."""

    def __init__(self, mode: Literal["min", "max"]) -> None:
        self._numbers, self._sign = count(1), 1 if mode == "max" else -1

    def value(self, trial: int) -> float:
        return float(next(self._numbers) * self._sign)

    def took_over(self, trial: int, source: int) -> None:
        pass


class _Chance:
    """Each trial is as good as chance has it, at all steps."""

    def __init__(self) -> None:
        self._values: dict[int, float] = {}

    def value(self, trial: int) -> float:
        return self._values.setdefault(trial, random.Random(trial).random())

    def took_over(self, trial: int, source: int) -> None:
        self._values[trial] = self.value(source)


def _rungs(most: _Gone | None, about: _Gone | None) -> list[Rung]:
    if most is None or about is None:
        return []
    return [
        Rung(step, most.rungs.get(step, 0), about.rungs.get(step, 0)) for step in sorted({*most.rungs, *about.rungs})
    ]


@dataclass(frozen=True)
class _Price:
    """What steps cost.

    Args:
        pace_s: seconds of one worker for a step.
    """

    sweep: Sweep
    job: Job
    pace_s: float | None

    @property
    def waste(self) -> float:
        """How many times the worker-seconds of one worker a step takes at most, by lanes that do not divide evenly."""
        sizes = range(self.job.workers.min, min(self.job.workers.max, self.job.lanes) + 1)
        return max(size * max(map(len, carried(self.job.lanes, size))) / self.job.lanes for size in sizes)

    def of(self, steps: int, at_worst: bool = False, budget: bool = True) -> Cost:
        if self.pace_s is None:
            return Cost(steps, None, None)
        return self._within(steps, steps * self.pace_s * (self.waste if at_worst else 1.0), budget)

    def _within(self, steps: int, worker_s: float, budget: bool) -> Cost:
        limit = self._limit_s() if budget else None
        if limit is not None and worker_s > limit:
            steps, worker_s = int(steps * limit / worker_s), limit
        price = self.sweep.price
        return Cost(steps, worker_s, None if price is None else worker_s / SECONDS_PER_HOUR * price)

    def _limit_s(self) -> float | None:
        """Worker-seconds that the budget allows."""
        budget, price = self.sweep.budget, self.sweep.price
        limits = []
        if budget.worker_hours is not None:
            limits.append(budget.worker_hours * SECONDS_PER_HOUR)
        if budget.dollars is not None and price is not None:
            limits.append(budget.dollars / price * SECONDS_PER_HOUR)
        if budget.deadline is not None:
            limits.append(budget.deadline * self.sweep.workers.max)
        return min(limits, default=None)

    def budgeted(self) -> Cost | None:
        """Of a sweep that only its budget ends."""
        limit = self._limit_s()
        if limit is None or self.pace_s is None:
            return None
        return self._within(int(limit / self.pace_s), limit, True)

    def seconds(self, steps: int | None) -> float | None:
        """Of the clock, if all workers are busy."""
        cost = self.budgeted() if steps is None else self.of(steps, at_worst=True)
        return None if cost is None or cost.worker_s is None else cost.worker_s / self.sweep.workers.max


def _notes(sweep: Sweep, trials: int | None, pace_s: float | None) -> Iterator[str]:
    if pace_s is None:
        yield "the pace is not known: --pace SECONDS (of one worker for a step) or --pace RUN gives seconds and dollars"
    if trials is None and pace_s is None and sweep.budget.steps is None:
        yield "how many trials there will be hangs on the budget"
    if sweep.trials is not None and trials is not None and trials < sweep.trials:
        yield f"the grid has {trials} combinations, fewer than trials={sweep.trials}"
    if sweep.scheduler.exploits:
        yield f"{sweep.scheduler.name} goes back to the steps of better trials: what it takes hangs on the results"
    if sweep.stop is not None:
        yield f"it may end earlier: after {sweep.stop.patience} trials without a better best"
    if any(key.startswith(("arguments", "lane")) for key in sweep.space) and pace_s is not None:
        yield "the pace is taken to be the same for all settings"


def _of_evaluations(sweep: Sweep, ways: Ways) -> Iterator[str]:
    """Where trials are evaluated too seldom for the scheduler to end one early."""
    lengths, factor = ways.lengths, sweep.scheduler.factor
    fitting = lengths.steps // factor**2
    if sweep.scheduler.name in ("asha", "hyperband", "median") and lengths.every > fitting > 0:
        yield (
            f"trials are evaluated every {lengths.every:,} of {lengths.steps:,} steps, and none ends before: "
            f"--set job.evaluate_every_steps={max(1, fitting // factor):,} would let the worst end early"
        )


def pace_of(report: Any) -> float:
    """Seconds of one worker for a step, of a run's report.

    Raises:
        BadInput: the run has not committed a step.
    """
    from headway.core.ledger import PRODUCTIVE

    worked = sum(report.ledger_s.get(cause, 0.0) for cause in PRODUCTIVE)
    if not report.steps or not worked:
        raise BadInput(f"--pace {report.run}", "that run has no step of which the seconds are known", "Name another.")
    return float(worked / report.steps)
