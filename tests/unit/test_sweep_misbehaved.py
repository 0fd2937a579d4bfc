"""Trials, searchers and drivers that do not do as they should: the sweep goes on, or says why it does not."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sweep_driving import Plan, even_way, name

from headway.errors import BadInput, RunFailed
from headway.sweeps import book
from headway.sweeps.chance import rolled
from headway.sweeps.events import Config, Over
from headway.sweeps.rules import Rules
from headway.sweeps.schedule.plain import Plain
from headway.sweeps.search.protocol import Searcher
from headway.testing.crew import Died, FakeCrew, Ground

RULES = Rules("loss", "min", trials=4, way=even_way(16, 4))


class Numbers(Searcher):
    """The setting of each trial is its number."""

    def suggest(self, trial: int) -> Config | None:
        return {"lr": trial}

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        pass


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    def make(**changes: Any) -> Plan:
        return replace(Plan(tmp_path, RULES, Plain, Numbers, width=2), **changes)

    return make


def curve(settings: Mapping[str, Any], step: int) -> Mapping[str, float]:
    return {"loss": settings["lr"] + 1.0 / step}


@pytest.mark.parametrize("order", ["async", "strict"])
@pytest.mark.parametrize("odd", [{}, {"accuracy": 0.5}])
def test_a_trial_that_does_not_report_the_metric_fails_and_the_others_go_on(
    plan: Callable[..., Plan], order: str, odd: dict[str, float]
) -> None:
    def reports(settings: Mapping[str, Any], step: int) -> Mapping[str, float]:
        return odd if settings["lr"] == 3 and step >= 8 else curve(settings, step)

    for workers in (1, 4):
        (folder := plan().folder / str(workers)).mkdir()
        loop = plan(order=order, folder=folder).drive(FakeCrew(Ground(), workers, reports))
        states = {trial.number: trial.state for trial in loop.trials.values()}
        assert states == {1: "finished", 2: "finished", 3: "failed", 4: "finished"}
        assert "reports no loss at step 8" in loop.trials[3].reason
        assert loop.trials[3].step == 4


def test_a_first_trial_that_was_never_evaluated_fails_alone(plan: Callable[..., Plan]) -> None:
    loop = plan().drive(FakeCrew(Ground(), 1, lambda of, step: {} if of["lr"] == 1 else curve(of, step)))
    assert [trial.state for trial in loop.trials.values()] == ["failed", "finished", "finished", "finished"]
    assert "it was never evaluated" in loop.trials[1].reason


def test_a_metric_that_the_job_has_not_ends_the_sweep(plan: Callable[..., Plan]) -> None:
    with pytest.raises(BadInput, match="metric: loss is not reported by any trial"):
        plan().drive(FakeCrew(Ground(), 1, lambda of, step: {"los": 1.0}))


def test_what_two_threads_draw_they_draw_as_if_alone() -> None:
    def drawn(seed: int, call: int) -> tuple[float, float]:
        with rolled(seed, call):
            first = random.random()
            for _ in range(100):
                turn.wait(0.0001)  # the other may have its turn
            return first, float(np.random.rand())

    turn, over, found = threading.Event(), threading.Event(), []

    def searches() -> None:
        while not over.is_set():
            drawn(7, 1)

    alone = [drawn(0, call) for call in range(5)]
    beside = threading.Thread(target=searches)
    beside.start()
    try:
        found = [drawn(0, call) for call in range(5)]
    finally:
        over.set()
        beside.join()
    assert found == alone


class Breaks(Numbers):
    """Raises when it is asked for the third trial."""

    def suggest(self, trial: int) -> Config | None:
        if trial == 3:
            raise ValueError("it has no idea")
        return super().suggest(trial)


def test_what_was_trained_when_the_searcher_raises_is_not_trained_again(plan: Callable[..., Plan]) -> None:
    ground, it = Ground(), plan(searcher=Breaks, rules=replace(RULES, way=even_way(64, 4)))
    with pytest.raises(ValueError, match="it has no idea"):
        it.drive(FakeCrew(ground, 2, curve, noise=0.9, seed=1))
    behind = min(ground.runs.values(), key=lambda record: max(record.done))
    assert 0 < max(behind.done) == max(behind.saved) < 64
    assert any("cannot go on" in line for line in it.said)
    loop = replace(it, searcher=Numbers).drive(FakeCrew(ground, 2, curve))
    assert all(trial.state == "finished" for trial in loop.trials.values())
    assert not any(record.repeated for record in ground.runs.values())


def test_a_crew_that_is_lost_is_told_nothing_more(plan: Callable[..., Plan]) -> None:
    crew = FakeCrew(Ground(), 2, curve)

    def burns() -> None:
        raise RunFailed("the house burnt down", "", "")

    crew.at(5.0, burns)
    with pytest.raises(RunFailed, match="the house burnt down"):
        plan().drive(crew)
    assert crew.now < 10.0


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("order", ["async", "strict"])
def test_a_run_that_was_killed_at_its_very_end_is_closed(plan: Callable[..., Plan], order: str, heard: bool) -> None:
    ground, it = Ground(), plan(order=order)
    before = it.drive(FakeCrew(ground, 1, curve))
    last = ground.runs[name(4)]
    last.over, last.saved = "", [8]  # evaluated, and its last checkpoint was under way
    if not heard:
        lines = (it.folder / book.FILE).read_text().splitlines(keepends=True)
        known = (at for at, line in enumerate(lines) if '"reported"' in line and json.loads(line)["trial"] == 4)
        (it.folder / book.FILE).write_text("".join(lines[: next(known)]))
    after = it.drive(FakeCrew(ground, 1, curve))
    assert (last.over, last.saved[-1]) == ("finished", 16)
    assert last.repeated == 8
    assert [(t.state, t.step, t.best) for t in after.trials.values()] == [
        (t.state, t.step, t.best) for t in before.trials.values()
    ]


class Seldom(Plain):
    """Asked every eight steps."""

    def gate(self, trial: int, step: int) -> int:
        return step // 8 * 8 + 8


def test_of_a_population_checkpoints_of_gates_are_kept_and_no_others(plan: Callable[..., Plan]) -> None:
    ground = Ground()
    rules = replace(RULES, way=even_way(40, 4))
    plan(rules=rules, scheduler=Seldom, exploits=True).drive(FakeCrew(ground, 2, curve))
    assert [record.saved for record in ground.runs.values()] == [[8, 16, 24, 32, 40]] * 4


def test_a_slow_searcher_that_is_asked_again_is_told_of_and_may_be_left(plan: Callable[..., Plan]) -> None:
    stop, ground = threading.Event(), Ground()
    crew = FakeCrew(ground, 2, curve)
    crew.dies_after(30)
    with pytest.raises(Died):
        plan(order="strict").drive(crew)
    again = FakeCrew(ground, 2, curve)
    asked: list[int] = []

    class Slow(Numbers):
        def suggest(self, trial: int) -> Config | None:
            again.now += 15.0
            asked.append(trial)
            if trial == 2:
                stop.set()
            return super().suggest(trial)

    it = plan(order="strict", searcher=Slow, stop=stop)
    loop = it.drive(again)
    assert loop.over == Over("stopped", "interrupted")
    assert asked == [1, 2]
    assert "the searcher is asked again what it was asked before: 1 of 4" in it.said
    assert all(
        trial.state == "finished" for trial in plan(order="strict").drive(FakeCrew(ground, 2, curve)).trials.values()
    )
