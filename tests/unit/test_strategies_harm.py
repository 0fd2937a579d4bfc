"""Whole elastic runs in which something breaks at a chosen place: between what replicas exchange and what they make of
it, in the middle of a round, or while members change."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_elastic_run import data as data
from tests.unit.test_strategies_run import KINDS, LANES, STEPS, Calm, Net, done, job, same, train
from tests.unit.test_strategies_run import calm as calm

from headway.elastic.worker.context import Context
from headway.elastic.worker.evaluation import Evaluation
from headway.elastic.worker.pact import Pact
from headway.elastic.worker.session import Session
from headway.hooks import EMA, Average
from headway.strategies import PeerLost
from headway.strategies.parameter_server.ranged import Ranged
from headway.strategies.parameter_server.server import Server
from headway.testing import elastic
from headway.testing.elastic import Outcome, Run, advance

LOCAL = ["local_sgd", "diloco in int8", "diloco in fragments", "gossip on a graph"]
STEPWISE = ["int8", "power_sgd", "parameter_server"]


def worker(context: Context) -> str:
    return str(context.journal._worker)


def foremost() -> int:
    """Steps that the foremost worker has committed."""
    return int(elastic._shared[0].value)  # type: ignore[index]


def unheard(whole: type, verb: str, on: Callable[[Any], bool], heard: bool = False) -> None:
    """What an exchange came to is not heard here: once, as soon as on(self). heard: the other one has gone on by it."""
    found, left = getattr(whole, verb), [1]

    def once(self: Any, *arguments: Any, **named: Any) -> Any:
        before = foremost()
        value = found(self, *arguments, **named)
        if left and on(self):
            left.clear()
            deadline = time.monotonic() + 20
            while heard and foremost() == before and time.monotonic() < deadline:
                time.sleep(0.005)
            raise PeerLost("not heard")
        return value

    setattr(whole, verb, once)


# What was exchanged is applied by all but one


def deaf(context: Context, pace_s: float, verb: str) -> dict[str, Any]:
    if worker(context) == "w1":
        at = [0]

        def on(_: Any) -> bool:
            at[0] += 1
            return at[0] == 2

        unheard(Ranged if verb == "update" else Pact, verb, on, heard=True)
    return train(context, pace_s)


@pytest.mark.parametrize("kind", LOCAL)
def test_who_does_not_hear_that_a_round_counts_is_where_the_others_are(
    kind: str, tmp_path: Path, data: Path, calm: Calm
) -> None:
    with Run(tmp_path / "run", job(data, kind, 2), deaf, 0.0, "seal") as run:
        outcome = done(run)
    assert len(outcome.of("generation")) > 1
    same(outcome, calm(kind), kind)


@pytest.mark.parametrize("kind", STEPWISE)
def test_who_does_not_hear_that_a_step_counts_keeps_what_is_its_own(
    kind: str, tmp_path: Path, data: Path, calm: Calm
) -> None:
    verb = "update" if kind == "parameter_server" else "sum"
    with Run(tmp_path / "run", job(data, kind, 2), deaf, 0.0, verb) as run:
        outcome = done(run)
    assert len(outcome.of("generation")) > 1
    same(outcome, calm(kind), kind)


# Runs that are stopped


@pytest.mark.parametrize("kind", ["gossip", "diloco in fragments", "local_sgd"])
def test_a_run_that_was_interrupted_goes_on_with_each_replicas_own(
    kind: str, tmp_path: Path, data: Path, calm: Calm
) -> None:
    with Run(tmp_path / "run", job(data, kind, 2), train, 0.01, hold=5) as run:
        run.wait_until(lambda: run.step >= 5)
        run.request_stop()
        run.wait_until(lambda: run.stop_told)
        run.release()
        stopped = done(run)
    assert 4 < len(stopped.steps) < STEPS
    with Run(tmp_path / "run", job(data, kind, 3), train, 0.0) as run:
        same(done(run), calm(kind), kind)


# Servers


@pytest.mark.parametrize("kind", ["ssp", "backup workers"])
def test_replicas_do_not_wait_for_one_another_when_a_range_is_lost(kind: str, tmp_path: Path, data: Path) -> None:
    strategy = {**KINDS[kind], "replicas": 4, "fail_over": False}
    with Run(tmp_path / "run", job(data, kind, 2, strategy=strategy), train, 0.02) as run:
        run.wait_until(lambda: run.step >= 9)
        run.kill("w1")
        outcome = done(run, 60)
    assert [line["step"] for line in outcome.steps] == list(range(STEPS))


def half_settled(context: Context, pace_s: float) -> dict[str, Any]:
    """The second generation breaks while ranges change hands."""
    if worker(context) != "w1":
        generations = [0]

        def on(_: Any) -> bool:
            generations[0] += 1
            return generations[0] == 2

        unheard(Server, "start", on)
    return train(context, pace_s)


@pytest.mark.parametrize("kind", ["asp", "backup workers"])
def test_a_range_is_not_lost_where_a_change_of_members_breaks_off(
    kind: str, tmp_path: Path, data: Path, calm: Calm
) -> None:
    with Run(tmp_path / "run", job(data, kind, 3), half_settled, 0.02, hold=9) as run:
        run.wait_until(lambda: run.step >= 7)
        run.kill("w1")
        run.release()
        outcome = done(run)
    assert len(outcome.of("generation")) > 2
    same(outcome, calm(kind), kind)
    assert all(found["versions"] for found in outcome.results.values())
    assert not [note for note in outcome.of("note") if "is lost" in note["text"]]


# In the middle of a round


class Watch:
    """State of the user's own, which every step moves."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = [int(step) for step in state["steps"]]


def watched(context: Context, pace_s: float = 0.0, plateau: bool = False, stop_at: int = -1) -> dict[str, Any]:
    """A loop with averaged weights, a state of its own, a metric of training and a rate that goes by evaluations; the
    first worker is slow, so that the others are ahead of it in a round."""
    torch.set_num_threads(1)
    model, watch = Net(), Watch()
    made = torch.optim.AdamW(model.parameters(), lr=2**-6)

    def schedule(o: Any, steps: int) -> Any:
        if plateau:
            return torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=1e9)
        return torch.optim.lr_scheduler.CosineAnnealingLR(o, steps)

    measures = {"rows": Rows()}
    session = Session(context, model, made, schedule, hooks=[EMA(0.9)], measures=measures)
    session.register("watch", watch)
    slow = worker(context) == "w0"
    rates, evaluated = [], []
    with session:
        for step in session.steps():
            for batch in step.lanes():
                time.sleep(pace_s * (3 if slow else 1))
                step.measure("rows", batch["id"])
                step.backward(model(batch["x"].float()))
            watch.steps.append(step.number)
            session.record({"doubled": 2 * step.loss})
            rates.append(made.param_groups[0]["lr"])
            advance(session.step)
            if session.step % 4 == 0:
                evaluated.append(session.evaluate(lambda m, b: {"value": m(b["x"].float())}))
            if session.step == stop_at:
                session.stop("enough")
    return {
        "weights": {name: value.clone().numpy() for name, value in model.state_dict().items()},
        "average": {n: v.clone().numpy() for n, v in average_of(session).items()},
        "steps": watch.steps,
        "evaluated": evaluated,
        "versions": {},
    }


class Rows:
    """Counts them."""

    def __init__(self) -> None:
        self.rows = 0

    def update(self, ids: torch.Tensor) -> None:
        self.rows += len(ids)

    def merge(self, other: Rows) -> None:
        self.rows += other.rows

    def compute(self) -> int:
        return self.rows


def average_of(session: Session) -> dict[str, torch.Tensor]:
    hook = next(each for each in session.replica._registered.values() if isinstance(each, Average))
    return hook.average


def alike(outcome: Outcome, calm: Outcome) -> None:
    """To the bit, in all that a loop has."""
    same(outcome, calm)
    wanted = next(iter(calm.results.values()))
    for found in outcome.results.values():
        assert found["steps"] == wanted["steps"]
        assert all((found["average"][name] == value).all() for name, value in wanted["average"].items())


@pytest.mark.parametrize("plateau", [False, True])
def test_who_joins_in_the_middle_of_a_round_has_what_the_loop_has_there(
    plateau: bool, tmp_path: Path, data: Path
) -> None:
    rounds: dict[str, Any] = {"strategy": {"kind": "local_sgd", "every": 10, "replicas": 4}}
    rounds |= {"schedule": {"metric": "value"}} if plateau else {}
    with Run(tmp_path / "calm", job(data, "local_sgd", 1, **rounds), watched, 0.0, plateau) as run:
        calm = done(run)
    assert all(each["steps"] == list(range(STEPS)) for each in calm.results.values())
    with Run(tmp_path / "run", job(data, "local_sgd", 3, **rounds), watched, 0.01, plateau, places=2, hold=7) as run:
        run.join(1)
        outcome = done(run)
    assert len(outcome.of("generation")[-1]["members"]) == 3
    alike(outcome, calm)
    measured = [each["values"]["train/rows"] for each in calm.evaluations if "train/rows" in each["values"]]
    assert sum(measured) == LANES * 2 * STEPS


def half_heard(context: Context, pace_s: float) -> dict[str, Any]:
    """An evaluation in the middle of a round is over for all but one."""
    if worker(context) == "w1":
        unheard(Evaluation, "means", lambda _: True)
    return watched(context, pace_s)


def test_who_does_not_hear_the_end_of_an_evaluation_goes_on_where_it_was(tmp_path: Path, data: Path) -> None:
    rounds: dict[str, Any] = {"strategy": {"kind": "diloco", "every": 10, "replicas": 4}}
    with Run(tmp_path / "calm", job(data, "diloco", 1, **rounds), watched) as run:
        calm = done(run)
    with Run(tmp_path / "run", job(data, "diloco", 2, **rounds), half_heard, 0.0) as run:
        outcome = done(run)
    assert len(outcome.of("generation")) > 1
    alike(outcome, calm)


def leaves(context: Context, pace_s: float) -> dict[str, Any]:
    """One worker's loop is over in the middle of a round; the others are at an evaluation."""
    model = Net()
    session = Session(context, model, torch.optim.AdamW(model.parameters(), lr=2**-6), None)
    with session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"].float()))
            if worker(context) == "w1" and session.step == 7:
                break
            if session.step % 4 == 0:
                session.evaluate(lambda m, b: {"value": m(b["x"].float())})
    return {"step": session.step, "weights": {}}


def test_all_leave_at_a_rounds_beginning(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data, "diloco", 2), leaves, 0.0) as run:
        outcome = done(run, 40)
    assert {found["step"] for found in outcome.results.values()} == {5}
    assert [line["step"] for line in outcome.steps] == list(range(5))


def asks(context: Context, way: str) -> dict[str, Any]:
    """A loop that saves at a round's end, or comes to its end in the middle of one."""
    model = Net()
    session = Session(context, model, torch.optim.AdamW(model.parameters(), lr=2**-6), None)
    with session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"].float()))
            if way == "saves" and session.step == 5:
                session.save("asked for")
            if way == "finishes" and session.step == 8:
                session.engine.finish("good enough")
            advance(session.step)
    weights = {name: value.clone().numpy() for name, value in model.state_dict().items()}
    return {"step": session.step, "weights": weights, "versions": {}}


def test_a_run_that_is_finished_in_the_middle_of_a_round_goes_on_to_its_end(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data, "diloco", 2), asks, "finishes") as run:
        outcome = done(run)
    assert {found["step"] for found in outcome.results.values()} == {10}
    assert [line["step"] for line in outcome.steps] == list(range(10))


def test_a_checkpoint_that_the_loop_asks_for_has_replicas_own_state(tmp_path: Path, data: Path) -> None:
    never = {"checkpoint": {"every_steps": 1000}}
    with Run(tmp_path / "calm", job(data, "diloco", 1), asks, "saves") as run:
        calm = done(run)
    with Run(tmp_path / "run", job(data, "diloco", 2, **never), asks, "saves", hold=12) as run:
        run.wait_until(lambda: bool(list((tmp_path / "run" / "checkpoints").rglob("*manifest*"))))
        for each in list(run.members):
            run.kill(each)
        run.release()
        outcome = done(run)
    same(outcome, calm)


def stands(context: Context, pace_s: float) -> dict[str, Any]:
    return asks(context, "")


def test_all_are_asked_to_leave_at_a_gate_in_the_middle_of_a_round(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "calm", job(data, "diloco", 1), stands, 0.0) as run:
        calm = done(run)
    with Run(tmp_path / "run", job(data, "diloco", 2), stands, 0.0, until=7) as run:
        run.wait_until(lambda: run.stands(7))
        run.coordinator.leave("paused")
        stopped = done(run)
    assert {found["step"] for found in stopped.results.values()} == {5}
    with Run(tmp_path / "run", job(data, "diloco", 3), stands, 0.0) as run:
        same(done(run), calm)


# What cannot be done by replicas


class Counting(torch.optim.SGD):
    """Keeps a count in its groups."""

    def step(self, closure: Any = None) -> Any:
        self.param_groups[0]["k"] = self.param_groups[0].get("k", 0) + 1
        return super().step(closure)


def refused(context: Context, way: str) -> dict[str, Any]:
    model = Net()
    kept = list(model.last.parameters()) if way == "added" else []
    made = Counting if way == "counts" else torch.optim.SGD
    optimizer = made([p for p in model.parameters() if all(p is not each for each in kept)], lr=2**-6)
    session = Session(context, model, optimizer, None)
    with session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"].float()))
            if way == "added" and session.step == 2:
                optimizer.add_param_group({"params": kept})
    return {}


@pytest.mark.parametrize(("way", "words"), [("counts", "k of the optimiser's groups"), ("added", "add_param_group")])
def test_what_all_replicas_would_share_is_refused(way: str, words: str, tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data, "diloco", 1), refused, way) as run:
        failure = run.result(60).failure
    assert failure is not None
    assert words in failure
