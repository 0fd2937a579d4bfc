"""What goes wrong about a sweep and is not its end: settings without a job, stores that are away, runs that somebody
else leads, leaves that break, workers that come late."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.sweep_driving import Plan, even_way, name
from tests.unit.test_sweep_simulated import EVERY, LENGTH, POPULATION, RULES, Attentive, asha, curve, decided, told

from headway.core.prefix import Course as Computed
from headway.core.schedules import Shape
from headway.data.store.protocol import OutOfReach as DataOutOfReach
from headway.errors import BadData, BadInput, HeadwayError
from headway.job import Job
from headway.runs import Led
from headway.runs.refusals import Away
from headway.storage.protocol import OutOfReach
from headway.sweeps.crew import Leg
from headway.sweeps.events import Config, Failed, Reported, Suggested
from headway.sweeps.loop import Loop
from headway.sweeps.schedule.plain import Plain
from headway.sweeps.vetting import Vetting
from headway.testing.crew import Died, FakeCrew, Ground, Record, _Active


def refused(config: Config) -> bool:
    """About a third of the settings."""
    return hashlib.sha256(repr(config["lr"]).encode()).digest()[0] < 80


def computed(job: Job) -> Computed:
    return Computed(LENGTH, str(job.arguments["lr"]), Shape("step", LENGTH, 0, (("every", 12), ("factor", 0.1))))


@dataclass
class Fussy(Plan):
    """A sweep in which some settings make no job."""

    def job(self, config: Config, repeat: int) -> Job:
        if refused(config):
            raise BadInput("trial is not a valid job", f"lr: {config['lr']} with warm-up", "")
        return super().job(config, repeat)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    count = iter(range(10**6))

    def make(kind: type[Plan] = Plan, **changes: Any) -> Plan:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return replace(kind(folder, RULES, asha, Attentive, "strict", width=4), **changes)

    return make


# Settings without a job


@pytest.mark.parametrize("order", ["strict", "async"])
@pytest.mark.parametrize("course", [None, computed])
def test_settings_without_a_job_are_a_failed_trial(plan: Callable[..., Plan], order: str, course: Any) -> None:
    rules = replace(RULES, max_failures=12)
    made, ground = plan(Fussy, order=order, rules=rules, course=course), Ground()
    loop = made.drive(FakeCrew(ground, 4, curve))
    assert loop.over is not None
    assert loop.over.state == "finished"
    assert len(loop.trials) == 12
    for trial in loop.trials.values():
        assert (trial.state == "failed") == refused(trial.config)
        assert (name(trial.number) in ground.runs) == (trial.begun and not refused(trial.config))
    bad = [trial for trial in loop.trials.values() if trial.state == "failed"]
    assert 0 < len(bad) < 12
    assert all("with warm-up" in trial.reason and "lr=" in trial.reason for trial in bad)


def test_a_sweep_with_settings_without_a_job_is_gone_on_with(plan: Callable[..., Plan]) -> None:
    rules = replace(RULES, max_failures=12)
    quiet = plan(Fussy, rules=rules)
    loop = quiet.drive(FakeCrew(Ground(), 4, curve))
    for moment in range(0, 60, 7):
        again, ground = plan(Fussy, rules=rules), Ground()
        crew = FakeCrew(ground, 4, curve, saves_every=EVERY)
        crew.dies_after(moment)
        with pytest.raises(Died):
            again.drive(crew)
        other = again.drive(FakeCrew(ground, 3, curve, saves_every=EVERY))
        assert told(again) == told(quiet)
        assert decided(other) == decided(loop)


def test_too_many_settings_without_a_job_end_it(plan: Callable[..., Plan]) -> None:
    made, ground = plan(Fussy, rules=replace(RULES, trials=40, max_failures=2)), Ground()
    loop = made.drive(FakeCrew(ground, 4, curve))
    assert loop.over is not None
    assert loop.over.state == "failed"
    assert "3 trials failed, more than max_failures: 2" in loop.over.reason
    again = made.drive(FakeCrew(ground, 4, curve))
    assert decided(again) == decided(loop)


def test_a_length_that_no_job_has_is_no_end_either(plan: Callable[..., Plan]) -> None:
    """Where trials differ in length that is known before any of them is written down."""

    def way(config: Config) -> Any:
        if refused(config):
            raise BadInput("steps=3", "fewer than warmup_steps", "")
        return even_way(LENGTH, EVERY)(config)

    made = plan(rules=replace(RULES, way=way, max_failures=12), course=None)
    loop = made.drive(FakeCrew(Ground(), 4, curve))
    assert loop.over is not None
    assert loop.over.state == "finished"
    assert {trial.state for trial in loop.trials.values() if refused(trial.config)} == {"failed"}
    assert decided(made.drive(FakeCrew(Ground(), 4, curve))) == decided(loop)


def test_a_trial_without_a_job_is_not_tried_again() -> None:
    from headway.sweeps.events import Again, Width

    loop = Loop(replace(RULES, trials=2), Plain())
    loop.feed(Width(1))
    loop.feed(Suggested(1, {"lr": 0.1}, "no job"))
    assert loop.trials[1].reason == "no job"
    assert loop.feed(Again(1)) == []
    assert loop.trials[1].state == "failed"


def test_suggestions_wait_while_the_data_do_not_answer() -> None:
    now, lines, away = [0.0], list[str](), [True]

    def way(config: Config) -> Any:
        if away[0]:
            raise DataOutOfReach("the store does not answer", "", "")
        return even_way(LENGTH, EVERY)(config)

    vetting = Vetting(lambda config, repeat: Job.model_construct(), way, lines.append, lambda: now[0])
    vetting.take(Suggested(1, {"lr": 0.1}))
    assert vetting.looked() == []
    assert len(lines) == 1
    away[0] = False
    assert vetting.looked() == []
    now[0] = 2.0
    assert vetting.looked() == [Suggested(1, {"lr": 0.1})]


def test_data_that_cannot_be_used_are_no_trials_fault() -> None:
    def way(config: Config) -> Any:
        raise BadData("data.train is missing", "", "")

    vetting = Vetting(lambda config, repeat: Job.model_construct(), way, lambda text: None, lambda: 0.0)
    vetting.take(Suggested(1, {"lr": 0.1}))
    with pytest.raises(BadData):
        vetting.looked()


# Stores that are away, and runs that somebody else leads


class HeldUp(FakeCrew):
    """Runs cannot begin until a moment."""

    def __init__(self, *args: Any, until: float, error: HeadwayError, **more: Any) -> None:
        super().__init__(*args, **more)
        self._until, self._error, self.asked = until, error, 0

    def begin(self, leg: Leg) -> None:
        if self.now < self._until:
            self.asked += 1
            raise self._error
        super().begin(leg)


@pytest.mark.parametrize("order", ["strict", "async"])
@pytest.mark.parametrize(
    "error",
    [
        OutOfReach("s3://there does not answer", "", ""),
        DataOutOfReach("s3://data does not answer", "", ""),
        Away("no run can be begun in s3://there", "it does not answer", ""),
        Led("run s.0001 is running", "another process leads it", ""),
    ],
    ids=["store", "data", "place", "led"],
)
def test_runs_wait_for_a_store_and_for_who_leads_them(
    plan: Callable[..., Plan], order: str, error: HeadwayError
) -> None:
    quiet = plan(order=order)
    quiet.drive(FakeCrew(Ground(), 4, curve))
    made, ground = plan(order=order), Ground()
    crew = HeldUp(ground, 4, curve, until=300.0, error=error)
    loop = made.drive(crew)
    assert loop.over is not None
    assert loop.over.state == "finished"
    assert "failed" not in {trial.state for trial in loop.trials.values()}
    assert crew.asked < 60  # less and less often, not all the time
    said = [line for line in made.said if str(error) in line]
    assert 1 <= len(said) <= 6
    assert "is tried again" in said[0]
    if order == "strict":
        assert told(made) == told(quiet)


def test_what_is_wrong_with_a_run_is_not_waited_for(plan: Callable[..., Plan]) -> None:
    made = plan(rules=replace(RULES, max_failures=1))
    loop = made.drive(HeldUp(Ground(), 4, curve, until=1e9, error=BadInput("its task is gone", "", "")))
    assert loop.over is not None
    assert loop.over.state == "failed"


# Leaves that break


class Clumsy(FakeCrew):
    """Every so-manieth run that is to leave cannot do so in order."""

    count = 0

    def _leave(self, run: _Active) -> None:
        Clumsy.count += run.leaving == "paused"
        if run.leaving == "paused" and Clumsy.count % 3 == 1:
            self._save(run)
            self._fail(run, "HeadwayFault", "the books cannot be closed")
            return
        super()._leave(run)


@pytest.mark.parametrize("order", ["strict", "async"])
def test_a_paused_trial_that_could_not_leave_in_order_goes_on(plan: Callable[..., Plan], order: str) -> None:
    quiet = plan(order=order, rules=replace(RULES, max_failures=0))
    quiet.drive(FakeCrew(Ground(), 4, curve))
    made, ground = plan(order=order, rules=replace(RULES, max_failures=0)), Ground()
    Clumsy.count = 0
    loop = made.drive(Clumsy(ground, 4, curve))
    assert Clumsy.count > 2
    assert loop.over is not None
    assert loop.over.state == "finished"
    assert "failed" not in {trial.state for trial in loop.trials.values()}
    assert any("the books cannot be closed" in line for line in made.said)
    if order == "strict":
        assert told(made) == told(quiet)


def test_the_loop_lets_a_paused_trial_be() -> None:
    from headway.sweeps.events import Width

    loop = Loop(RULES, asha())
    loop.feed(Width(1))
    loop.feed(Suggested(1, {"lr": 0.1}))
    loop.feed(Reported(1, 4, {"loss": 1.0}, True))
    assert loop.trials[1].state == "paused"
    assert loop.feed(Failed(1, 4, "platform", "the disk is on fire")) == []
    assert loop.trials[1].state == "paused"


# Workers that come late, and what is seen


def test_fewer_workers_than_the_sweep_begins_with_are_waited_for(plan: Callable[..., Plan]) -> None:
    begun: list[float] = []

    class Late(FakeCrew):
        def _record(self, leg: Leg) -> Record:
            begun.append(self.now)
            return super()._record(leg)

    made = plan(least=3)
    crew = Late(Ground(), 1, curve)
    crew.at(40.0, lambda: crew.join(2))
    loop = made.drive(crew)
    assert loop.over is not None
    assert begun[0] >= 40.0
    assert any("waits for 3 workers" in line for line in made.said)


def test_trials_that_are_placed_again_are_seen_to_run(plan: Callable[..., Plan]) -> None:
    made, ground = plan(), Ground()
    crew = FakeCrew(ground, 4, curve)
    crew.dies_after(30)
    with pytest.raises(Died):
        made.drive(crew)
    loop = made.drive(FakeCrew(ground, 4, curve))
    assert loop.over is not None
    assert made.seen.again


# Trials that end by their own account: the job's `stop`, a loop that breaks


@pytest.mark.parametrize("order", ["strict", "async"])
@pytest.mark.parametrize(
    "ends", [(16,), (20,), (16, 16), (8, 16), (4, 20), (12, LENGTH)], ids=lambda ends: "-".join(map(str, ends))
)
def test_a_sweep_goes_on_where_a_trial_ends_before_its_last_step(
    plan: Callable[..., Plan], order: str, ends: tuple[int, ...]
) -> None:
    """At a gate, between two, one of its runs before the others: nobody waits for what never comes."""
    at = {name(trial, repeat): step for trial in range(1, 13) for repeat, step in enumerate(ends, 1)}
    quiet = plan(order=order, repeats=len(ends))
    loop = quiet.drive(FakeCrew(Ground(), 4, curve, ends=at))
    assert loop.over is not None
    assert loop.over.state == "finished"
    assert max(trial.step for trial in loop.trials.values()) == max(ends)
    for moment in (9, 40, 90):
        again = plan(order=order, repeats=len(ends))
        ground = Ground()
        crew = FakeCrew(ground, 4, curve, ends=at)
        crew.dies_after(moment)
        with contextlib.suppress(Died):  # where it is over by then
            again.drive(crew)
            continue
        other = again.drive(FakeCrew(ground, 3, curve, ends=at))
        assert other.over is not None
        if order == "strict":
            assert told(again) == told(quiet)


@pytest.mark.parametrize("order", ["strict", "async"])
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("ends", [{1: 16}, {2: 8, 3: 24}, {1: 4, 2: 8, 3: 12, 4: 16}])
def test_trials_of_a_population_end_by_their_own_account(
    plan: Callable[..., Plan], order: str, repeats: int, ends: dict[int, int]
) -> None:
    """Or go on with another's weights; from the last state of one that ended before its repeats did."""
    at = {name(trial): step for trial, step in ends.items()}
    loop = plan(order=order, repeats=repeats, **POPULATION).drive(FakeCrew(Ground(), 4, curve, ends=at))
    assert loop.over is not None
    assert {trial.state for trial in loop.trials.values()} == {"finished"}
