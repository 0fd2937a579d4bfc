"""The runs of a sweep on its crew: which of them train, stand, wait for workers or are away, and who has how many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headway.core.allotment import Rule, Running, allot, useful
from headway.job import Job
from headway.sweeps.crew import Crew, Holds, Left, Leg, Origin, Passed
from headway.sweeps.passing import passing, pause_s

State = Literal["waits", "trains", "stands", "leaves", "away", "over"]
"""waits: for workers. leaves: was told to, and has them yet. away: it has none, and may go on."""


@dataclass
class Run:
    """One run of a trial.

    Args:
        name: of the run.
        trial: its number.
        job: with the trial's settings.
        until: its gate.
        origin: what it begins with, if that is another's state.
        back: it is to go on as soon as it has left.
    """

    name: str
    trial: int
    job: Job
    facts: dict[str, object]
    until: int = 0
    origin: Origin | None = None
    save_at: tuple[int, ...] = ()
    keeps: tuple[int, ...] = ()
    """Steps at which what is under way is to keep its state for others."""
    state: State = "away"
    step: int = 0
    asked: int = 0
    """Workers that it was allotted."""
    has: int = 0
    back: bool = False
    stood: int = 0
    """The step at which it stands, or stood last."""
    stood_at: float = 0.0
    not_before: float = -math.inf
    """By the clock of the company: it is not to begin earlier."""
    tries: int = 0
    """So often in a row it could not begin."""
    _pace: tuple[float, int] | None = field(default=None, repr=False)
    _lane_s: float | None = None
    """Seconds of a step for each lane of one worker."""

    def advance(self, step: int, at: float) -> None:
        """It is as far, at this moment (any one clock)."""
        self.step = max(self.step, step)
        if self._pace is None:
            self._pace = (at, step)
        elif step > self._pace[1]:
            step_s, self._pace = (at - self._pace[0]) / (step - self._pace[1]), (at, step)
            self._lane_s = step_s / self._lanes_each

    def rest(self) -> None:
        """It does not train, or on others: its pace is measured anew."""
        self._pace = None

    @property
    def rest_s(self) -> float | None:
        """Seconds to its gate with the workers that it was allotted; None while that is not known."""
        if self._lane_s is None:
            return None
        return max(0, self.until - self.step) * self._lane_s * self._lanes_each

    @property
    def _lanes_each(self) -> int:
        """Of the worker with the most: a step takes as long as that one."""
        return -(-self.job.lanes // max(1, self.asked))


class Company:
    """See the module.

    Args:
        crew: that trains.
        rule: by which workers are allotted.
        rank: gives trials in the order in which they have workers, the first first; those not named come last.
        refused: told of a run that cannot begin, and why.
        delayed: told of one that cannot begin at the moment; it is tried again.
    """

    def __init__(
        self,
        crew: Crew,
        rule: Rule,
        rank: Callable[[], Sequence[int]],
        refused: Callable[[Run, Exception], None],
        now: Callable[[], float] = time.monotonic,
        delayed: Callable[[Run, Exception], None] = lambda run, error: None,
    ) -> None:
        self._delayed = delayed
        self._crew, self._rule, self._rank, self._refused, self._now = crew, rule, rank, refused, now
        self.runs: dict[str, Run] = {}
        self.size = 0
        """Workers that are there, or can be had."""
        self.left_s: float | None = None
        """Until the sweep's deadline."""
        self.may_begin: Callable[[Run], bool] = _always
        """Asked of a run that waits for workers."""
        self.prepare: Callable[[Run], None] = _as_it_is
        """Called with a run before it begins a leg: what it is to keep for others may be known only then."""

    def go(self, run: Run, until: int) -> None:
        """Let a run train up to a gate, as soon as it has workers."""
        before, run.until = run.until, until
        self.runs.setdefault(run.name, run)
        match run.state:
            case "stands" if until > run.stood:  # else it stands there already, and waits for others of its trial
                self._crew.go_on(run.name, until)
                run.state = "trains"
            case "trains" if until > before:
                self._crew.go_on(run.name, until)
            case "leaves":
                run.back = True
            case "away":
                run.state = "waits"

    def pause(self, run: Run) -> None:
        """It gives its workers away, and may go on later."""
        run.back = False
        if run.state == "waits":
            run.state = "away"
        elif run.state in ("stands", "trains"):
            self._leave(run, "paused")

    def end(self, run: Run, why: str) -> None:
        """It never goes on. One that is at its end leaves by itself."""
        run.back = False
        if run.state in ("stands", "trains") and why != "finished":
            self._leave(run, "stopped")
        elif run.state in ("stands", "trains"):
            run.state = "leaves"
        elif run.state in ("waits", "away"):
            run.state = "over"

    def again(self, run: Run) -> None:
        """One that is at its end by its own account is to go on after all, with another's state."""
        if run.state == "over":
            run.state = "away"

    @property
    def there(self) -> list[Run]:
        """Runs that have workers."""
        return [run for run in self.runs.values() if run.state in ("trains", "stands", "leaves")]

    # What the crew tells

    def passed(self, news: Passed) -> Run | None:
        """Gives the run."""
        run = self.runs.get(news.run)
        if run is not None:
            run.advance(news.step, self._now())
            if news.stands and run.state == "trains":
                run.state, run.stood, run.stood_at = "stands", news.step, self._now()
                run.rest()
        return run

    def left(self, news: Left) -> Run | None:
        """Gives the run."""
        run = self.runs.get(news.run)
        if run is not None:
            run.has = run.asked = 0
            run.step = max(run.step, news.step)
            run.rest()
            over = news.why in ("finished", "stopped")
            run.state = "waits" if run.back else "over" if over else "away"
            run.back = False
        return run

    def holds(self, news: Holds) -> None:
        """How far they are, and who has how many."""
        at = self._now()
        for name, run in self.runs.items():
            run.has = news.workers.get(name, 0)
            if run.state == "trains" and name in news.steps:
                run.advance(news.steps[name], at)

    # Who has how many

    def allot(self) -> None:
        """Hand the workers out, and let those begin that have some."""
        training = [run for run in self.runs.values() if run.state == "trains"]
        waiting = self._waiting()
        held = sum(max(run.asked, 1) for run in self.runs.values() if run.state in ("stands", "leaves"))
        free = max(self.size - held, 0)
        places = {trial: place for place, trial in enumerate(self._rank())}
        found = allot([self._told(run, places) for run in (*training, *waiting)], free, self._rule, self.left_s)
        for run in training:
            wanted = found.workers[run.name]
            if 0 < wanted != run.asked:
                run.asked = wanted
                run.rest()
                self._crew.resize(run.name, wanted)
        begins = [run for run in waiting if found.workers[run.name]]
        for run in begins:
            self._begin(run, found.workers[run.name])
        if (left := self._waiting()) and not self.there:  # there is no room yet: the first of them waits with the crew
            first = min(left, key=lambda run: places.get(run.trial, len(places)))
            self._begin(first, first.job.workers.min)
        if self._is_short(len(begins) < len(waiting)):
            self._make_room()

    def _waiting(self) -> list[Run]:
        at = self._now()
        waits = [run for run in self.runs.values() if run.state == "waits" and run.not_before <= at]
        return [run for run in waits if self.may_begin(run)]

    def _is_short(self, starved: bool) -> bool:
        """Whether somebody waits for workers, here or with the crew, which lost some; and nobody leaves anyway."""
        there = self.there
        starved = starved or sum(max(run.asked, 1) for run in there) > self.size
        return starved and not any(run.state == "leaves" for run in there)

    def useful(self, runs: Iterable[Run]) -> int:
        """How many workers these have a use for, all at once."""
        return useful([self._told(run, {}) for run in runs], self._rule)

    def _told(self, run: Run, places: Mapping[int, int]) -> Running:
        workers = run.job.workers
        return Running(
            run.name,
            run.job.lanes,
            workers.min,
            min(workers.max, run.job.lanes),
            run.asked,
            places.get(run.trial),
            run.rest_s,
        )

    def _make_room(self) -> None:
        """Of those that stand and are not heard yet the one that stands longest gives its workers to one that waits."""
        standing = [run for run in self.runs.values() if run.state == "stands"]
        if standing:
            first = min(standing, key=lambda run: run.stood_at)
            self._leave(first, "paused")

    def _begin(self, run: Run, workers: int) -> None:
        self.prepare(run)
        leg = Leg(run.name, run.job, run.until, run.origin, run.save_at, dict(run.facts), workers)
        run.state, run.asked, run.back, run.keeps = "trains", workers, False, run.save_at
        try:
            self._crew.begin(leg)
        except Exception as error:  # handed on
            run.asked = 0
            if passing(error):
                self._put_off(run, error)
            else:
                run.state = "away"
                self._refused(run, error)
        else:
            run.origin, run.tries = None, 0

    def _put_off(self, run: Run, error: Exception) -> None:
        run.state, run.tries = "waits", run.tries + 1
        run.not_before = self._now() + pause_s(run.tries)
        self._delayed(run, error)

    def _leave(self, run: Run, why: str) -> None:
        run.state = "leaves"
        run.rest()
        self._crew.leave(run.name, why)


def _as_it_is(run: Run) -> None:
    """Nothing more is to be known of it."""


def _always(run: Run) -> bool:
    return True
