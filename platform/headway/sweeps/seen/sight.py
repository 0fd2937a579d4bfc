"""Follows a sweep by what its loop hears and asks for, and by who has how many workers. No clock, no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatchmethod

from headway.sweeps.crew import Holds
from headway.sweeps.events import (
    Action,
    Again,
    Clone,
    Event,
    Failed,
    GoOn,
    Halt,
    Limits,
    Over,
    Pause,
    Reported,
    Spent,
    Start,
    Stop,
    Suggested,
)
from headway.sweeps.names import trial_of
from headway.sweeps.seen.view import Point, Subject, Trial, View, number, settings_in_words

ENDED = ("finished", "stopped", "failed")


@dataclass
class _Account:
    """What the sweep's workers were held for.

    Args:
        before: worker-seconds by cause of earlier starts; now: of this one, at `at`.
        spent: as the loop was told.
    """

    before: dict[str, float] = field(default_factory=dict)
    now: dict[str, float] = field(default_factory=dict)
    at: float = 0.0
    spent: float = 0.0

    @property
    def seconds(self) -> dict[str, float]:
        causes = dict.fromkeys([*self.before, *self.now])
        return {cause: self.before.get(cause, 0.0) + self.now.get(cause, 0.0) for cause in causes}

    def close(self) -> None:
        self.before, self.now = self.seconds, {}


class Sight:
    """A sweep as it is seen. All times that are given are Unix seconds, and never go back."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.trials: dict[int, Trial] = {}
        self.state, self.message = "running", ""
        self.best: Trial | None = None
        self.room: int | None = None
        self._account = _Account()
        self._clock = 0.0
        """The sweep's own, at `_at`."""
        self._at: float | None = None
        self._holding: dict[int, Trial] = {}
        """Those that have workers."""
        self._said: list[str] = []

    def begun(self, at: float) -> None:
        """Somebody leads the sweep from now on: what earlier ones held is gone."""
        self._at = None
        self._tick(at)
        self._account.close()
        self._account.at = self._clock
        for trial in self.trials.values():
            self._hold(trial, 0)
        self._leave("the sweep's driver was gone")
        self.state, self.message = "running", ""

    def heard(self, at: float, event: Event, actions: Iterable[Action]) -> None:
        """The loop heard this, and asked for that."""
        self._tick(at)
        self._hear(event)
        for action in actions:
            self._do(action)

    def placed(self, actions: Iterable[Action]) -> None:
        """Trials are placed once more, of a sweep that is taken up again."""
        for action in actions:
            self._do(action)

    def holds(self, at: float, holds: Holds) -> None:
        """Who has how many workers now."""
        self._tick(at)
        self._account.now, self._account.at = dict(holds.seconds), self._clock
        workers: dict[int, int] = {}
        steps: dict[int, list[int]] = {}
        for run, count in holds.workers.items():
            if (found := trial_of(run)) is not None:
                workers[found[1]] = workers.get(found[1], 0) + count
        for run, step in holds.steps.items():
            if (found := trial_of(run)) is not None:
                steps.setdefault(found[1], []).append(step)
        for each in {*self._holding, *workers} & self.trials.keys():
            self._hold(self.trials[each], workers.get(each, 0))
        for each, reached in steps.items():
            trial = self.trials.get(each)
            if trial is not None and not trial.over:
                trial.step = max(trial.step, min(reached))

    def over(self, at: float, state: str, message: str) -> None:
        """The sweep is at its end, or nobody leads it any more."""
        self._tick(at)
        for trial in list(self._holding.values()):
            self._hold(trial, 0)
        self._leave("the sweep ended before")
        self._account.close()
        self._account.at = self._clock
        self.state, self.message = state, message

    def over_unseen(self, state: str, message: str) -> None:
        """The same, where nobody knows when that was: after the last that is known."""
        self.over(self._at if self._at is not None else 0.0, state, message)

    def say(self, text: str) -> None:
        self._said.append(text)

    def view(self, at: float | None = None, keep: bool = False) -> View:
        """What is to be seen now.

        Args:
            at: Unix seconds; the last that was given where nothing is.
            keep: the lines for people are given again with the next view.
        """
        if at is not None:
            self._tick(at)
        lines = len(self._said)  # another thread may say something meanwhile
        messages = tuple(self._said[:lines])
        if not keep:
            del self._said[:lines]
        return View(
            subject=self.subject,
            state=self.state,
            message=self.message,
            trials=self.trials,
            best=self.best,
            workers=self._workers(),
            room=self.room,
            seconds=self._clock,
            worker_s=self._worker_s(),
            ledger_s=self._account.seconds,
            messages=messages,
        )

    def _tick(self, at: float) -> None:
        if self._at is not None:
            passed = max(0.0, at - self._at)
            for trial in self._holding.values():
                trial.worker_s += trial.workers * passed
            self._clock += passed
        self._at = at if self._at is None else max(at, self._at)

    def _worker_s(self) -> float:
        """Held so far; since the last account as many as train."""
        known = sum(self._account.seconds.values())
        since = self._clock - self._account.at
        return max(known + since * self._workers(), self._account.spent)

    def _leave(self, why: str) -> None:
        for trial in self.trials.values():
            if trial.state in ("running", "standing"):
                trial.state, trial.why = "paused", why

    def _workers(self) -> int:
        return sum(trial.workers for trial in self._holding.values())

    def _hold(self, trial: Trial, workers: int) -> None:
        if workers != trial.workers:
            trial.held.append((self._clock, workers))
            trial.workers = workers
            if workers:
                self._holding[trial.number] = trial
            else:
                self._holding.pop(trial.number, None)

    @singledispatchmethod
    def _hear(self, event: Event) -> None:
        """What else there is to hear (`Width`) changes nothing that is seen."""

    @_hear.register
    def _(self, event: Suggested) -> None:
        if event.config is None:
            return
        trial = self.trials[event.trial] = Trial(event.trial, event.config)
        if event.fault:
            trial.state, trial.why = "failed", event.fault

    @_hear.register
    def _(self, event: Reported) -> None:
        trial = self._trial(event.trial)
        value = event.values.get(self.subject.metric)
        last = trial.points[-1] if trial.points else None
        trial.step, trial.values = event.step, event.values
        if event.waits and last is not None and (last.step, last.value) == (event.step, value):
            return  # it was passed, and is its end
        if event.waits:
            trial.rung += 1
            trial.state, trial.why = "standing", "waits for the scheduler's word"
        if value is None:
            return
        trial.value = value
        trial.points.append(Point(event.step, value, self._clock, self._worker_s(), event.waits))
        if self.subject.better(value, trial.best):
            trial.best, trial.best_step = value, event.step
            trial.best_settings, trial.best_origin = trial.settings, trial.origin
            self._compare(trial)

    @_hear.register
    def _(self, event: Failed) -> None:
        trial = self._trial(event.trial)
        if event.kind == "platform" and trial.state in ("paused", "waiting"):
            self.say(f"trial {event.trial} is {trial.state}, and goes on from its checkpoint: {event.reason}")
            return
        trial.step, trial.why = event.step, event.reason
        trial.state = "diverged" if event.kind == "diverged" else "failed"
        self.say(f"trial {event.trial} {trial.state}: {event.reason}")
        if trial is self.best and event.kind != "platform":  # nobody wants to train it again
            self.best = next(iter(ranked(map(self._trial, self.trials), self.subject)), None)

    @_hear.register
    def _(self, event: Again) -> None:
        trial = self._trial(event.trial)
        trial.state, trial.why = "paused" if trial.rung else "waiting", "is tried again"
        self.state, self.message = "running", ""
        self._compare(trial)

    @_hear.register
    def _(self, event: Limits) -> None:
        self.state, self.message = "running", ""

    @_hear.register
    def _(self, event: Spent) -> None:
        self._account.spent = max(self._account.spent, event.worker_s)

    @_hear.register
    def _(self, event: Halt) -> None:
        self.say(event.reason)

    @singledispatchmethod
    def _do(self, action: Action) -> None:
        """`Ask` and `Tell` are between the loop and its searcher."""

    @_do.register
    def _(self, action: Start) -> None:
        trial = self.trials.setdefault(action.trial, Trial(action.trial, action.config))
        trial.settings = action.config
        self._run(trial, action.until)

    @_do.register
    def _(self, action: GoOn) -> None:
        self._run(self._trial(action.trial), action.until)

    @_do.register
    def _(self, action: Clone) -> None:
        trial = self._trial(action.trial)
        trial.settings, trial.origin = action.config, (action.source, action.step)
        self._run(trial, action.until)
        trial.why = f"from trial {action.source}, step {action.step}"

    @_do.register
    def _(self, action: Pause) -> None:
        trial = self._trial(action.trial)
        trial.state, trial.why = "paused", action.reason

    @_do.register
    def _(self, action: Stop) -> None:
        trial = self._trial(action.trial)
        no_number = trial.value is not None and not math.isfinite(trial.value)
        if trial.state != "diverged":
            trial.state = "diverged" if no_number and action.state == "stopped" else action.state
        told = trial.why if trial.state in ("failed", "diverged") else ""
        trial.why = action.reason or told

    @_do.register
    def _(self, action: Over) -> None:
        self.state, self.message = action.state, action.reason

    def _trial(self, number: int) -> Trial:
        return self.trials.setdefault(number, Trial(number, {}))

    def _run(self, trial: Trial, until: int) -> None:
        trial.state, trial.until, trial.why = "running", until, ""

    def _compare(self, trial: Trial) -> None:
        if trial.best is None:
            return
        before = self.best.best if self.best is not None else None
        if self.subject.better(trial.best, before):
            self.best = trial
            told = settings_in_words(trial.best_settings or {})
            metric = self.subject.metric
            self.say(f"best so far: trial {trial.number}, {metric} {number(trial.best)} at step {trial.step} ({told})")


def rungs(trials: Mapping[int, Trial]) -> dict[int, list[int]]:
    """Trials that came to each gate, by its step, in order of their numbers."""
    found: dict[int, list[int]] = {}
    for trial in trials.values():
        for point in trial.points:
            if point.stands:
                found.setdefault(point.step, []).append(trial.number)
    return {step: sorted(set(found[step])) for step in sorted(found)}


def ranked(trials: Iterable[Trial], subject: Subject) -> Sequence[Trial]:
    """Trials by their best value, best first; those that diverged, or have none, last, by number."""
    sign = -1.0 if subject.mode == "max" else 1.0

    def place(trial: Trial) -> tuple[bool, float, int]:
        if trial.best is None or trial.state == "diverged":
            return True, 0.0, trial.number
        return False, sign * trial.best, trial.number

    return sorted(trials, key=place)
