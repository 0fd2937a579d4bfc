"""Metrics of training that are no means: of all rows of an epoch, to the bit, whoever carried them and was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.loops import Undisturbed, check, job, patient, raised, rows
from torch import nn

import headway
from headway.elastic.wire import keepers
from headway.elastic.worker import keeper
from headway.elastic.worker.context import Context
from headway.elastic.worker.loop import train_task
from headway.elastic.worker.session import Session
from headway.errors import BadInput
from headway.metrics import AUC, Confusion
from headway.metrics.merging import Measures
from headway.metrics.running import Running
from headway.runs import RunFolder
from headway.strategies import PeerLost
from headway.testing.elastic import Run, advance, keeper_of

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = {"min": 3}
"""Nobody begins before all are there, however long they take."""
SEEN: dict[int, list[tuple[list[float], list[int]]]] = {}
"""Scores and labels by epoch, of runs in this process."""


class Spread:
    """A user's own: a sum that is rounded, and so depends on the order; and the order itself."""

    def __init__(self) -> None:
        self.total = 0.0
        self.ids: list[int] = []

    def update(self, values: torch.Tensor, ids: torch.Tensor) -> None:
        self.total += float(values.double().exp().sum())
        self.ids += ids.tolist()

    def merge(self, other: Spread) -> None:
        self.total += other.total
        self.ids += other.ids  # in place

    def compute(self) -> dict[str, float]:
        weighed = sum(place * number for place, number in enumerate(self.ids))
        return {"total": self.total, "rows": len(self.ids), "order": weighed}


def train(
    context: Context, pace_s: float = 0.0, hook: Callable[..., None] | None = None, several: bool = False
) -> dict[str, Any]:
    """A loop of the user's own; with two optimisers it measures in the second one's pass. hook: as of test_updates."""
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    made = {name: torch.optim.SGD(each.parameters(), lr=0.05) for name, each in model.items()}
    optimizer: Any = made if several else torch.optim.SGD(model.parameters(), lr=0.05)
    measures = {"auc": AUC(), "confusion": Confusion(2), "spread": Spread()}
    session = Session(context, model, optimizer, None, measures=measures)
    if context.run == "calm":
        SEEN.clear()
    with session:
        for step in session.steps():
            for number, update in enumerate(step.updates()):
                for batch in step.lanes():
                    time.sleep(pace_s)
                    if hook is not None:
                        hook(context, session, number, "lane")
                    logits = model["head"](model["body"](batch["x"].float()))
                    if update != "body":
                        step.measure("auc", logits, batch["y"])
                        step.measure("confusion", predictions=logits.argmax(1), labels=batch["y"])
                        step.measure("spread", logits, ids=batch["id"])
                        if context.run == "calm" and step.in_lane:
                            scores = logits.detach().double()
                            seen = (scores[:, 1] - scores[:, 0]).tolist(), batch["y"].tolist()
                            SEEN.setdefault(step.epoch, []).append(seen)
                    step.backward(nn.functional.cross_entropy(logits, batch["y"]))
            advance(session.step)
    return {name: value.tolist() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = Undisturbed(job(data), tmp_path_factory.mktemp("calm"), train)
    torch.set_num_threads(threads)
    return found


NAMES = {"train/auc", "train/spread/total", "train/spread/rows", "train/spread/order"}


def test_they_are_of_all_rows_of_an_epoch(data: Path, tmp_path: Path) -> None:
    from sklearn.metrics import confusion_matrix, roc_auc_score  # seconds, and every worker imports this file

    found = Undisturbed(job(data), tmp_path, train)
    assert list(found.values) == [3, 7, 11], "the last step of each epoch"
    for epoch, values in enumerate(found.values.values()):
        assert set(values) == NAMES
        scores, labels = (np.concatenate([each[which] for each in SEEN[epoch]]) for which in (0, 1))
        assert values["train/spread/rows"] == len(labels) == 64
        assert values["train/auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        table = found.tables[4 * epoch + 3]["train/confusion"]
        assert table == confusion_matrix(labels, scores > 0).tolist()


def test_they_come_as_often_as_evaluations(data: Path, tmp_path: Path) -> None:
    found = Undisturbed(job(data, evaluate_every_steps=5), tmp_path, train)
    assert {step: values["train/spread/rows"] for step, values in found.values.items()} == {4: 80, 9: 80, 11: 32}


def test_a_batch_in_parts_is_measured_whole(data: Path, tmp_path: Path, calm: Undisturbed) -> None:
    found = Undisturbed(job(data, accumulate=2), tmp_path, train)
    for step, values in found.values.items():
        assert values["train/spread/order"] == calm.values[step]["train/spread/order"]


def test_three_workers_and_one_that_is_killed(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    with Run(tmp_path / "run", job(data, workers=ALL), train, 0.01) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 2)
        run.kill(run.members[0])  # a step's middle; another comes in its place
        outcome = run.result()
    check(outcome, calm)
    assert [m["tables"] for m in outcome.evaluations] == list(calm.tables.values())


def test_a_worker_joins_in_the_middle_of_an_epoch(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    with Run(tmp_path / "run", job(data), train, places=1, hold=1) as run:
        run.join(2)
        outcome = run.result()
    check(outcome, calm)


def test_all_are_lost_and_go_on_from_a_checkpoint(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    """Of step 5, which is the second of an epoch."""
    with Run(tmp_path / "run", job(data), train, 0.03) as run:
        run.wait_until(lambda: run.step >= 7)
        for worker in list(run.members):
            run.kill(worker)
        outcome = run.result()
    check(outcome, calm)


def test_they_go_on_from_a_kept_state(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    made = job(data, checkpoint={"every_steps": 1000, "memory_every": 1})
    try:
        with Run(tmp_path / "run", made, train, 0.03, machines=one_machine, setup=patient, hold=6) as run:
            run.wait_until(lambda: run.step >= 6)
            for worker in list(run.processes):
                run.kill(worker)
            run.release()
            outcome = run.result()
        check(outcome, calm)
        assert [event for event in RunFolder(run.folder).events() if event["kind"] == "restart" and event.get("kept")]
    finally:  # no keeper outlives its test
        config = keeper_of(tmp_path / "run")
        for path in keeper.folder().glob(f"{config['run'][:16]}-*.sock"):
            keepers.end(str(path), config["token"])


def behind(context: Context, session: Session, number: int, where: str) -> None:
    """The second worker does not get what the others have, in the pass of step 5 that measures."""
    pact = session.engine.pact
    if (session.step, number, context.members.alone().names[0]) != (5, 1, "w1"):
        return
    whole = pact.agree

    def broken(value: Any) -> Any:
        whole(value)
        raise PeerLost("scripted")

    vars(pact)["agree"] = broken


def test_one_is_behind_in_a_pass(tmp_path: Path, data: Path) -> None:
    wanted = Undisturbed(job(data), tmp_path / "calm", lambda context: train(context, several=True))
    assert [wanted.values[step]["train/spread/rows"] for step in (3, 7, 11)] == [64, 64, 64]
    with Run(tmp_path / "run", job(data, workers=ALL), train, 0.005, behind, True) as run:
        outcome = run.result()
    check(outcome, wanted)
    assert "scripted" in {e["reason"] for e in outcome.of("lost")}


def one_machine(worker: str) -> str:
    return "m0"


def closed(context: Context, pace_s: float = 0.0) -> dict[str, Any]:
    """Its optimiser evaluates the loss again and again."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    session = Session(context, model, optimizer, None, measures={"spread": Spread()})

    with session:
        for step in session.steps():

            def loss(batch: Any, of: Any = step) -> torch.Tensor:
                time.sleep(pace_s)
                made = model(batch["x"].float())
                of.measure("spread", made, batch["id"])
                return (made[:, 0] - batch["y"]).square().mean()

            step.minimize(loss)
            advance(session.step)
    return {name: value.tolist() for name, value in model.state_dict().items()}


def test_of_a_closure_it_is_the_first_evaluation_that_counts(tmp_path: Path, data: Path) -> None:
    wanted = Undisturbed(job(data), tmp_path / "calm", closed)
    assert [values["train/spread/rows"] for values in wanted.values.values()] == [64, 64, 64]
    with Run(tmp_path / "run", job(data, workers=ALL), closed, 0.01) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 2)
        run.kill(run.members[0])
        outcome = run.result()
    check(outcome, wanted)


class Classes(headway.Task):
    """Measures in its loss, which its metrics call as well."""

    def model(self) -> nn.Module:
        return nn.Linear(4, 2)

    def optimizer(self, model: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05)

    def loss(self, model: Any, batch: Any) -> torch.Tensor:
        logits = model(batch["x"].float())
        self.measure("auc", logits, batch["y"])
        return nn.functional.cross_entropy(logits, batch["y"])

    def measures(self) -> dict[str, Any]:
        return {"auc": AUC()}

    def metrics(self, model: Any, batch: Any) -> dict[str, Any]:
        return {"loss": self.loss(model, batch), "auc": (model(batch["x"].float()), batch["y"])}


def test_a_task_measures_in_its_loss(data: Path, tmp_path: Path) -> None:
    found = Undisturbed(job(data), tmp_path, lambda context: train_task(Classes(), context.job))
    assert all("train/auc" in found.values[step] for step in (3, 7, 11))
    assert all({"loss", "auc"} <= found.values[step].keys() for step in (4, 8, 12))
    task = Classes()
    loss = task.loss(task.model(), {"x": torch.ones(2, 4), "y": torch.tensor([0, 1])})
    assert loss.isfinite(), "nothing is measured anywhere else"


def misnamed(context: Context) -> None:
    model = nn.Linear(4, 2)
    session = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None, measures={"auc": AUC()})
    with session:
        for step in session.steps():
            for batch in step.lanes():
                step.measure("acu", model(batch["x"].float()), batch["y"])


def outside(context: Context) -> None:
    model = nn.Linear(4, 2)
    session = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None, measures={"auc": AUC()})
    with session:
        for step in session.steps():
            step.measure("auc", torch.ones(1), torch.ones(1))


def test_what_is_wrong_is_named(data: Path, tmp_path: Path) -> None:
    error = raised(data, tmp_path / "a", misnamed)
    assert error.fact == "step.measure() was given the name 'acu'"
    assert "auc" in error.remedy
    assert "outside the loop over step.lanes()" in raised(data, tmp_path / "b", outside).fact


def test_what_is_too_much_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.metrics.running.EVERY", 2)
    monkeypatch.setattr("headway.metrics.merging.MOST_BYTES", 60)
    measures = Measures({"auc": AUC()})
    running = Running(measures)

    def states() -> list[Any]:
        lane: dict[str, Any] = {}
        measures.take(lane, "auc", torch.tensor([0.5, 0.25, 0.75, 0.5]), torch.tensor([0, 1, 1, 0]))
        return [measures.states(lane)]

    for _ in range(3):
        running.add(states())
    with pytest.raises(BadInput, match="auc"):
        running.add(states())
