"""Schedulers as a sweep's file names them: when they ask, whom they let go on, and what a population changes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headway.errors import BadInput
from headway.sweeps import file
from headway.sweeps import schedule as schedulers
from headway.sweeps.file import Sweep
from headway.sweeps.schedule import Lengths, kinds
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict
from headway.testing.scheduler import LENGTH, Player
from headway.testing.scheduler import SPACE as SPACE_OF_TWO

JOB: dict[str, Any] = {
    "name": "digits",
    "task": "task.py:Digits",
    "data": {"train": "d/train", "validation": "d/test"},
    "steps": 640,
    "optimizer": {"name": "sgd", "lr": 0.1},
}
SPACE: dict[str, Any] = {
    "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
    "optimizer.momentum": {"uniform": [0.0, 0.99]},
    "arguments.width": {"choice": [16, 32]},
}
LENGTHS = Lengths(640, 10)
KEYS = tuple(SPACE_OF_TWO.distributions)


def sweep(scheduler: Any, trials: int = 8, **more: Any) -> Sweep:
    return file.taken(
        {"job": JOB, "trials": trials, "space": SPACE, "search": "random", "scheduler": scheduler, **more}
    )


def made(scheduler: Any, lengths: Lengths = LENGTHS, **more: Any) -> Scheduler:
    return schedulers.create(sweep(scheduler, **more), lengths)


def begun(scheduler: Scheduler, trials: int, length: int = 640) -> list[int]:
    """Trials that have a place each, with settings that differ."""
    found = []
    for trial in range(1, trials + 1):
        config = {"optimizer.lr": 0.001 * trial, "optimizer.momentum": 0.1 * trial, "arguments.width": 16}
        scheduler.added(trial, config, length)
        chosen = scheduler.choose()
        assert chosen is not None
        found.append(chosen)
    return found


@pytest.mark.parametrize(
    ("scheduler", "gates"),
    [
        ("none", [640]),
        ("asha", [10, 40, 160, 640]),
        ({"name": "asha", "first": 25, "factor": 3}, [30, 80, 230, 640]),
        ({"name": "asha", "promote": False}, [10, 40, 160, 640]),
        ({"name": "hyperband", "first": 64, "factor": 3}, [80, 220, 640]),
        ({"name": "pbt", "every": 200}, [200, 400, 600, 640]),
        ({"name": "pb2", "every": 150}, [150, 300, 450, 600, 640]),
    ],
    ids=str,
)
def test_it_asks_at_evaluations_and_only_where_it_decides(scheduler: Any, gates: list[int]) -> None:
    of = made(scheduler)
    begun(of, 1)
    asked, step = [], 0
    while step < 640:
        step = of.gate(1, step)
        asked.append(step)
    assert asked == gates


def test_the_median_rule_looks_at_every_evaluation() -> None:
    of = made("median")
    begun(of, 1)
    assert [of.gate(1, step) for step in (0, 10, 15, 630)] == [10, 20, 20, 640]


def test_a_shorter_trial_is_asked_no_later_than_its_end() -> None:
    of = made("asha")
    begun(of, 1, length=100)
    assert [of.gate(1, step) for step in (0, 10, 40)] == [10, 40, 100]


def test_rungs_are_known_before_anything_runs() -> None:
    assert schedulers.rungs_of(sweep("asha"), LENGTHS) == (10, 40, 160)
    assert schedulers.rungs_of(sweep({"name": "asha", "first": 100, "factor": 2}), LENGTHS) == (100, 200, 400)
    assert schedulers.rungs_of(sweep("asha"), Lengths(640, 200)) == (200,)


def test_one_of_four_goes_on_and_the_others_wait() -> None:
    of = made("asha", mode="min", metric="loss")
    begun(of, 4)
    said = [of.reported(trial, 10, value)[0] for trial, value in ((1, 0.4), (2, 0.1), (3, 0.3), (4, 0.2))]
    assert said == [Verdict.PAUSE] * 4
    assert (of.choose(), of.choose()) == (2, None)
    assert of.rungs[10] == [1, 2, 3, 4]


def test_a_trial_that_is_the_best_goes_on_without_leaving() -> None:
    """It is chosen straight after it was told to wait."""
    of = made("asha", mode="max", metric="accuracy")
    begun(of, 4)
    for trial, value in ((1, 0.4), (2, 0.1), (3, 0.3)):
        of.reported(trial, 10, value)
    assert of.reported(4, 10, 0.5) == (Verdict.PAUSE, "place 1 of 4 at step 10")
    assert of.choose() == 4


def test_tunes_asha_ends_who_is_not_among_the_best() -> None:
    of = made({"name": "asha", "promote": False})
    begun(of, 4)
    said = [of.reported(trial, 10, value)[0] for trial, value in ((1, 0.4), (2, 0.5), (3, 0.3), (4, 0.45))]
    assert said == [Verdict.CONTINUE, Verdict.STOP, Verdict.CONTINUE, Verdict.STOP]


def test_tunes_asha_counts_what_diverged_as_the_last() -> None:
    """Tune lets NaN pass, and compares nobody with it: of a rung where three of four diverged, any other is good."""
    of = made({"name": "asha", "promote": False})
    begun(of, 5)
    for trial in (1, 2, 3):
        assert of.reported(trial, 10, math.nan)[0] is Verdict.STOP
        of.ended(trial, 10, math.nan)
    said = [of.reported(trial, 10, value)[0] for trial, value in ((4, 0.5), (5, 0.6))]
    assert said == [Verdict.CONTINUE] * 2


def exploited(kind: str, **more: Any) -> tuple[Exploit, dict[int, float]]:
    """The first take-over in a population of four, of which the first trial is the worst, and the last the best."""
    of = made({"name": kind, "every": 100, **more}, trials=4)
    begun(of, 4)
    values = {4: 0.1, 3: 0.2, 2: 0.3, 1: 0.9}
    for step in (100, 200, 300):
        for trial, value in values.items():
            verdict, why = of.reported(trial, step, value / step)
            if isinstance(verdict, Exploit):
                assert trial == 1
                assert "trial 4's weights" in why
                return verdict, values
    raise AssertionError("nobody took over anything")


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_the_worst_takes_over_the_bests_weights_and_settings_that_fit_them(kind: str) -> None:
    verdict, _ = exploited(kind)
    assert verdict.source == 4
    assert verdict.config["arguments.width"] == 16, "that is of the weights"
    assert sweep(kind).searched.fault(verdict.config) == ""
    assert verdict.config["optimizer.lr"] != 0.001


def test_nobody_goes_on_with_settings_of_which_no_job_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise BadInput("trial is not a valid job", "momentum", "")

    sweep("pbt")  # is a good one
    monkeypatch.setattr(Sweep, "job_of", refused)
    monkeypatch.setattr(file.settings, "faults_of", lambda *_: [])
    monkeypatch.setattr(file, "_sized", lambda found: found)
    monkeypatch.setattr(file, "_of_the_job", lambda *_: ())
    monkeypatch.setattr(Sweep, "example", None)
    with pytest.raises(AssertionError, match="nobody took over"):
        exploited("pbt")


def test_settings_that_are_named_change_and_no_others() -> None:
    verdict, _ = exploited("pbt", mutate=["optimizer.momentum"], resample=0.0)
    assert verdict.config["optimizer.lr"] == 0.004, "of trial 4"
    assert verdict.config["optimizer.momentum"] in (pytest.approx(0.48), pytest.approx(0.32)), "by a fifth, up or down"


def test_a_setting_changes_by_a_fifth_of_what_it_was_and_stays_in_the_space() -> None:
    """Tune multiplies on and on; the bounds would only be seen from far outside."""
    player = Player(kinds.pbt(SPACE_OF_TWO, 4, 0.25, 0.0, KEYS, "min", Lengths(LENGTH), 12, 0), 12)
    player.loss = lambda trial, config, step: 1.0 - float(config["optimizer.momentum"])  # the best lie at the bound
    changes = []
    real = player.scheduler.reported

    def reported(trial: int, step: int, value: float) -> Any:
        verdict, why = real(trial, step, value)
        if isinstance(verdict, Exploit):
            changes.append((player.configs[verdict.source], verdict.config))
        return verdict, why

    player.scheduler.reported = reported  # type: ignore[method-assign]
    player.play()
    assert len(changes) > 5
    for before, after in changes:
        for key, (low, high) in {"optimizer.lr": (1e-4, 1e-1), "optimizer.momentum": (0.0, 0.99)}.items():
            allowed = [min(high, max(low, before[key] * factor)) for factor in (0.8, 1.2)]
            assert any(after[key] == pytest.approx(each) for each in allowed), key


def test_a_population_waits_for_all_of_its_trials() -> None:
    """Two places for four: nobody gets ahead of those that have not begun."""
    of = made({"name": "pbt", "every": 100}, trials=4)
    begun(of, 2)
    assert of.reported(1, 100, 0.5)[0] is Verdict.PAUSE
    assert of.choose() is None, "a new one is asked for first"


def test_hyperband_ends_others_than_the_one_that_reports() -> None:
    """Those of its bracket that waited for it, and were not good enough."""
    player = Player(kinds.hyperband(1, 3, "min", Lengths(LENGTH), 12, 0), 12).play()
    dropped = [trial for said in player.said if isinstance(said, list) for trial in said]
    assert dropped
    assert len(set(dropped)) == len(dropped)
    assert "paused" not in player.state.values(), "nobody is left waiting"


def test_whoever_gets_through_hyperband_has_gone_its_whole_way() -> None:
    """Tune cuts its steps off to whole numbers: of 100 in powers of 3 the last would be 81."""
    lengths = Lengths(100)
    ladder = kinds.hyperband(1, 3, "min", lengths, 12, 0).rungs
    assert list(ladder) == [2, 4, 12, 34]


def test_a_bracket_of_hyperband_goes_on_when_its_last_trial_fails() -> None:
    """Tune marks a bracket when it first halves it, and passes over those with a mark when a trial fails."""
    of = kinds.hyperband(1, 2, "min", Lengths(4), 10, 0)  # brackets of 3, 3 and 4 trials, the last from step 1
    for trial in range(1, 11):
        of.added(trial, {}, 4)
    first = []
    while (chosen := of.choose()) is not None:
        first.append(chosen)
    for trial in first:
        of.reported(trial, 1, float(trial))
    one, other = (of.choose(), of.choose())
    assert one is not None
    assert other is not None
    assert of.reported(one, 2, float(one))[0] is Verdict.PAUSE, "it waits for the other"
    assert of.choose() is None
    of.ended(other, 1, None)
    assert of.choose() == one
