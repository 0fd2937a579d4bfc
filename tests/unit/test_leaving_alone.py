"""One worker whose loop is over where the others go on, to a step or to an evaluation: all leave at one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import STEPS, Undisturbed, job, rows
from tests.unit.test_updates import loss, models, optimizers

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.testing.elastic import Run, advance

ALL = {"min": 3, "max": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


def train(context: Context, several: bool, where: str) -> Any:
    """The second worker leaves after step 4, of an epoch's 4; where: what the others do then."""
    model = models()
    leaves = context.members.alone().names[0] == "w1"
    found = optimizers(model)
    whole: Any = model if several else model["critic"]
    moves: Any = found if several else found["critic"]
    session = Session(context, whole, moves, None)
    with session:
        for step in session.steps():
            for update in step.updates():
                for batch in step.lanes():
                    x = batch["x"].float()
                    step.backward(loss(session.model, batch, update) if several else session.model(x).mean())
            advance(session.step)
            if leaves and session.step == 4:
                break
            if where == "evaluation" and step.last_of_epoch:
                session.evaluate(score)
        if where == "own evaluation":
            session.evaluate(score)
    return session.step


def score(model: Any, batch: Any) -> dict[str, Any]:
    critic = model["critic"] if isinstance(model, torch.nn.ModuleDict) else model
    return {"score": critic(batch["x"].float()).mean()}


@pytest.mark.parametrize(
    ("several", "where", "reproducible"),
    [
        (False, "evaluation", "bitwise"),
        (False, "own evaluation", "order"),
        (True, "evaluation", "bitwise"),
        (True, "own evaluation", "bitwise"),
    ],
)
def test_all_leave(tmp_path: Path, data: Path, several: bool, where: str, reproducible: str) -> None:
    made = job(data, workers=ALL, reproducible=reproducible)
    with Run(tmp_path / "run", made, train, several, where) as run:
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    assert not outcome.of("lost")
    assert set(outcome.results.values()) == {4}
    assert len(outcome.results) == 3
    assert [s["step"] for s in outcome.steps] == list(range(4))


def test_all_that_leave_may_evaluate_afterwards(tmp_path: Path, data: Path) -> None:
    def all_leave(context: Context) -> Any:
        model = models()["critic"]
        with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None) as session:
            for step in session.steps():
                for batch in step.lanes():
                    step.backward(session.model(batch["x"].float()).mean())
                if session.step == 3:
                    break
            return session.evaluate(score), session.step

    found, step = Undisturbed(job(data), tmp_path, all_leave).result
    assert step == 3 < STEPS
    assert found["score"]
