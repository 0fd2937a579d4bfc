"""Whole sweeps on a crew that makes its numbers up: whoever is fast, lost or killed, nothing is run twice, none is
lost, and in strict order the same is decided."""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.sweep_driving import Plan, even_way, name

from headway.core.prefix import Course as Computed
from headway.core.schedules import Shape
from headway.job import Job
from headway.runs.refusals import Led
from headway.runs.requests import Stop as StopRequest
from headway.storage.protocol import OutOfReach
from headway.sweeps import book, control
from headway.sweeps.crew import Leg
from headway.sweeps.events import Again, Config, Event, Halt, Limits, Over, Reported, Spent, Width
from headway.sweeps.loop import Loop
from headway.sweeps.rules import Budget, Rules, Unfit, Way
from headway.sweeps.schedule.plain import Plain
from headway.sweeps.schedule.promoting import Promoting
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict
from headway.sweeps.search.protocol import NotNow, Searcher, SearcherFailed
from headway.testing.crew import Died, FakeCrew, Ground

LENGTH, EVERY = 64, 4


class Attentive(Searcher):
    """What it suggests hangs on every word that it was told before, and on their order."""

    def __init__(self) -> None:
        self._memory = hashlib.sha256()

    def suggest(self, trial: int) -> Config | None:
        self._memory.update(f"ask {trial}".encode())
        return {"lr": int(self._memory.hexdigest()[:8], 16) / 16**8}

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        self._memory.update(f"{trial} {step} {value!r} {final}".encode())


def curve(settings: Mapping[str, Any], step: int) -> Mapping[str, float]:
    """Better the nearer to 0.3; some learn late."""
    off = abs(settings["lr"] - 0.3)
    return {"loss": off + (1.0 + off) * math.exp(-step / (10 + 60 * settings["lr"])), "other": 0.0}


def asha() -> Scheduler:
    return Promoting([4, 16], 4, "min")


RULES = Rules("loss", "min", trials=12, way=even_way(LENGTH, EVERY))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of turns on a busy disk
    count = iter(range(10**6))

    def make(**changes: Any) -> Plan:
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return replace(Plan(folder, RULES, asha, Attentive, "strict", width=4), **changes)

    return make


def told(plan: Plan) -> list[Event]:
    """What was decided upon: the book, without what is of the clock."""
    entries = book.entries(plan.folder / book.FILE)
    return [entry.event for entry in entries if not isinstance(entry.event, Width | Spent)]


def decided(loop: Loop) -> Any:
    trials = [(t.number, t.config, t.state, t.step, t.value, t.best, t.reason) for t in loop.trials.values()]
    return trials, loop.scheduler.rungs, loop.best and loop.best.number, loop.over


def sound(loop: Loop, ground: Ground, kills: int = 0, saves: int = EVERY) -> None:
    """None lost, none twice, nothing run on behind its end."""
    assert loop.over is not None
    assert all(trial.over for trial in loop.trials.values())
    assert set(ground.runs) == {name(trial.number) for trial in loop.trials.values() if trial.begun}
    for trial in loop.trials.values():
        record = ground.runs[name(trial.number)]
        assert record.settings == trial.config
        if trial.state == "finished":
            assert (record.over, trial.step) == ("finished", record.length)
            assert set(record.done) == set(range(1, record.length + 1))
        assert max(record.done, default=0) == trial.step or loop.over.state != "finished" or trial.state == "failed"
    repeated = sum(record.repeated for record in ground.runs.values())
    assert repeated <= kills * saves * 8


def quiet(plan: Plan) -> tuple[Loop, list[Event]]:
    ground = Ground()
    loop = plan.drive(FakeCrew(ground, workers=4, curve=curve))
    sound(loop, ground)
    return loop, told(plan)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("scheduler", [asha, Plain])
def test_strict_decides_the_same_whoever_is_fast(
    plan: Callable[..., Plan], workers: int, scheduler: Callable[[], Scheduler]
) -> None:
    loop, events = quiet(plan(scheduler=scheduler))
    for seed in range(3):
        again, ground = plan(scheduler=scheduler), Ground()
        other = again.drive(FakeCrew(ground, workers, curve, noise=0.9, seed=seed))
        sound(other, ground)
        assert told(again) == events
        assert decided(other) == decided(loop)


def test_strict_decides_the_same_whoever_is_lost(plan: Callable[..., Plan]) -> None:
    loop, events = quiet(plan())
    for seed in range(10):
        again, ground, draw = plan(), Ground(), random.Random(seed)
        crew = FakeCrew(ground, 4, curve, noise=0.5, seed=seed, saves_every=8)
        for _ in range(6):
            at, lost = draw.uniform(1.0, 120.0), draw.randint(1, 4)
            crew.at(at, lambda lost=lost, crew=crew: crew.lose(lost))  # type: ignore[misc]
            crew.at(at + draw.uniform(1.0, 20.0), lambda lost=lost, crew=crew: crew.join(lost))  # type: ignore[misc]
        other = again.drive(crew)
        assert told(again) == events
        assert decided(other) == decided(loop)


def killed(plan: Plan, ground: Ground, moments: list[int], **options: Any) -> Loop:
    """The driver dies after so much news, again and again; then it is let live."""
    for moment in moments:
        crew = FakeCrew(ground, 4, curve, **options)
        crew.dies_after(moment)
        with pytest.raises(Died):
            plan.drive(crew)
    return plan.drive(FakeCrew(ground, 3, curve, **options))


@pytest.mark.parametrize("order", ["strict", "async"])
def test_the_driver_is_killed_at_every_moment(plan: Callable[..., Plan], order: str) -> None:
    loop, events = quiet(plan(order=order))
    moment = 0
    while True:
        again, ground = plan(order=order), Ground()
        crew = FakeCrew(ground, 4, curve, saves_every=EVERY)
        crew.dies_after(moment)
        try:
            again.drive(crew)
            break  # it had ended before
        except Died:
            pass
        other = again.drive(FakeCrew(ground, 3, curve, saves_every=EVERY))
        sound(other, ground, kills=1)
        if order == "strict":
            assert told(again) == events
            assert decided(other) == decided(loop)
        moment += 1 if order == "strict" else 3
    assert moment > 50


@pytest.mark.parametrize("order", ["strict", "async"])
def test_drivers_are_killed_one_after_the_other(plan: Callable[..., Plan], order: str) -> None:
    loop, events = quiet(plan(order=order))
    for seed in range(8):
        again, ground, draw = plan(order=order), Ground(), random.Random(seed)
        kills = 0
        while kills < 40:
            crew = FakeCrew(ground, draw.randint(1, 6), curve, noise=0.5, seed=seed + kills, saves_every=EVERY)
            crew.dies_after(draw.randint(0, 40))
            try:
                other = again.drive(crew)
                break
            except Died:
                kills += 1
        else:
            other = again.drive(FakeCrew(ground, 4, curve, saves_every=EVERY))
        sound(other, ground, kills=kills)
        if order == "strict":
            assert told(again) == events
            assert decided(other) == decided(loop)


def test_a_book_that_was_torn_is_gone_on_with(plan: Callable[..., Plan]) -> None:
    """As by a machine that went down in the middle of a line."""
    loop, events = quiet(plan())
    for cut in range(1, 200, 23):
        again, ground = plan(), Ground()
        crew = FakeCrew(ground, 4, curve)
        crew.dies_after(60)
        with pytest.raises(Died):
            again.drive(crew)
        path = again.folder / book.FILE
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-1]) + lines[-1][: -1 - cut % len(lines[-1])])
        assert decided(again.drive(FakeCrew(ground, 4, curve))) == decided(loop)
        assert told(again) == events


def population() -> Scheduler:
    return Exploiting()


class Exploiting(Scheduler):
    """Who is the worst of those that were heard so far takes over the weights of the best, every 16 steps."""

    def __init__(self) -> None:
        self._fresh: list[int] = []
        self._last: dict[int, float] = {}
        self._configs: dict[int, Config] = {}

    def added(self, trial: int, config: Config, length: int) -> None:
        self._fresh.append(trial)
        self._configs[trial] = config

    def gate(self, trial: int, step: int) -> int:
        return step + 16

    def reported(self, trial: int, step: int, value: float) -> tuple[Verdict | Exploit, str]:
        self._last[trial] = value
        best = min(self._last, key=lambda each: (self._last[each], each))
        if len(self._last) > 2 and value == max(self._last.values()) and best != trial:
            self._configs[trial] = {"lr": self._configs[best]["lr"] * 0.9}
            return Exploit(best, self._configs[trial]), f"takes over from {best}"
        return Verdict.CONTINUE, "good enough"

    def ended(self, trial: int, step: int, value: float | None) -> None:
        self._last.pop(trial, None)

    def choose(self) -> int | None:
        return self._fresh.pop(0) if self._fresh else None

    @property
    def rungs(self) -> dict[int, list[int]]:
        return {}


POPULATION = {"scheduler": population, "exploits": True, "rules": replace(RULES, trials=4)}


def test_populations_decide_the_same_whoever_is_fast_or_killed(plan: Callable[..., Plan]) -> None:
    first, ground = plan(**POPULATION), Ground()
    loop = first.drive(FakeCrew(ground, 4, curve))
    events = told(first)
    assert any(record.lineage for record in ground.runs.values())
    for seed in range(24):
        again, ground, draw = plan(**POPULATION), Ground(), random.Random(seed)
        for _ in range(draw.randint(0, 4)):
            late_s = draw.choice([0.0, 0.3, 9.0])  # others may be let go on from it before it is written
            workers = draw.randint(1, 5)
            crew = FakeCrew(ground, workers, curve, noise=0.9, seed=seed, saves_every=EVERY, late_s=late_s)
            crew.dies_after(draw.randint(0, 60))
            try:
                again.drive(crew)
                break
            except Died:
                pass
        other = again.drive(FakeCrew(ground, 3, curve, noise=0.9, seed=seed, late_s=draw.choice([0.0, 2.0])))
        assert told(again) == events
        assert decided(other) == decided(loop)


class Wandering(Exploiting):
    """Its gates are others than it would have said before."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._draw = random.Random(seed)

    def gate(self, trial: int, step: int) -> int:
        return step + self._draw.choice([12, 16, 20])


def test_gates_that_change_are_kept_for_others_as_well(plan: Callable[..., Plan]) -> None:
    for seed in range(6):
        scheduler = partial(Wandering, seed)
        mine, ground = plan(**{**POPULATION, "scheduler": scheduler}), Ground()
        loop = mine.drive(FakeCrew(ground, 4, curve, late_s=1.0))
        assert loop.over is not None
        assert loop.over.state == "finished"
        stood = [each for each in told(mine) if isinstance(each, Reported) and each.waits]
        for trial in loop.trials.values():
            record = ground.runs[name(trial.number)]
            steps = {each.step for each in stood if each.trial == trial.number}
            assert steps <= set(record.saved) or record.lineage


def lineages(ground: Ground) -> dict[str, list[tuple[str, int]]]:
    return {run: [(source, step) for source, step, _ in record.lineage] for run, record in ground.runs.items()}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_is_taken_over_is_there_and_stays_until_it_is_taken(plan: Callable[..., Plan], workers: int) -> None:
    """Whoever has little room begins when the source may have gone on with another's state itself."""
    first, ground = plan(**POPULATION), Ground()
    first.drive(FakeCrew(ground, 4, curve))
    for late_s in (0.1, 5.0):
        again, other = plan(**POPULATION), Ground()
        again.drive(FakeCrew(other, workers, curve, noise=0.9, late_s=late_s))
        assert told(again) == told(first)
        assert lineages(other) == lineages(ground)


@pytest.mark.parametrize("order", ["strict", "async"])
def test_what_fails_is_told_and_the_others_go_on(plan: Callable[..., Plan], order: str) -> None:
    faults: dict[str, Any] = {"fails": {2: (6, "UserCodeFailed"), 3: (13, "NonFiniteLoss")}, "breaks": {4: 1, 5: 2}}
    again, ground = plan(order=order), Ground()
    loop = again.drive(FakeCrew(ground, 4, curve, **faults))
    states = {trial.number: trial.state for trial in loop.trials.values()}
    assert (states[2], states[5]) in (("failed", "failed"), ("stopped", "failed"))  # or it never came as far
    assert states[3] == "stopped"
    assert loop.over is not None
    assert loop.over.state == "finished"
    assert any("the disk is on fire" in line for line in again.said)


def test_a_task_that_always_fails_ends_the_sweep_and_a_retry_goes_on_with_it(plan: Callable[..., Plan]) -> None:
    again, ground = plan(rules=replace(RULES, max_failures=2)), Ground()
    crew = FakeCrew(ground, 4, curve, fails=dict.fromkeys(range(1, 13), (7, "UserCodeFailed")))
    loop = again.drive(crew)
    assert loop.over is not None
    assert loop.over.state == "failed"
    assert control.failed(again.folder / book.FILE)
    append(again, *(Again(trial) for trial in control.failed(again.folder / book.FILE)))
    let_go_on(ground)
    other = again.drive(FakeCrew(ground, 3, curve))
    assert other.over is not None
    assert other.over.state == "finished"
    assert {trial.state for trial in other.trials.values()} <= {"finished", "stopped"}
    assert len(other.trials) == 12


def let_go_on(ground: Ground) -> None:
    """A run that was stopped can be gone on with."""
    for record in ground.runs.values():
        record.over = record.over if record.over == "finished" else ""


def append(plan: Plan, *events: Event) -> None:
    """Write something into the book of a sweep that nobody leads."""
    mine = book.Book(plan.folder / book.FILE, lambda: None)
    mine.begin("s", "key", "terms")
    for event in events:
        mine.append(event)
    mine.close()


def test_repeats_are_one_trial(plan: Callable[..., Plan]) -> None:
    ways: dict[str, Any] = {"repeats": 3, "rules": replace(RULES, trials=5)}
    loop, events = None, None
    for workers in (1, 2, 4, 15):
        again, ground = plan(**ways), Ground()
        other = again.drive(FakeCrew(ground, workers, curve, noise=0.5, seed=workers))
        assert set(ground.runs) == {name(n, r) for n in other.trials for r in (1, 2, 3)}
        loop, events = loop or other, events or told(again)
        assert decided(other) == decided(loop)
        assert told(again) == events


def test_a_sweep_that_was_left_goes_on_with_more_of_a_budget(plan: Callable[..., Plan]) -> None:
    small = replace(RULES, budget=Budget(worker_s=60.0))
    again, ground = plan(order="async", rules=small), Ground()
    loop = again.drive(FakeCrew(ground, 4, curve))
    assert loop.over is not None
    assert "worker-hours is spent" in loop.over.reason
    let_go_on(ground)
    again.rules = RULES
    other = again.drive(FakeCrew(ground, 4, curve))
    sound(other, ground, kills=1)
    assert len(other.trials) == 12


def test_the_last_trials_have_all_workers(plan: Callable[..., Plan]) -> None:
    again, ground = plan(order="async", most=8, scheduler=Plain, rules=replace(RULES, trials=5)), Ground()
    crew = FakeCrew(ground, 4, curve)
    again.drive(crew)
    steps = 5 * LENGTH
    assert crew.now < 1.2 * steps / 4 + 5.0


class Severe(Plain):
    """Ends whoever is not good enough at its first evaluation."""

    def gate(self, trial: int, step: int) -> int:
        return step + EVERY

    def reported(self, trial: int, step: int, value: float) -> tuple[Verdict | Exploit, str]:
        return (Verdict.STOP, "not good enough") if value > 1.0 else (Verdict.CONTINUE, "good enough")


def test_no_run_is_left_open(plan: Callable[..., Plan]) -> None:
    """Wherever the driver was killed between a word to stop and its end."""
    for moment in range(40):
        again, ground = plan(scheduler=Severe), Ground()
        crew = FakeCrew(ground, 4, curve, saves_every=EVERY)
        crew.dies_after(moment)
        with pytest.raises(Died):
            again.drive(crew)
        loop = again.drive(FakeCrew(ground, 3, curve))
        assert {trial.state for trial in loop.trials.values()} == {"finished", "stopped"}
        for trial in loop.trials.values():
            assert ground.runs[name(trial.number)].closed


@pytest.mark.parametrize("now", [False, True])
def test_one_that_is_stopped_goes_on_where_it_was(plan: Callable[..., Plan], now: bool) -> None:
    loop, events = quiet(plan())
    again, ground = plan(), Ground()
    again.asked = StopRequest("a@b", 0.0, now)
    crew = FakeCrew(ground, 4, curve)
    crew.at(20.0, again.stop.set)
    left = again.drive(crew)
    assert left.over == Over("stopped", "stopped by a@b")
    trains = [name(trial.number) for trial in left.trials.values() if trial.state == "running"]
    assert trains
    behind = [run for run in trains if ground.runs[run].saved[-1:] != [max(ground.runs[run].done, default=0)]]
    assert bool(behind) == now  # without a word they have no checkpoint of where they are
    again.stop.clear()
    again.asked = None
    other = again.drive(FakeCrew(ground, 2, curve))
    assert [event for event in told(again) if not isinstance(event, Halt)] == events
    assert decided(other) == decided(loop)


def test_workers_of_no_use_are_not_held(plan: Callable[..., Plan]) -> None:
    """Of trials with one worker each, the last three of five."""

    class Counted(FakeCrew):
        def want(self, workers: int) -> None:
            wanted.append((self.now, workers))
            super().want(workers)

    wanted: list[tuple[float, int]] = []
    again = plan(order="async", scheduler=Plain, rules=replace(RULES, trials=5), workers=4)
    again.drive(Counted(Ground(), 4, curve, noise=0.9))
    assert [workers for _, workers in wanted] == [4, 3, 2, 1]
    assert wanted[1][0] > LENGTH  # while there was a trial to be begun, all were


class Grid(Searcher):
    """Schedules that fall at different steps, of two rates."""

    def __init__(self) -> None:
        self._rest = [{"lr": lr, "every": every} for lr in (0.2, 0.6) for every in (12, 24, 40, 44, 100)]

    def suggest(self, trial: int) -> Config | None:
        return dict(self._rest.pop(0)) if self._rest else None

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        pass


def shape_of(settings: Mapping[str, Any]) -> Shape:
    return Shape("step", LENGTH, 0, (("every", settings["every"]), ("factor", 0.1)))


def computed(job: Job) -> Computed:
    return Computed(LENGTH, str(job.arguments["lr"]), shape_of(job.arguments))


def learnt(settings: Mapping[str, Any], step: int) -> Mapping[str, float]:
    """Hangs on every update's rate, as a state does."""
    shape = shape_of(settings)
    return {"loss": math.exp(-0.1 * settings["lr"] * sum(shape.factor(s) for s in range(step)))}


SHARED: dict[str, Any] = {"searcher": Grid, "rules": replace(RULES, trials=10, ahead=16)}


@pytest.mark.parametrize("scheduler", [Plain, asha])
def test_common_beginnings_are_run_once_and_nothing_else_changes(
    plan: Callable[..., Plan], scheduler: Callable[[], Scheduler]
) -> None:
    alone, ground = plan(**SHARED, scheduler=scheduler), Ground()
    loop = alone.drive(FakeCrew(ground, 4, learnt))
    every_step = sum(len(record.done) for record in ground.runs.values())
    for workers in (1, 2, 4, 6):
        again, ground = plan(**SHARED, scheduler=scheduler, course=computed), Ground()
        other = again.drive(FakeCrew(ground, workers, learnt, noise=0.5, seed=workers))
        assert told(again) == told(alone)
        assert decided(other) == decided(loop)
        done = sum(sum(record.done.values()) for record in ground.runs.values())
        assert done < 0.8 * every_step


@pytest.mark.parametrize("scheduler", [Plain, asha])
def test_common_beginnings_outlive_the_driver(plan: Callable[..., Plan], scheduler: Callable[[], Scheduler]) -> None:
    alone, ground = plan(**SHARED, scheduler=scheduler), Ground()
    loop = alone.drive(FakeCrew(ground, 4, learnt))
    for seed in range(8):
        again, ground, draw = plan(**SHARED, scheduler=scheduler, course=computed), Ground(), random.Random(seed)
        for _ in range(draw.randint(1, 4)):
            crew = FakeCrew(ground, draw.randint(1, 6), learnt, noise=0.5, seed=seed, saves_every=EVERY)
            crew.dies_after(draw.randint(0, 60))
            try:
                again.drive(crew)
                break
            except Died:
                pass
        other = again.drive(FakeCrew(ground, 3, learnt))
        assert told(again) == told(alone)
        assert decided(other) == decided(loop)


@pytest.mark.parametrize("seed", range(40))
def test_any_history(plan: Callable[..., Plan], seed: int) -> None:
    """Of async sweeps: random sizes, losses, kills and failures."""
    draw = random.Random(seed)
    rules = replace(RULES, trials=draw.randint(1, 10), max_failures=20)
    scheduler = draw.choice([asha, Plain, population])
    mine = plan(rules=rules, scheduler=scheduler, width=draw.randint(1, 6), order="async")
    mine.exploits, mine.most = scheduler is population, draw.choice([1, 4])
    mine.repeats = draw.choice([1, 1, 2]) if scheduler is not population else 1
    mine.rule = draw.choice(["best_first", "even", "by_price"])
    kinds = ["UserCodeFailed", "NonFiniteLoss"]
    failing = {draw.randint(1, 10): (draw.randint(1, LENGTH), draw.choice(kinds)) for _ in range(draw.randint(0, 3))}
    ground, kills = Ground(), draw.randint(0, 4)
    for start in range(kills + 1):
        crew = FakeCrew(ground, draw.randint(1, 8), curve, noise=0.9, fails=failing, seed=start, saves_every=EVERY)
        for _ in range(draw.randint(0, 3)):
            at = draw.uniform(0.0, 200.0)
            crew.at(at, lambda crew=crew: crew.lose(2))  # type: ignore[misc]
            crew.at(at + draw.uniform(1.0, 50.0), lambda crew=crew: crew.join(3))  # type: ignore[misc]
        if start < kills:
            crew.dies_after(draw.randint(0, 80))
        try:
            loop = mine.drive(crew)
        except Died:
            continue
        break
    assert loop.over is not None
    assert loop.over.state == "finished" or all(trial.state == "failed" for trial in loop.trials.values())
    assert len(loop.trials) == rules.trials
    for trial in loop.trials.values():
        for repeat in range(1, mine.repeats + 1):
            record = ground.runs.get(name(trial.number, repeat))
            assert record is None or record.settings == trial.config
            if trial.state == "finished":
                assert record is not None
                assert record.over == "finished"


def test_one_of_two_repeats_fails_while_the_other_stands(plan: Callable[..., Plan]) -> None:
    class Crew(FakeCrew):
        broke = False

        def _did(self, run: Any, step: int) -> None:
            if run.leg.run == name(1, 2) and step == EVERY and not self.broke:
                self.broke = True  # the other stands by then
                self.at(self.now + 5.0, lambda: self._fail(run, "HeadwayFault", "the disk is on fire"))
            else:
                super()._did(run, step)

    again, ground = plan(repeats=2, order="async", rules=replace(RULES, trials=3)), Ground()
    crew = Crew(ground, 4, curve)
    loop = again.drive(crew)
    assert crew.broke
    assert loop.over == Over("finished", "all trials are over")


@pytest.mark.parametrize("order", ["strict", "async"])
@pytest.mark.parametrize("course", [None, lambda job: Computed(LENGTH, str(job.arguments), Shape("constant", LENGTH))])
def test_settings_that_make_no_job_cost_their_trial_alone(
    plan: Callable[..., Plan], order: str, course: Callable[[Job], Computed] | None
) -> None:
    def way(config: Config) -> Way:
        if config["lr"] > 0.5:
            raise Unfit("trial is not a valid job", "the rate is too large")
        return Way(LENGTH, EVERY)

    rules = replace(RULES, way=way, max_failures=12)
    for moment in (10, 30, 1000):
        again, ground = plan(order=order, rules=rules, course=course), Ground()
        crew = FakeCrew(ground, 4, curve)
        crew.dies_after(moment)
        with suppress(Died):
            again.drive(crew)
        loop = again.drive(FakeCrew(ground, 4, curve))
        assert loop.over == Over("finished", "all trials are over")
        failed = {t.number for t in loop.trials.values() if t.state == "failed"}
        assert failed == {t.number for t in loop.trials.values() if t.config["lr"] > 0.5}
        assert failed
        assert set(ground.runs).isdisjoint(name(trial) for trial in failed)
        assert any("the rate is too large" in line for line in again.said)


@pytest.mark.parametrize("order", ["strict", "async"])
def test_who_reports_another_metric_than_the_others_fails_alone(plan: Callable[..., Plan], order: str) -> None:
    def other(settings: Mapping[str, Any], step: int) -> Mapping[str, float]:
        values = curve(settings, step)
        return {"other": 1.0} if settings["lr"] == config.get("lr") else values

    first = plan(order=order).drive(FakeCrew(Ground(), 4, curve))
    config = first.trials[2].config
    again, ground = plan(order=order), Ground()
    loop = again.drive(FakeCrew(ground, 4, other))
    assert loop.over == Over("finished", "all trials are over")
    failed = {t.number: t.reason for t in loop.trials.values() if t.state == "failed"}
    assert list(failed) == [2]
    assert failed[2] == f"it reports no loss at step {EVERY}: its evaluation has other"


@pytest.mark.parametrize("error", [OutOfReach("s3://x does not answer"), Led("run s.0003 is running")])
@pytest.mark.parametrize("order", ["strict", "async"])
def test_a_place_that_is_away_for_a_moment_costs_no_trial(
    plan: Callable[..., Plan], order: str, error: Exception
) -> None:
    refused: list[float] = []

    class Crew(FakeCrew):
        def begin(self, leg: Leg) -> None:
            if 10.0 < self.now < 40.0:
                refused.append(self.now)
                raise error
            super().begin(leg)

    again, ground = plan(order=order), Ground()
    loop = again.drive(Crew(ground, 4, curve))
    sound(loop, ground)
    assert loop.over == Over("finished", "all trials are over")
    assert "failed" not in {trial.state for trial in loop.trials.values()}
    assert 0 < len(refused) < 40  # they are not asked for all the time
    assert sum("is tried again" in line for line in again.said) == 1


def test_more_trials_leave_what_was_decided_as_it_was(plan: Callable[..., Plan]) -> None:
    again, ground = plan(order="async", rules=replace(RULES, trials=3)), Ground()
    before = again.drive(FakeCrew(ground, 4, curve))
    whole = [trial.number for trial in before.trials.values() if trial.state == "finished"]
    assert whole  # the best of three is let go its whole way at the end
    events = told(again)
    for _ in range(2):  # and once more with the same limits: nothing is said of them
        let_go_on(ground)
        again.rules = replace(RULES, trials=9)
        loop = again.drive(FakeCrew(ground, 4, curve))
        assert len(loop.trials) == 9
        assert loop.over == Over("finished", "all trials are over")
        assert [loop.trials[number].state for number in whole] == ["finished"] * len(whole)
        assert told(again)[: len(events)] == events
        assert sum(isinstance(event, Limits) for event in told(again)) == 1
    assert all(record.repeated == 0 for record in ground.runs.values())


@pytest.mark.parametrize(
    "limits", [{"patience": 1}, {"budget": Budget(steps=LENGTH)}, {"max_failures": 0}, {"trials": 2}]
)
def test_lower_limits_count_from_now_on(plan: Callable[..., Plan], limits: dict[str, Any]) -> None:
    again, ground = plan(order="async"), Ground()
    crew = FakeCrew(ground, 4, curve, fails={2: (3, "UserCodeFailed")})
    crew.at(100.0, again.stop.set)
    left = again.drive(crew)
    again.stop.clear()
    best = left.best and left.best.number
    again.rules = replace(RULES, **limits)
    loop = again.drive(FakeCrew(ground, 4, curve))
    assert loop.over is not None
    for number, trial in left.trials.items():
        assert loop.trials[number].step >= trial.step
    if "trials" not in limits:
        assert (loop.best and loop.best.number) == best
        assert loop.over.state == ("failed" if "max_failures" in limits else "finished")
    assert len(loop.trials) == len(left.trials)


def test_more_failures_are_allowed_later(plan: Callable[..., Plan]) -> None:
    again, ground = plan(order="async", rules=replace(RULES, max_failures=0)), Ground()
    assert again.drive(FakeCrew(ground, 4, curve, fails={2: (3, "UserCodeFailed")})).over is not None
    let_go_on(ground)
    again.rules = replace(RULES, max_failures=1)
    loop = again.drive(FakeCrew(ground, 4, curve))
    assert loop.over == Over("finished", "all trials are over")
    assert loop.trials[2].state == "failed"
    assert len(loop.trials) == 12


class Limited(Attentive):
    """As Tune's ConcurrencyLimiter: says nothing while so many of its trials are not over. And no more than that."""

    def __init__(self, most: int = 2) -> None:
        super().__init__()
        self._most, self._live = most, 0

    def suggest(self, trial: int) -> Config | None:
        if self._live >= self._most:
            self._memory.update(b"not now")
            raise NotNow
        self._live += 1
        return super().suggest(trial)

    def told(self, trial: int, step: int, value: float | None, final: bool) -> None:
        super().told(trial, step, value, final)
        self._live -= final


@pytest.mark.parametrize("course", [None, lambda job: Computed(LENGTH, str(job.arguments), Shape("constant", LENGTH))])
def test_a_searcher_that_says_nothing_now_is_asked_again(
    plan: Callable[..., Plan], course: Callable[[Job], Computed] | None
) -> None:
    ways: dict[str, Any] = {"order": "async", "searcher": Limited, "scheduler": Plain, "course": course}
    rules = replace(RULES, trials=6, ahead=1)
    first = plan(**ways, rules=rules).drive(FakeCrew(Ground(), 4, curve))
    assert first.over == Over("finished", "all trials are over")
    assert len(first.trials) == 6
    for moment in range(2, 60, 7):  # and the book tells which trials it was asked for
        again, ground = plan(**ways, rules=rules), Ground()
        crew = FakeCrew(ground, 4, curve, saves_every=EVERY)
        crew.dies_after(moment)
        with suppress(Died):
            again.drive(crew)
        loop = again.drive(FakeCrew(ground, 4, curve, saves_every=EVERY))
        assert loop.over == Over("finished", "all trials are over")
        assert len(loop.trials) == 6
        assert not any("would suggest" in line for line in again.said)


def test_one_that_says_nothing_while_nobody_trains_has_no_more(plan: Callable[..., Plan]) -> None:
    """Trials that are paused are not over, and never will be."""
    again, ground = plan(order="async", searcher=Limited, rules=replace(RULES, ahead=1)), Ground()
    loop = again.drive(FakeCrew(ground, 4, curve))
    assert loop.over == Over("finished", "the searcher has no more")
    assert len(loop.trials) >= 2
    assert any("not asked any longer" in line for line in again.said)
    other = again.drive(FakeCrew(ground, 4, curve))
    assert decided(other) == decided(loop)


def test_in_strict_order_nobody_waits_for_a_searcher_that_waits(plan: Callable[..., Plan]) -> None:
    with pytest.raises(SearcherFailed, match="waits for results"):
        plan(searcher=Limited).drive(FakeCrew(Ground(), 4, curve))
    with pytest.raises(SearcherFailed, match="suggests no trial"):
        plan(searcher=lambda: Limited(0), order="async").drive(FakeCrew(Ground(), 4, curve))
    loop = plan(searcher=lambda: Limited(4), scheduler=Plain).drive(FakeCrew(Ground(), 4, curve))
    assert len(loop.trials) == 12
