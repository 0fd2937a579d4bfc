"""Ray Tune's schedulers, without Tune: HyperBand, the median rule, PBT, PB2, and the ASHA that only stops.

They are asked at gates, and see trials through `headway.sweeps.schedule.standin`. What Tune decides with all trials
before it (which of them share a bracket, whom a population waits for) they decide with places for trials that nobody
has asked for yet: a place is given to the next new trial when the scheduler chooses it.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from headway.sweeps.chance import rolled
from headway.sweeps.events import Config
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict
from headway.sweeps.schedule.standin import ERROR, PAUSED, PENDING, RUNNING, TERMINATED, ControllerStandIn, TrialStandIn

METRIC, TIME = "metric", "step"
"""Words of a result."""
SLACK = 1e-6
"""Added to times that are not whole, so that what is due is due."""
LAST = 1e30
"""What Tune is told of a trial that diverged, by the mode's sign: it compares NaN with nothing, and lets it pass."""


@dataclass(frozen=True)
class Way:
    """How a scheduler of Tune's is driven.

    Args:
        gate: after so many steps, before which it is asked next; None: at the trial's end.
        ladder: steps at which trials are compared; for people.
        unit: steps that it counts as one.
        crowd: trials that it is to see at once, before they are asked for; 0: it sees them as they come.
        counts_diverged: one that diverged takes a place among the rest, the last; else it just leaves.
        once: it is not told again at a trial's end what it has been told.
        warns: about its own model, to nobody's use.
        mend: after each call of it, where it needs that.
        there, back: settings as the scheduler has them, and as they are.
    """

    gate: Callable[[int], int | None]
    ladder: tuple[int, ...] = ()
    unit: float = 1
    crowd: int = 0
    counts_diverged: bool = False
    once: bool = False
    warns: bool = False
    mend: Callable[[Any], object] = id
    there: Callable[[Config], Config] = dict
    back: Callable[[Config], Config] = dict


class OfTune(Scheduler):
    """One of Ray Tune's.

    Args:
        scheduler: Tune's, which knows its metric as `METRIC` and its time as `TIME`.
        mode: whether the metric is to be small or large.
        way: how it is driven.
        seed: for what it draws.

    Attributes:
        sound: whether a job can be made of settings; a trial goes on with others' only where one can.
    """

    def __init__(self, scheduler: Any, mode: str, way: Way, seed: int) -> None:
        self._scheduler, self._way, self._seed = scheduler, way, seed
        self.sound: Callable[[Config], bool] = lambda config: True
        logging.getLogger("ray.tune.schedulers").setLevel(logging.WARNING)  # a population tells of all it does
        self._worst = LAST if mode == "min" else -LAST
        self._calls = 0
        self._controller = ControllerStandIn(scheduler)
        self._trials: dict[int, TrialStandIn] = {}
        self._lengths: dict[int, int] = {}
        self._fresh: deque[int] = deque()
        self._configs: dict[int, Config] = {}
        self._came: dict[int, list[int]] = {step: [] for step in way.ladder}
        self._places = 0
        self._make_room()

    def added(self, trial: int, config: Config, length: int) -> None:
        self._lengths[trial], self._configs[trial] = length, config
        if self._way.crowd:
            self._fresh.append(trial)
        else:
            self._bind(self._add(), trial)

    def gate(self, trial: int, step: int) -> int:
        gate = self._way.gate(step)
        return self._lengths[trial] if gate is None else min(gate, self._lengths[trial])

    def reported(self, trial: int, step: int, value: float) -> tuple[Verdict | Exploit, str]:
        mine = self._trials[trial]
        mine.step = step
        self._note(trial, step)
        if not math.isfinite(value):
            return Verdict.STOP, "it diverged"
        result = self._result(step, value)
        with self._asked():
            said = self._scheduler.on_trial_result(self._controller, mine, result)
        mine.last_result = result
        if said == "STOP":
            return Verdict.STOP, f"not good enough at step {step}"
        if mine.taken_over is not None:
            if mine.taken_over.step >= step and self.sound(self._taken_over(mine.taken_over.trial, mine)):
                return self._exploited(mine)
            said = self._stays(mine)
        if said == "PAUSE" or mine.status == PAUSED:
            mine.status = PAUSED
            return Verdict.PAUSE, f"waits for others at step {step}"
        return Verdict.CONTINUE, f"good enough at step {step}"

    def ended(self, trial: int, step: int, value: float | None) -> None:
        if trial in self._fresh:
            self._fresh.remove(trial)
        mine = self._trials.get(trial)
        if mine is None or mine.is_finished():
            return
        waited, told = mine.status in (PENDING, PAUSED), mine.last_result.get(TIME) == self._time(step)
        diverged = value is not None and not math.isfinite(value)
        with self._asked():
            if waited:
                self._controller.close(mine, TERMINATED)
                self._scheduler.on_trial_remove(self._controller, mine)
            elif value is None or (diverged and not self._way.counts_diverged):
                self._controller.close(mine, ERROR)
                self._scheduler.on_trial_error(self._controller, mine)
            else:
                self._controller.close(mine, TERMINATED)
                if not (told and self._way.once):
                    result = self._result(step, self._worst if diverged else value)
                    self._scheduler.on_trial_complete(self._controller, mine, result)

    def choose(self) -> int | None:
        chosen = self._chosen()
        if chosen is None and self._fresh and not self._vacant():
            self._make_room()
            chosen = self._chosen()
        if chosen is None:
            return None
        if chosen.number is None:
            if not self._fresh:
                return None
            self._bind(chosen, self._fresh.popleft())
        chosen.status = RUNNING
        return chosen.number

    def finale(self) -> int | None:
        """The places of trials that never come are taken away, and those wait no more that waited for them."""
        vacant = self._vacant()
        with self._asked():
            for each in vacant:
                self._controller.close(each, TERMINATED)
                self._scheduler.on_trial_remove(self._controller, each)
        return self.choose() if vacant else None

    def given_up(self) -> list[int]:
        numbers = [each.number for each in self._controller.stopped if each.number is not None]
        self._controller.stopped.clear()
        return numbers

    @property
    def rungs(self) -> dict[int, list[int]]:
        return {step: list(came) for step, came in self._came.items()}

    def _chosen(self) -> TrialStandIn | None:
        with self._asked():
            chosen: TrialStandIn | None = self._scheduler.choose_trial_to_run(self._controller)
        return chosen

    def _vacant(self) -> list[TrialStandIn]:
        """Places that no trial has."""
        return [each for each in self._controller.trials if each.number is None and each.status == PENDING]

    def _make_room(self) -> None:
        for _ in range(self._way.crowd):
            self._add()

    def _add(self) -> TrialStandIn:
        place = TrialStandIn(self._places)
        self._places += 1
        self._controller.trials.append(place)
        with self._asked():
            self._scheduler.on_trial_add(self._controller, place)
        return place

    def _bind(self, place: TrialStandIn, number: int) -> None:
        place.number, place.config = number, self._way.there(self._configs[number])
        self._trials[number] = place

    def _exploited(self, mine: TrialStandIn) -> tuple[Exploit, str]:
        saved = mine.taken_over
        assert saved is not None
        assert mine.number is not None
        mine.let_go()
        mine.status = RUNNING
        config = self._taken_over(saved.trial, mine)
        self._configs[mine.number] = config
        mine.config = self._way.there(config)
        mine.step = saved.step
        return Exploit(saved.trial, config), f"goes on with trial {saved.trial}'s weights"

    def _taken_over(self, source: int, mine: TrialStandIn) -> Config:
        """The settings with which a trial would go on from another."""
        return {**self._configs[source], **self._way.back(mine.config)}

    def _stays(self, mine: TrialStandIn) -> str:
        """It was to go on from fewer steps than it has, or with settings of which no job can be made. Two that are no
        better than one another would do so in turns, for ever: it keeps its weights and settings, and waits as a
        population does. Returns Tune's word for that."""
        assert mine.number is not None
        mine.let_go()
        mine.config = self._way.there(self._configs[mine.number])
        mine.status = RUNNING
        others = (each.status for each in self._controller.trials if each is not mine)
        return "PAUSE" if any(status in (PENDING, PAUSED) for status in others) else "CONTINUE"

    def _time(self, step: int) -> float:
        return step if self._way.unit == 1 else step / self._way.unit + SLACK

    def _result(self, step: int, value: float) -> dict[str, Any]:
        return {METRIC: value, TIME: self._time(step), "training_iteration": step, "done": False}

    def _note(self, trial: int, step: int) -> None:
        at = max((rung for rung in self._came if rung <= step), default=None)
        if at is not None and trial not in self._came[at]:
            self._came[at].append(trial)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Around each call of Tune's: its chance is its call's."""
        self._calls += 1
        with rolled(self._seed, self._calls), warnings.catch_warnings() if self._way.warns else nullcontext():
            if self._way.warns:
                warnings.simplefilter("ignore")
            yield
        self._way.mend(self._scheduler)
