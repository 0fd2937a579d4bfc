"""The loop of a sweep: what it asks for, for what it hears."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from headway.errors import BadInput
from headway.sweeps.events import (
    Action,
    Again,
    Ask,
    Clone,
    Config,
    Failed,
    GoOn,
    Halt,
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
from headway.sweeps.loop import Loop
from headway.sweeps.rules import Budget, Rules, Unfit, Way
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict


class Scripted(Scheduler):
    """A scheduler that says what it is told to, trial by trial; the first come is the first chosen."""

    def __init__(self, gate: int = 10, verdicts: Sequence[Verdict | Exploit] = ()) -> None:
        self._gate, self._verdicts = gate, list(verdicts)
        self.queue: list[int] = []
        self.over: list[tuple[int, int, float | None]] = []

    def added(self, trial: int, config: Config, length: int) -> None:
        self.queue.append(trial)

    def gate(self, trial: int, step: int) -> int:
        return step + self._gate

    def reported(self, trial: int, step: int, value: float) -> tuple[Verdict | Exploit, str]:
        return (self._verdicts.pop(0) if self._verdicts else Verdict.CONTINUE), "scripted"

    def ended(self, trial: int, step: int, value: float | None) -> None:
        self.over.append((trial, step, value))

    def choose(self) -> int | None:
        return self.queue.pop(0) if self.queue else None

    @property
    def rungs(self) -> dict[int, list[int]]:
        return {}


RULES = Rules("accuracy", "max", trials=2, way=lambda config: Way(30, 10))


def loop(rules: Rules = RULES, scheduler: Scripted | None = None) -> Loop:
    return Loop(rules, scheduler or Scripted())


def at(trial: int, step: int, value: float, waits: bool = True) -> Reported:
    return Reported(trial, step, {"accuracy": value, "loss": 1.0}, waits)


def begun(loop: Loop, trials: int = 1) -> list[Action]:
    """So many trials run. Returns the last answer."""
    actions = loop.feed(Width(trials))
    for number in range(1, trials + 1):
        actions = loop.feed(Suggested(number, {"x": number}))
    return actions


def test_a_trial_from_its_suggestion_to_its_end() -> None:
    it = loop()
    assert it.feed(Width(1)) == [Ask(1)]
    assert it.feed(Suggested(1, {"x": 1})) == [Start(1, {"x": 1}, 10)]
    assert it.feed(at(1, 10, 0.5)) == [Tell(1, 10, 0.5, final=False), GoOn(1, 20)]
    assert it.feed(at(1, 20, 0.7)) == [Tell(1, 20, 0.7, final=False), GoOn(1, 30)]
    assert it.feed(at(1, 30, 0.6)) == [Tell(1, 30, 0.6, final=True), Stop(1, "finished", ""), Ask(2)]
    assert it.best is it.trials[1]
    assert (it.best.best, it.best.best_step) == (0.7, 20)
    it.feed(Suggested(2, {"x": 2}))
    last = it.feed(at(2, 30, 0.1))
    assert last == [Tell(2, 30, 0.1, final=True), Stop(2, "finished", ""), Over("finished", "all trials are over")]


def test_places_are_filled_up_to_the_width_and_no_further() -> None:
    it = loop(replace(RULES, trials=5))
    assert it.feed(Width(2)) == [Ask(1), Ask(2)]
    assert it.feed(Suggested(2, {"x": 2})) == [Start(2, {"x": 2}, 10)]
    assert it.feed(Width(4)) == [Ask(3), Ask(4)]
    assert it.feed(Width(1)) == []
    assert it.feed(Suggested(1, {"x": 1})) == []  # it waits: there is no place any more
    assert it.trials[1].state == "waiting"
    assert it.feed(Width(2)) == [Start(1, {"x": 1}, 10)]


def test_the_gate_is_rounded_up_to_an_evaluation_and_down_to_the_end() -> None:
    way = Way(25, 10)
    assert [way.at(step) for step in (0, 1, 10, 11, 20, 21, 25, 99)] == [10, 10, 10, 20, 20, 25, 25, 25]
    assert Way(25).at(1) == 25
    it = loop(replace(RULES, way=lambda config: Way(25, 10)), Scripted(gate=7))
    assert begun(it) == [Start(1, {"x": 1}, 10)]
    assert it.feed(at(1, 10, 0.5))[-1] == GoOn(1, 20)
    assert it.feed(at(1, 20, 0.5))[-1] == GoOn(1, 25)


def test_who_pauses_gives_the_place_to_whom_the_scheduler_chooses() -> None:
    scheduler = Scripted(verdicts=[Verdict.PAUSE])
    it = loop(scheduler=scheduler)
    begun(it)
    told = Tell(1, 10, 0.5, final=False)
    assert it.feed(at(1, 10, 0.5)) == [told, Pause(1, "scripted"), Ask(2)]
    scheduler.queue.append(1)
    assert it.feed(Suggested(2, {"x": 2})) == [GoOn(1, 20)]  # it was first in the queue


def test_who_pauses_and_is_chosen_goes_on_without_leaving() -> None:
    scheduler = Scripted(verdicts=[Verdict.PAUSE])
    it = loop(scheduler=scheduler)
    begun(it)
    scheduler.queue.append(1)
    assert it.feed(at(1, 10, 0.5)) == [Tell(1, 10, 0.5, final=False), GoOn(1, 20)]


def test_who_is_stopped_is_told_of_as_not_whole() -> None:
    it = loop(scheduler=Scripted(verdicts=[Verdict.STOP]))
    begun(it)
    said = [Tell(1, 10, 0.5, final=False), Tell(1, 10, None, final=True), Stop(1, "stopped", "scripted"), Ask(2)]
    assert it.feed(at(1, 10, 0.5)) == said
    assert it.feed(at(1, 20, 0.9)) == []  # too late


def test_searchers_that_take_their_time_are_asked_ahead() -> None:
    it = loop(replace(RULES, trials=4, ahead=2))
    assert it.feed(Width(1)) == [Ask(1), Ask(2), Ask(3)]
    assert it.feed(Suggested(1, {"x": 1})) == [Start(1, {"x": 1}, 10)]
    assert it.feed(Suggested(2, {"x": 2})) == []
    assert it.feed(Suggested(3, {"x": 3})) == []
    assert it.feed(at(1, 30, 0.5))[2:] == [Start(2, {"x": 2}, 10), Ask(4)]


def test_a_report_that_was_heard_before_is_passed_over() -> None:
    it = loop()
    begun(it)
    it.feed(at(1, 5, 0.9, waits=False))
    for step in (3, 5):
        assert it.feed(at(1, step, 0.1, waits=False)) == []
    assert it.trials[1].best == 0.9


def test_a_trial_that_stands_before_its_gate_is_at_its_end() -> None:
    """As where its data is shorter than was thought."""
    it = loop()
    begun(it)
    assert it.feed(at(1, 8, 0.5))[1] == Stop(1, "finished", "")


def test_a_searcher_that_has_no_more_ends_the_sweep_when_all_are_over() -> None:
    it = loop(replace(RULES, trials=None))
    it.feed(Width(2))
    assert it.feed(Suggested(1, {"x": 1})) == [Start(1, {"x": 1}, 10)]
    assert it.feed(Suggested(2, None)) == []
    assert it.feed(at(1, 30, 0.5))[-1] == Over("finished", "the searcher has no more")


def test_a_failed_trial_is_no_end_until_too_many_are() -> None:
    it = loop(replace(RULES, trials=9, max_failures=1))
    begun(it, 2)
    said = it.feed(Failed(1, 3, "task", "ValueError: no"))
    assert said == [Tell(1, 0, None, final=True), Stop(1, "failed", "ValueError: no"), Ask(3)]
    last = it.feed(Failed(2, 3, "task", "ValueError: no"))
    assert isinstance(last[-1], Over)
    assert last[-1].state == "failed"
    assert "2 trials failed, more than max_failures: 1" in last[-1].reason
    assert it.feed(Suggested(3, {"x": 3})) == []


def test_a_diverged_trial_is_a_result_in_the_last_place() -> None:
    scheduler = Scripted()
    it = loop(replace(RULES, max_failures=0), scheduler)
    begun(it)
    it.feed(at(1, 10, 0.9))
    told, stop, *_ = it.feed(Failed(1, 13, "diverged", "the loss is no number"))
    assert isinstance(told, Tell)
    assert (told.final, math.isnan(told.value or 0.0)) == (True, True)
    assert stop == Stop(1, "stopped", "the loss is no number")
    assert [(trial, step) for trial, step, _ in scheduler.over] == [(1, 13)]
    assert it.best is None  # trained again, it would diverge again
    begun_second = it.feed(Suggested(2, {"x": 2}))
    assert begun_second == [Start(2, {"x": 2}, 10)]
    it.feed(at(2, 10, 0.1))
    assert it.best is it.trials[2]


def test_the_platform_may_fail_once_and_then_counts() -> None:
    it = loop(replace(RULES, max_failures=0))
    begun(it)
    failed = Failed(1, 3, "platform", "the disk is full")
    assert it.feed(failed) == [Start(1, {"x": 1}, 10)]
    it.feed(at(1, 10, 0.9))
    assert it.feed(failed) == [GoOn(1, 20)]  # it had come further meanwhile
    assert isinstance(it.feed(failed)[-1], Over)


def test_all_that_failed_make_a_failed_sweep() -> None:
    it = loop()
    begun(it, 2)
    it.feed(Failed(1, 3, "task", "no"))
    assert it.feed(Failed(2, 3, "task", "never"))[-1] == Over("failed", "every trial failed; the last one: never")


@pytest.mark.parametrize(
    ("budget", "enough", "why"),
    [
        (Budget(worker_s=7200.0), Spent(7200.0, 1.0), "its budget of 2 worker-hours is spent"),
        (Budget(dollars=3.0, price=1.5), Spent(7200.0, 1.0), "its budget of 3 dollars is spent"),
        (Budget(seconds=60.0), Spent(1.0, 60.0), "its deadline of 60 s is over"),
    ],
)
def test_a_budget_that_is_spent_ends_it(budget: Budget, enough: Spent, why: str) -> None:
    it = loop(replace(RULES, budget=budget))
    begun(it, 2)
    assert it.feed(Spent(enough.worker_s * 0.9, enough.seconds * 0.9)) == []
    stops = [Stop(1, "stopped", "the sweep ended"), Stop(2, "stopped", "the sweep ended")]
    assert it.feed(enough) == [*stops, Over("finished", why)]


def test_a_budget_of_steps_counts_those_of_all_trials() -> None:
    it = loop(replace(RULES, budget=Budget(steps=40)))
    begun(it, 2)
    it.feed(at(1, 20, 0.5, waits=False))
    assert it.over is None
    assert it.feed(at(2, 20, 0.5, waits=False))[-1] == Over("finished", "its budget of 40 steps is spent")


def test_it_ends_when_nothing_improves() -> None:
    it = loop(replace(RULES, trials=9, patience=2, min_delta=0.1))
    begun(it, 1)
    it.feed(at(1, 10, 0.5))
    it.feed(at(1, 20, 0.55))
    last = it.feed(at(1, 30, 0.58))
    assert last[-1] == Over("finished", "2 evaluations in a row were not better than the best by 0.1 or more")
    assert [stop for stop in last if isinstance(stop, Stop)] == [Stop(1, "finished", "")]


def test_small_gains_add_up() -> None:
    it = loop(replace(RULES, trials=9, patience=2, min_delta=0.1))
    begun(it, 1)
    for step, value in ((10, 0.5), (20, 0.55)):
        it.feed(at(1, step, value))
    it.feed(at(1, 30, 0.62))
    assert it.over is None


def test_who_is_halted_leaves_all_as_it_is_or_ends_it() -> None:
    it = loop()
    begun(it, 1)
    assert it.feed(Halt("stopped by a@b", may_go_on=True)) == [Over("stopped", "stopped by a@b")]
    it = loop()
    begun(it, 1)
    assert it.feed(Halt("enough", may_go_on=False))[0] == Stop(1, "stopped", "the sweep ended")


def test_a_clone_goes_on_with_anothers_weights() -> None:
    it = loop(scheduler=Scripted(verdicts=[Verdict.CONTINUE, Exploit(1, {"x": 9})]))
    begun(it, 2)
    it.feed(at(1, 10, 0.9))
    said = it.feed(at(2, 10, 0.1))
    assert said == [Tell(2, 10, 0.1, final=False), Clone(2, 1, 10, {"x": 9}, 20)]
    assert it.trials[2].config == {"x": 9}
    assert it.feed(Failed(2, 12, "platform", "lost")) == [Clone(2, 1, 10, {"x": 9}, 20)]  # it had not begun
    it.feed(at(2, 20, 0.8))
    assert it.feed(Failed(2, 22, "platform", "lost")) == [GoOn(2, 30)]


def test_there_is_nothing_to_be_had_from_who_never_stood() -> None:
    it = loop(scheduler=Scripted(verdicts=[Exploit(1, {"x": 9})]))
    begun(it, 2)
    assert it.feed(at(2, 10, 0.1))[-1] == GoOn(2, 20)


def test_the_metric_that_nobody_reports_is_named_with_those_that_are() -> None:
    it = loop(replace(RULES, metric="acuracy"))
    begun(it)
    with pytest.raises(BadInput, match=r"acuracy is not reported.*accuracy, loss\. Did you mean 'accuracy'"):
        it.feed(at(1, 10, 0.5))
    assert it.trials[1].step == 0


def test_failed_trials_are_tried_again_and_the_sweep_goes_on_with_them() -> None:
    it = loop(replace(RULES, trials=3, max_failures=0))
    begun(it, 2)
    it.feed(at(1, 10, 0.5))
    it.feed(at(2, 10, 0.6))
    assert isinstance(it.feed(Failed(1, 13, "task", "no such file"))[-1], Over)
    assert it.trials[2].state == "stopped"
    assert it.feed(Again(2)) == []  # it did not fail
    assert it.feed(Again(1)) == [GoOn(2, 20), GoOn(1, 20)]
    assert it.over is None
    assert it.feed(at(1, 30, 0.9))[-1] == Ask(3)
    assert it.best is it.trials[1]


def unfit_two(config: Config) -> Way:
    if config["x"] == 2:
        raise Unfit("trial is not a valid job", "warmup_steps is more than steps")
    return Way(30, 10)


def test_settings_that_make_no_job_are_a_failed_trial_and_the_others_go_on() -> None:
    it = loop(replace(RULES, trials=3, way=unfit_two))
    it.feed(Width(1))
    it.feed(Suggested(1, {"x": 2}))
    assert it.trials[1].state == "failed"
    it = loop(replace(RULES, trials=3, way=unfit_two, max_failures=0))
    it.feed(Width(2))
    assert it.feed(Suggested(1, {"x": 1})) == [Start(1, {"x": 1}, 10)]
    why = "trial is not a valid job: warmup_steps is more than steps"
    said = it.feed(Suggested(2, {"x": 2}))
    assert said[:2] == [Tell(2, 0, None, final=True), Stop(2, "failed", why)]
    assert isinstance(it.over, Over)
    assert it.over.state == "failed"
    assert why in it.over.reason
    assert it.feed(Again(2)) == []  # it would not be another


def test_anothers_settings_that_make_no_job_are_not_taken_over() -> None:
    it = loop(replace(RULES, way=unfit_two), Scripted(verdicts=[Verdict.CONTINUE, Exploit(1, {"x": 2})]))
    it.feed(Width(2))
    it.feed(Suggested(1, {"x": 1}))
    it.feed(Suggested(2, {"x": 3}))
    it.feed(at(1, 10, 0.9))
    assert it.feed(at(2, 10, 0.1))[-1] == GoOn(2, 20)
    assert it.trials[2].config == {"x": 3}


def test_the_platforms_fault_does_not_end_one_that_is_paused() -> None:
    it = loop(replace(RULES, max_failures=0), Scripted(verdicts=[Verdict.PAUSE]))
    begun(it, 2)
    it.feed(at(1, 10, 0.5))
    assert it.trials[1].state == "paused"
    assert it.feed(Failed(1, 10, "platform", "its process is gone")) == []
    assert (it.trials[1].state, it.over) == ("paused", None)
