"""A survivor that was behind, and is given the state of those ahead, whose hooks and loops have changed it since."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import Undisturbed, check, job, rows
from tests.unit.test_updates import loss, models, names, optimizers, schedules
from torch import nn

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.hooks import EMA, Hook
from headway.strategies import PeerLost
from headway.testing.elastic import Run, advance


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return rows(tmp_path_factory.mktemp("data"))


@torch.no_grad()
def disturb(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=1e-3)


class Noise(Hook):
    """Twice is not once."""

    def on_step_end(self, session: Any, step: Any) -> None:
        disturb(session.model)

    def on_evaluate(self, session: Any, metrics: dict[str, float]) -> None:
        disturb(session.model)


def train(context: Context, several: bool, lose: tuple[int, int] | None = None) -> dict[str, Any]:
    """lose: step and pass whose sums the second worker does not get, though the others do."""
    model = models()
    hooks = [Noise(), EMA(0.5, evaluate=True)]
    found: Any = optimizers(model)
    if several:
        session = Session(context, model, found, schedules, hooks=hooks)
    else:
        session = Session(context, model["critic"], found["critic"], None, hooks=hooks)
    with session:
        for step in session.steps():
            for number, update in enumerate(step.updates(names if several else None)):
                for batch in step.lanes():
                    if lose == (session.step, number) and context.members.alone().names[0] == "w1":
                        _lose(session)
                    x = batch["x"].float()
                    step.backward(loss(session.model, batch, update) if several else session.model(x).mean())
            advance(session.step)
            if session.step % 2 == 0:
                session.evaluate(score)
            disturb(session.model)
    return {key: value.tolist() for key, value in session.model.state_dict().items()}


def score(model: Any, batch: Any) -> dict[str, Any]:
    critic = model["critic"] if isinstance(model, nn.ModuleDict) else model
    return {"score": critic(batch["x"].float()).mean()}


def _lose(session: Session) -> None:
    pact = session.engine.pact
    whole = pact.sum

    def lose(tail: torch.Tensor) -> Any:
        whole(tail)
        time.sleep(0.3)  # until the others most probably have received all
        raise PeerLost("scripted")

    pact.sum = lose  # type: ignore[method-assign]


@pytest.mark.parametrize(("several", "lose"), [(False, (3, 0)), (False, (4, 0)), (True, (5, 1))])
def test_it_is_as_they_are(tmp_path: Path, data: Path, several: bool, lose: tuple[int, int]) -> None:
    calm = Undisturbed(job(data), tmp_path / "calm", lambda context: train(context, several))
    with Run(tmp_path / "run", job(data, workers={"min": 3}), train, several, lose) as run:
        outcome = run.result()
    check(outcome, calm)
    assert "scripted" in {e["reason"] for e in outcome.of("lost")}
