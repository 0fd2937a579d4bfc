"""The loop of a sweep: hears events, answers with what is to be done. Deterministic, without a clock or effects; a
sweep that is taken up again feeds its book of events into a new one, which is then where the old one was.

    loop = Loop(rules, scheduler)
    actions = loop.feed(Width(4))     # [Ask(1), Ask(2), Ask(3), Ask(4)]

Whoever carries the actions out has the searcher: it is called for `Ask` and `Tell` in exactly their order. The
scheduler is called from here.
"""

from __future__ import annotations

import math
from typing import Literal

from headway.sweeps.events import (
    Action,
    Again,
    Ask,
    Clone,
    Config,
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
    Tell,
    Width,
)
from headway.sweeps.rules import Rules, Unfit, Way
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict
from headway.sweeps.trial import Trial

TRIES = 1
"""So often a trial is begun again that the platform failed, before it was evaluated once more."""


class Loop:
    """See the module.

    Args:
        rules: of the sweep.
        scheduler: a new one.

    Attributes:
        trials: all that were suggested, by number.
        over: how it ended; None: it has not.
    """

    def __init__(self, rules: Rules, scheduler: Scheduler) -> None:
        self.rules, self.scheduler = rules, scheduler
        self.trials: dict[int, Trial] = {}
        self.over: Over | None = None
        self.width = 0
        self.best: Trial | None = None
        self.steps = 0
        self._asked: list[int] = []
        """Without an answer yet, in order."""
        self._numbers = 0
        self._running = self._waiting = 0
        self._stands: list[Trial] = []
        self._exhausted = False
        self._failed = 0
        self._since_better = 0
        """Trials that stood at a gate since the best became better by enough."""
        self._mark: float | None = None
        """The best value at that time."""

    @property
    def asked(self) -> tuple[int, ...]:
        """Trials that the searcher was asked for and has not suggested yet."""
        return tuple(self._asked)

    @property
    def closing(self) -> bool:
        """Whether no trial will begin that has not begun: what is left are those under way, and paused ones."""
        numbered = self.rules.trials is not None and self._numbers >= self.rules.trials
        return (numbered or self._exhausted) and not self._asked and not self._waiting

    def feed(self, event: Event) -> list[Action]:
        """Hear of something. What comes too late, or was heard before, is answered by nothing.

        Returns:
            What is to be done, in order.

        Raises:
            BadInput: the metric is not among a trial's values, see `Rules.value`; nothing has changed.
        """
        if self.over is not None and not isinstance(event, Again | Limits):
            return []
        match event:
            case Width():
                self.width = event.trials
                return self._fill()
            case Suggested():
                return self._suggested(event)
            case Reported():
                return self._reported(event)
            case Failed():
                return self._heard_of_failure(event)
            case Spent():
                gone = self.rules.budget.gone(event)
                return self._end("finished", gone) if gone else []
            case Halt():
                return self._halt(event)
            case Again():
                return self._try_again(event)
            case Limits():
                return self._within(event)

    # what is heard

    def _suggested(self, event: Suggested) -> list[Action]:
        if event.trial not in self._asked:
            return []
        self._asked.remove(event.trial)
        if event.config is None:
            self._exhausted = True
            return self._fill()
        if event.fault:
            return self._unfit(event.trial, event.config, event.fault)
        try:
            way = self.rules.way(event.config)
        except Unfit as error:
            return self._unfit(event.trial, event.config, f"{error.fact}: {error.reason}")
        trial = self.trials[event.trial] = Trial(event.trial, event.config, way)
        self._waiting += 1
        self.scheduler.added(trial.number, trial.config, trial.way.length)
        return self._fill()

    def _unfit(self, number: int, config: Config, reason: str) -> list[Action]:
        """Nothing can be run with these settings. (The scheduler hears nothing of it.)"""
        self.trials[number] = Trial(number, config, Way(0), "failed", reason=reason)
        over: list[Action] = [Tell(number, 0, None, final=True), Stop(number, "failed", reason)]
        return [*over, *self._one_more_failed(reason)]

    def _reported(self, event: Reported) -> list[Action]:
        trial = self.trials.get(event.trial)
        if trial is None or trial.state != "running" or not is_news(trial, event):
            return []
        value = self.rules.value(event.values)
        if event.step > trial.step:
            self._note(trial, event.step, value, event.waits)
        trial.stood = event.step if event.waits else trial.stood
        at_end = event.step >= trial.way.length or (event.waits and event.step < trial.until)
        actions: list[Action]
        if at_end:
            actions = self._close(trial, "finished", "", value)
        elif event.waits:
            actions = [Tell(trial.number, event.step, value, final=False), *self._judge(trial, value)]
        else:
            return [Tell(trial.number, event.step, value, final=False), *self._enough()]
        return [*actions, *(self._enough() or self._fill())]

    def _note(self, trial: Trial, step: int, value: float, waits: bool) -> None:
        self.steps += step - trial.step
        trial.steps += step - trial.step
        trial.step, trial.value, trial.tries = step, value, 0
        if self.rules.better(value, self.best.best if self.best is not None else None):
            self.best = trial
        if self.rules.better(value, trial.best):
            trial.best, trial.best_step, trial.best_config = value, step, trial.config
        if self.rules.better(value, self._mark, self.rules.min_delta):
            self._mark, self._since_better = value, 0
        elif waits:
            self._since_better += 1

    def _judge(self, trial: Trial, value: float) -> list[Action]:
        """What becomes of a trial at its gate."""
        verdict, trial.reason = self.scheduler.reported(trial.number, trial.step, value)
        if isinstance(verdict, Exploit):
            return self._exploit(trial, verdict)
        if verdict is Verdict.STOP:
            return self._close(trial, "stopped", trial.reason, value)
        if verdict is Verdict.PAUSE:
            trial.state = "standing"
            self._stands.append(trial)
            self._running -= 1
            return []
        return [self._go_on(trial)]

    def _exploit(self, trial: Trial, verdict: Exploit) -> list[Action]:
        source = self.trials[verdict.source]
        try:
            way = self.rules.way(verdict.config)
        except Unfit as error:
            trial.reason = f"{error.fact}: {error.reason}"
            return [self._go_on(trial)]
        if not 0 < source.stood < way.length:  # has no weights yet, or nothing is left to be done with them
            return [self._go_on(trial)]
        trial.config, trial.way, trial.step = verdict.config, way, source.stood
        trial.stood = source.stood  # what it has of later steps it lets go
        trial.source = (source.number, source.stood)
        trial.until = self._gate(trial, trial.step)
        return [Clone(trial.number, source.number, source.stood, trial.config, trial.until)]

    def _heard_of_failure(self, event: Failed) -> list[Action]:
        trial = self.trials.get(event.trial)
        if trial is None or trial.over:
            return []
        if event.kind == "diverged":
            self._note(trial, max(event.step, trial.step), math.nan, waits=True)
            return [*self._close(trial, "stopped", event.reason, math.nan), *(self._enough() or self._fill())]
        if event.kind == "platform" and trial.state == "running" and trial.tries < TRIES:
            trial.tries += 1
            return [placing(trial)]
        if event.kind == "platform" and trial.state != "running":  # it trains no more, and goes on from its checkpoint
            return []
        return [*self._close(trial, "failed", event.reason, None), *self._one_more_failed(event.reason)]

    def _one_more_failed(self, why: str) -> list[Action]:
        self._failed += 1
        return self._too_many_failed(f"; the last one: {why}") or self._fill()

    def _too_many_failed(self, why: str = "") -> list[Action]:
        if self._failed <= self.rules.max_failures:
            return []
        reason = f"{self._failed} trials failed, more than max_failures: {self.rules.max_failures}"
        return self._end("failed", f"{reason}{why}")

    def _halt(self, event: Halt) -> list[Action]:
        if not event.may_go_on:
            return self._end("stopped", event.reason)
        self.over = Over("stopped", event.reason)
        return [self.over]

    def _try_again(self, event: Again) -> list[Action]:
        trial = self.trials.get(event.trial)
        if trial is None or trial.state != "failed" or not trial.way.length:
            return []
        actions = self._reopen() if self.over is not None else []
        self._failed -= 1
        trial.state, trial.reason, trial.tries = "waiting", "", 0
        self._waiting += 1
        self._choose_best()
        self.scheduler.added(trial.number, trial.config, trial.way.length)
        return [*actions, *self._fill()]

    def _within(self, limits: Limits) -> list[Action]:
        self.rules = self.rules.within(limits)
        actions = self._reopen() if self.over is not None else []
        return [*actions, *(self._too_many_failed() or self._enough() or self._fill())]

    # what follows

    def _fill(self) -> list[Action]:
        """Give free places away: to trials that were begun, or that wait, as the scheduler says; else to new ones."""
        starts: list[Action] = []
        while self._running < self.width and (number := self.scheduler.choose()) is not None:
            starts.append(self._place(self.trials[number]))
        asks = self._asks()
        at_end = not self._running and not self._asked and self.width > 0
        if at_end and (number := self.scheduler.finale()) is not None:
            starts.append(self._place(self.trials[number]))
            at_end = False
        actions = [*self._given_up(), *self._leave(), *starts, *asks]
        return [*actions, *self._end(*self._how_it_ended())] if at_end else actions

    def _given_up(self) -> list[Action]:
        """Those that wait or were paused and never go on, by the scheduler's word."""
        actions: list[Action] = []
        for number in self.scheduler.given_up():
            trial = self.trials[number]
            if not trial.over and trial.state != "running":
                actions += self._close(trial, "stopped", "is behind the others", trial.value)
        return actions

    def _leave(self) -> list[Action]:
        """Those that stand and were not chosen leave their places."""
        left = [trial for trial in self._stands if trial.state == "standing"]
        self._stands.clear()
        for trial in left:
            trial.state = "paused"
        return [Pause(trial.number, trial.reason) for trial in left]

    def _asks(self) -> list[Action]:
        free = max(0, self.width - self._running)
        wanted = self.rules.ahead - len(self._asked) + (free if free else -self._waiting)
        left = math.inf if self.rules.trials is None else self.rules.trials - self._numbers
        asks: list[Action] = []
        while len(asks) < min(wanted, left) and not self._exhausted:
            self._numbers += 1
            self._asked.append(self._numbers)
            asks.append(Ask(self._numbers))
        return asks

    def _place(self, trial: Trial) -> Action:
        """A place for one that waits, stands or was paused."""
        if trial.state == "waiting":
            self._waiting -= 1
        elif trial.state not in ("standing", "paused"):
            raise RuntimeError(f"the scheduler chose trial {trial.number}, which is {trial.state}")
        self._running += 1
        trial.state, trial.reason = "running", ""
        return self._go_on(trial)

    def _go_on(self, trial: Trial) -> Action:
        trial.until = self._gate(trial, trial.step)
        if trial.begun:
            return GoOn(trial.number, trial.until)
        trial.begun = True
        return Start(trial.number, trial.config, trial.until)

    def gates(self, trial: Trial) -> tuple[int, ...]:
        """Steps at which a trial stands, or stood last, short of its end, as far as is known now."""
        found, step = {trial.stood, trial.until}, trial.until
        while step < trial.way.length:
            step = self._gate(trial, step)
            found.add(step)
        return tuple(sorted(step for step in found if 0 < step < trial.way.length))

    def _gate(self, trial: Trial, step: int) -> int:
        """The first one after a step."""
        return trial.way.at(max(self.scheduler.gate(trial.number, step), step + 1))

    def _close(
        self, trial: Trial, state: Literal["finished", "stopped", "failed"], reason: str, value: float | None
    ) -> list[Action]:
        """A trial is over. (The searcher is told the value as final of those that went their whole way, and of those
        that diverged; of the others it knows how far they came.)"""
        if trial.state == "running":
            self._running -= 1
        elif trial.state == "waiting":
            self._waiting -= 1
        trial.state, trial.reason = state, reason
        if trial is self.best and (state == "failed" or value is None or math.isnan(value)):
            self._choose_best()
        self.scheduler.ended(trial.number, trial.step, value)
        whole = state == "finished" or (value is not None and math.isnan(value))
        stop = [Stop(trial.number, state, reason)] if trial.begun else []
        return [Tell(trial.number, trial.step, value if whole else None, final=True), *stop]

    def _enough(self) -> list[Action]:
        """The end of the sweep, where a rule says so."""
        steps, patience = self.rules.budget.steps, self.rules.patience
        if steps is not None and self.steps >= steps:
            return self._end("finished", f"its budget of {steps} steps is spent")
        if patience is not None and self._since_better >= patience:
            by = f" by {self.rules.min_delta:g} or more" if self.rules.min_delta else ""
            return self._end("finished", f"{patience} evaluations in a row were not better than the best{by}")
        return []

    def _how_it_ended(self) -> tuple[Literal["finished", "failed"], str]:
        if self.trials and all(trial.state == "failed" for trial in self.trials.values()):
            return "failed", f"every trial failed; the last one: {self.trials[max(self.trials)].reason}"
        return "finished", "the searcher has no more" if self._exhausted else "all trials are over"

    def _end(self, state: Literal["finished", "stopped", "failed"], reason: str) -> list[Action]:
        """The sweep is over, and with it every trial."""
        actions: list[Action] = []
        for trial in self.trials.values():
            if trial.over:
                continue
            why = "was never promoted" if trial.state == "paused" and state == "finished" else "the sweep ended"
            trial.ended_as, trial.state, trial.reason = trial.state, "stopped", why
            if trial.begun:
                actions.append(Stop(trial.number, "stopped", why))
        self._running = self._waiting = 0
        self._stands.clear()
        self.over = Over(state, reason)
        return [*actions, self.over]

    def _reopen(self) -> list[Action]:
        """The sweep goes on after all: what ended with it is what it was. (The scheduler never heard of the end.)"""
        self.over = None
        actions: list[Action] = []
        for trial in self.trials.values():
            was, trial.ended_as = trial.ended_as, None
            if was is None:
                continue
            trial.state, trial.reason = ("paused" if was == "standing" else was), ""
            if was == "running":
                self._running += 1
                actions.append(placing(trial))
            elif was == "waiting":
                self._waiting += 1
        return actions

    def _choose_best(self) -> None:
        """The best of those that can be trained: one that diverged or failed since would do so again."""
        self.best = None
        for trial in self.trials.values():
            sound = trial.state != "failed" and trial.value is not None and not math.isnan(trial.value)
            if (
                sound
                and trial.best is not None
                and (self.best is None or self.rules.better(trial.best, self.best.best))
            ):
                self.best = trial


def is_news(trial: Trial, event: Reported) -> bool:
    """Whether a report says something new of its trial: a later step; or that it has ended where it is by its own
    account, though it might go on."""
    return event.step > trial.step or (event.waits and event.step == trial.step < trial.until)


def placing(trial: Trial) -> Action:
    """What brings a trial that runs to where it should be, whoever lost it."""
    if trial.source is not None and trial.step == trial.source[1]:
        return Clone(trial.number, *trial.source, trial.config, trial.until)
    if trial.step:
        return GoOn(trial.number, trial.until)
    return Start(trial.number, trial.config, trial.until)
