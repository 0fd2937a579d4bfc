"""Hooks and early stopping: called once a step on every worker alike, and kept as the weights are, whoever is lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_elastic_run import Exact

from headway.checkpoint.store import Store
from headway.core.ledger import Ledger
from headway.core.stopping import Course, Rule, judged, over
from headway.data.read.streams import open_readers
from headway.elastic.worker.context import Context
from headway.elastic.worker.engine import now
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.errors import BadInput
from headway.hooks import EMA, SWA, Average, EarlyStopping, Hook, averaged, named
from headway.job import Job, parse
from headway.testing.elastic import DIGEST, Outcome, Run, advance

LANES = 4
STEPS = 24

pytestmark = pytest.mark.usefixtures("one_thread")


# -- the rule --------------------------------------------------------------------------------------------------------


def course(rule: Rule, values: list[float]) -> list[Course]:
    found = [Course()]
    for number, value in enumerate(values):
        found.append(judged(rule, found[-1], 10 * number, value))
    return found[1:]


def test_it_waits_for_an_improvement() -> None:
    rule = Rule("loss", 2)
    found = course(rule, [3.0, 2.0, 2.0, 1.9, 1.9, 1.95])
    assert [c.waited for c in found] == [0, 0, 1, 0, 1, 2]
    assert [bool(over(rule, c)) for c in found] == [False] * 5 + [True]
    assert over(rule, found[-1]) == ("loss has not improved in the last 2 evaluations: its best is 1.9, of step 30")


def test_more_may_be_better_and_a_small_gain_none() -> None:
    rule = Rule("auc", 1, "max", 0.01)
    assert [c.waited for c in course(rule, [0.5, 0.505, 0.52])] == [0, 1, 0]
    assert "by more than 0.01 in the last evaluation" in over(rule, Course(0.5, 0, 1))


def test_what_is_no_number_is_no_improvement() -> None:
    nan = float("nan")
    rule = Rule("loss", 2)
    assert [c.waited for c in course(rule, [nan, nan])] == [1, 2]
    assert over(rule, course(rule, [nan, nan])[-1]) == "loss was no number in the last 2 evaluations"
    assert course(rule, [nan, 1.0])[-1] == Course(1.0, 10, 0)


@given(st.lists(st.floats(-5, 5), min_size=1), st.integers(1, 5), st.sampled_from(["min", "max"]))
def test_the_best_is_the_best(values: list[float], patience: int, mode: str) -> None:
    last = course(Rule("m", patience, mode), values)[-1]
    best = min(values) if mode == "min" else max(values)
    assert last.best == best
    assert last.best_step == 10 * values.index(best)
    assert last.waited == len(values) - 1 - values.index(best)


# -- at the door -----------------------------------------------------------------------------------------------------


class Idle(Hook):
    pass


class Half(Hook):
    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EarlyStopping(patience=0), "EarlyStopping(patience=0)"),
        (lambda: EarlyStopping(patience=2.5), "EarlyStopping(patience=2.5)"),  # type: ignore[arg-type]
        (lambda: EarlyStopping(mode="mix"), "min"),
        (lambda: EarlyStopping(min_delta=-1), "EarlyStopping(min_delta=-1)"),
        (lambda: EMA(1.0), "EMA(decay=1.0)"),
        (lambda: EMA(every=0), "EMA(every=0)"),
        (lambda: SWA(0), "SWA(start=0)"),
        (lambda: named([Idle]), "Write Idle(...)"),
        (lambda: named([3]), "hooks has a int"),
        (lambda: named(Idle()), "hooks() returned a Idle"),  # type: ignore[arg-type]
        (lambda: named([Half()]), "Half has state_dict() and no load_state_dict()"),
    ],
)
def test_what_is_none_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        make()
    assert said in str(caught.value)
    assert caught.value.remedy


def test_hooks_of_one_class_have_names_of_their_own() -> None:
    assert list(named([EMA(0.9), Idle(), EMA(0.99)])) == ["EMA", "Idle", "EMA.2"]


def tree(folder: Path, **fields: Any) -> dict[str, Any]:
    workers = {"min": 1, "max": 3, "silence_s": 10.0, "hang_s": 60.0, **fields.pop("workers", {})}
    base = {
        "name": "n", "task": "t.py:T",
        "data": {"train": str(folder / "train"), "validation": str(folder / "val")},
        "lanes": LANES, "lane_batch": 4, "steps": STEPS, "seed": 3,
        "checkpoint": {"every_steps": 7}, "replica_check_every": 5, "workers": workers,
    }  # fmt: skip
    return {**base, **fields}


def test_the_jobs_stop_is_checked_at_the_door(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"stop\.patience"):
        parse(tree(tmp_path, stop={"patience": 0}))
    with pytest.raises(BadInput, match=r"data\.validation is not given"):
        parse(tree(tmp_path, stop={}, data={"train": "t"}))
    with pytest.raises(BadInput, match="patience"):
        parse(tree(tmp_path, stop={"patient": 3}))
    made = parse(tree(tmp_path, stop={"metric": "auc", "mode": "max"}))
    assert made.stop is not None
    assert (made.stop.metric, made.stop.patience, made.stop.mode, made.stop.min_delta) == ("auc", 3, "max", 0.0)


# -- in a run --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows: 4 full steps per epoch."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


class Diary(Hook):
    """Writes down every call, with the weights that there were."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.saves: list[int] = []

    def on_step_end(self, session: Session, step: Any) -> None:
        assert step.number + 1 == session.step
        self._note("step", session)

    def on_epoch_end(self, session: Session) -> None:
        self._note("epoch", session)

    def on_evaluate(self, session: Session, metrics: dict[str, float]) -> None:
        assert metrics == session.metrics
        self._note(f"evaluate {metrics['value']!r}", session)

    def on_save(self, session: Session) -> None:
        self.saves.append(session.step)

    def _note(self, what: str, session: Session) -> None:
        weight = session.model.weight.sum().item()  # type: ignore[union-attr,operator]
        self.calls.append(f"{what} {session.step} {session.epoch} {weight!r}")

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = list(state["calls"])


def train(context: Context, pace_s: float = 0.0, evaluate: bool = False, every: int = 4) -> dict[str, Any]:
    """Trains with all kinds of hooks. evaluate: the averaged weights."""
    model, diary = Exact(), Diary()
    ema, swa = EMA(0.75, buffers=True, evaluate=evaluate), SWA(10, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=2**-6, momentum=0.5)
    training = Session(context, model, optimizer, None, hooks=[diary, ema, swa])
    with training:
        for step in training.steps():
            for batch in step.lanes():
                time.sleep(pace_s)
                step.backward(model(batch["x"]))
            advance(training.step)
            if training.step % every == 0:
                training.evaluate(lambda m, b: {"value": m(b["x"])})
    return {
        "calls": diary.calls,
        "ema": {name: value.tolist() for name, value in ema.average.items()},
        "swa": {name: value.tolist() for name, value in swa.average.items()},
        "updates": [ema.updates, swa.updates],
        "weight": model.weight.tolist(),
        "step": training.step,
    }


def calm(job: Job, folder: Path, *arguments: Any, body: Callable[..., Any] = train) -> dict[str, Any]:
    """What comes of it in this process, with one worker."""

    class Unheard:
        stop_requested, leads = False, True

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: True

    training, validation = open_readers(job)
    unheard: Any = Unheard()
    context = Context(
        job=job, device="cpu", train=training, validation=validation,
        saver=Saver(Store(folder, DIGEST, job.checkpoint), job.checkpoint, unheard),
        journal=unheard, run="calm", members=Alone(LANES), ledger=Ledger(now()),
    )  # fmt: skip
    try:
        found: dict[str, Any] = body(context, *arguments)
        context.saver.finish()
    finally:
        context.saver.close()
        context.close()
    return found


def disturbed(job: Job, folder: Path, *arguments: Any, body: Callable[..., Any] = train) -> Outcome:
    """With a worker that is killed where all stand, after five steps, and one that joins in its place."""
    all_there = job.model_copy(update={"workers": job.workers.model_copy(update={"min": 3})})
    with Run(folder, all_there, body, *arguments, hold=5) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 5)
        run.resize(1, 3)
        victim = run.members[0]
        run.kill(victim)
        run.release()
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    assert victim not in outcome.results
    return outcome


def test_hooks_are_called_once_a_step_in_order(tmp_path: Path, data: Path) -> None:
    found = calm(parse(tree(data)), tmp_path / "c")
    kinds = [call.split()[0] for call in found["calls"]]
    assert kinds == ["step", "step", "step", "step", "evaluate", "epoch"] * 6
    steps = [int(call.split()[1]) for call in found["calls"] if call.startswith("step")]
    assert steps == list(range(1, STEPS + 1))


def test_hooks_live_through_a_loss_and_a_join(tmp_path: Path, data: Path) -> None:
    made = parse(tree(data))
    wanted = calm(made, tmp_path / "c")
    outcome = disturbed(made, tmp_path / "run", 0.01)
    assert outcome.results
    for worker, found in outcome.results.items():
        assert found == wanted, worker
    kept = Store(tmp_path / "run/checkpoints", DIGEST, made.checkpoint).committed()[-1].load()["session"]
    assert kept["state"]["hook.Diary"]["calls"] == wanted["calls"]
    average = averaged(kept)
    assert average is not None
    assert average["weight"].tolist() == wanted["ema"]["weight"]


def test_hooks_live_through_the_loss_of_all(tmp_path: Path, data: Path) -> None:
    made = parse(tree(data))
    wanted = calm(made, tmp_path / "c")
    with Run(tmp_path / "run", made, train, 0.02) as run:
        run.wait_until(lambda: run.step >= 12)
        for worker in list(run.processes):
            run.kill(worker)
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    assert all(found == wanted for found in outcome.results.values())


def test_on_save_is_told_to_whoever_writes(tmp_path: Path, data: Path) -> None:
    diary = Diary()

    def body(context: Context) -> dict[str, Any]:
        model = Exact()
        training = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None, hooks=[diary])
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    step.backward(model(batch["x"]))
                context.saver._wait(lambda: None)  # none is left out for another that is being written
        return {}

    calm(parse(tree(data)), tmp_path / "c", body=body)
    assert diary.saves == [7, 14, 21, 24]


def test_averages_are_torchs(tmp_path: Path, data: Path) -> None:
    """Of the weights after each step, as torch's own AveragedModel has them."""
    from torch.optim import swa_utils

    class Theirs(Hook):
        def __init__(self, model: torch.nn.Module) -> None:
            self.ema = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.75))
            self.swa = swa_utils.AveragedModel(model)

        def on_step_end(self, session: Session, step: Any) -> None:
            self.ema.update_parameters(session.model)
            if session.step >= 10 and (session.step - 10) % 3 == 0:
                self.swa.update_parameters(session.model)

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            pass

    theirs: list[Theirs] = []

    def body(context: Context) -> dict[str, Any]:
        model = Exact()
        theirs.append(Theirs(model))
        ema, swa = EMA(0.75), SWA(10, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=2**-6)
        training = Session(context, model, optimizer, None, hooks=[ema, swa, theirs[0]])
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    step.backward(model(batch["x"]))
        return {"ema": ema.average["weight"], "swa": swa.average["weight"]}

    found = calm(parse(tree(data)), tmp_path / "c", body=body)
    assert found["ema"].equal(theirs[0].ema.module.weight)
    assert found["swa"].equal(theirs[0].swa.module.weight)
    assert not found["ema"].equal(found["swa"])


def test_an_evaluation_may_measure_the_average(tmp_path: Path, data: Path) -> None:
    """And the training does not notice, on one worker as on several."""
    made = parse(tree(data))
    plain, averages = (calm(made, tmp_path / str(which), 0.0, which) for which in (False, True))
    assert plain["weight"] == averages["weight"]
    assert plain["ema"] == averages["ema"]
    assert [c for c in plain["calls"] if c.startswith("step")] == [c for c in averages["calls"] if c.startswith("step")]
    assert plain["calls"] != averages["calls"]
    outcome = disturbed(made, tmp_path / "run", 0.01, True)
    assert all(found == averages for found in outcome.results.values())


def test_averages_ride_in_the_digest_of_the_replica() -> None:
    """An average that an accident changed is found, and healed, as weights are."""
    from headway.elastic.worker.replica import Replica

    model, ema = torch.nn.Linear(2, 1), EMA(0.5)
    replica = Replica(model, torch.optim.SGD(model.parameters(), lr=0.1), None, "fp32")
    replica.register("hook.EMA", ema)
    ema._take(model)
    before = replica.words().tolist()
    ema.average["weight"][0, 0] += 1
    assert replica.words().tolist() != before


class Counting(Hook):
    """Has a state, and says nothing of it."""

    def __init__(self) -> None:
        self.count = 0
        self.seen: list[int] = []
        self.file = object()

    def on_step_end(self, session: Session, step: Any) -> None:
        self.count += 1
        self.seen.append(step.number)


def count(context: Context, hook: Hook) -> dict[str, Any]:
    model = Exact()
    training = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None, hooks=[hook])
    with training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"]))
    return {}


def test_a_hook_that_hides_a_state_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BadInput, match=r"Counting changed its count, seen and has no state_dict"):
        calm(parse(tree(data)), tmp_path / "c", Counting(), body=count)
    calm(parse(tree(data)), tmp_path / "d", Idle(), body=count)


class Ticking(Hook):
    """Goes by its worker's own clock."""

    def __init__(self) -> None:
        self.at = 0.0

    def on_step_end(self, session: Session, step: Any) -> None:
        self.at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


def tick(context: Context) -> dict[str, Any]:
    return count(context, Ticking())


def test_a_hook_that_goes_by_its_own_clock_is_refused(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", parse(tree(data, workers={"min": 2, "max": 2})), tick) as run:
        outcome = run.result()
    assert outcome.failure is not None
    assert "the state of the hook Ticking is another on worker" in outcome.failure


# -- early stopping --------------------------------------------------------------------------------------------------

VALUES = [5.0, 4.0, 4.5, 3.0, 3.5, 3.25, 3.125, 1.0]
"""Of evaluations; every second step there is one."""


def stopped(context: Context, pace_s: float = 0.0, metric: str = "value") -> dict[str, Any]:
    """A run whose metric goes its own way."""
    model = Exact()
    training = Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None)
    found = {}
    with training:
        for step in training.steps():
            for batch in step.lanes():
                time.sleep(pace_s)
                step.backward(model(batch["x"]))
            advance(training.step)
            if training.step % 2 == 0:
                value = VALUES[training.step // 2 - 1]
                found = training.evaluate(lambda m, b, value=value: {metric: value})  # type: ignore[misc]
    return {"step": training.step, "weight": model.weight.tolist(), "metrics": found,
            "why": training.replica.outcome.finished}  # fmt: skip


def test_it_stops_at_the_same_step_on_one_worker_and_on_three(tmp_path: Path, data: Path) -> None:
    made = parse(tree(data, stop={"metric": "value", "patience": 3}))
    alone = calm(made, tmp_path / "c", body=stopped)
    assert alone["step"] == 14, "3.0 at step 8 is the best; three more evaluations"
    assert alone["why"] == "value has not improved in the last 3 evaluations: its best is 3, of step 8"
    outcome = disturbed(made, tmp_path / "run", 0.01, body=stopped)
    assert all(found == alone for found in outcome.results.values())
    assert len(outcome.steps) == 14


def test_a_resumed_run_goes_on_counting(tmp_path: Path, data: Path) -> None:
    """All are lost between two evaluations, after the best."""
    made = parse(tree(data, stop={"metric": "value", "patience": 3}, checkpoint={"every_steps": 5}))
    with Run(tmp_path / "run", made, stopped, 0.02) as run:
        run.wait_until(lambda: run.step >= 11)
        for worker in list(run.processes):
            run.kill(worker)
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    assert {found["step"] for found in outcome.results.values()} == {14}


def test_a_run_that_was_over_is_over_when_it_is_resumed(tmp_path: Path, data: Path) -> None:
    """It ended before that was recorded, say. With another rule, or length, it trains on."""
    made = parse(tree(data, stop={"metric": "value", "patience": 3}))
    calm(made, tmp_path / "c", body=stopped)
    assert calm(made, tmp_path / "c", body=stopped)["step"] == 14
    longer = made.model_copy(update={"steps": 16})
    patient = made.model_copy(update={"steps": 16, "stop": made.stop.model_copy(update={"patience": 9})})  # type: ignore[union-attr]
    shutil.copytree(tmp_path / "c", tmp_path / "d")
    assert calm(longer, tmp_path / "c", body=stopped)["step"] == 16
    assert calm(patient, tmp_path / "d", body=stopped)["step"] == 16


def test_a_metric_that_nobody_reports_is_named(tmp_path: Path, data: Path) -> None:
    made = parse(tree(data, stop={"metric": "valu"}))
    with pytest.raises(BadInput) as caught:
        calm(made, tmp_path / "c", body=stopped)
    assert "stop.metric=valu" in str(caught.value)
    assert "value" in caught.value.remedy


def test_all_ready_hooks_keep_their_state_alike() -> None:
    """What one gives, another of its kind takes."""
    for make in (lambda: EMA(0.5), lambda: SWA(1), lambda: EarlyStopping(patience=2)):
        one, other = make(), make()
        if isinstance(one, Average):
            one._take(torch.nn.Linear(2, 1))
        else:
            one.course = Course(1.0, 3, 1)
        other.load_state_dict(one.state_dict())
        assert str(other.state_dict()) == str(one.state_dict())
