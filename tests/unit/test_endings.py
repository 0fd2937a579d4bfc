"""A loop that ends by itself: a break or a stop, by all workers alike or by one alone, ends the run at one step."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import Undisturbed, job, rows
from tests.unit.test_updates import loss as loss_of_update
from tests.unit.test_updates import models, names, optimizers
from torch import nn

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.testing.elastic import Outcome, Run, advance

END = 6
ALL = {"min": 3}
"""Nobody begins before all are there, however long they take."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


def leaves(context: Context, how: str, who: str, pace_s: float = 0.0, several: bool = False) -> dict[str, Any]:
    """A loop that ends after END steps.

    Args:
        how: break, stop (after the lanes), lane (a stop in them) or return.
        who: the worker that does so; empty: all.
        pace_s: so long a lane takes at least.
        several: it has two optimisers.
    """
    torch.manual_seed(0)
    model: Any = models() if several else nn.Linear(4, 1)
    session = Session(
        context, model, optimizers(model) if several else torch.optim.SGD(model.parameters(), lr=0.01), None
    )
    mine = who in ("", context.members.alone().names[0])
    turns = 0

    def found() -> dict[str, Any]:
        weights = {key: value.tolist() for key, value in session.model.state_dict().items()}
        return {"step": session.step, "weights": weights, "turns": turns}

    def lane(step: Any, batch: Any, update: str) -> None:
        time.sleep(pace_s)
        if how == "lane" and mine and step.number == END - 1:
            session.stop()
        x = batch["x"].float()
        step.backward(loss_of_update(session.model, batch, update) if several else session.model(x).square().mean())

    with session:
        for step in session.steps():
            for update in step.updates(names if several else None):
                for batch in step.lanes():
                    lane(step, batch, update)
            advance(session.step)
            turns += 1
            session.record({"turn": float(session.step)})
            if mine and session.step == END:
                if how == "stop":
                    session.stop("it is good enough")
                if how == "break":
                    break
                if how == "return":
                    return found()
    return found()


def check(outcome: Outcome, wanted: dict[str, Any]) -> None:
    assert outcome.failure is None, outcome.failure
    assert [s["step"] for s in outcome.steps] == list(range(END))
    assert outcome.facts["steps"] == END
    assert len(outcome.results) > 1
    for result in outcome.results.values():
        assert result["turns"] in (END, END + 1), "one that was told of it in its next step goes round for nothing"
        assert {**result, "turns": 0} == {**wanted, "turns": 0}


@pytest.mark.parametrize(
    ("how", "who", "several"),
    [
        ("break", "", False),
        ("break", "w1", False),
        ("stop", "w1", False),
        ("lane", "w1", False),
        ("stop", "", True),
        ("break", "w1", True),
    ],
)
def test_all_leave_at_one_step(tmp_path: Path, data: Path, how: str, who: str, several: bool) -> None:
    calm = Undisturbed(job(data), tmp_path / "calm", lambda context: leaves(context, how, "", several=several))
    assert calm.result["step"] == calm.result["turns"] == END
    assert len(calm.steps) == END
    with Run(tmp_path / "run", job(data, workers=ALL), leaves, how, who, 0.005, several) as run:
        outcome = run.result()
    check(outcome, calm.result)
    if who == "":
        assert {result["turns"] for result in outcome.results.values()} == {END}


def test_a_return_ends_it_as_well(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data, workers=ALL), leaves, "return", "w0", 0.005) as run:
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    assert outcome.facts["steps"] == END


def test_one_is_lost_while_all_leave(tmp_path: Path, data: Path) -> None:
    calm = Undisturbed(job(data), tmp_path / "calm", lambda context: leaves(context, "break", ""))
    with Run(tmp_path / "run", job(data, workers=ALL), leaves, "break", "w1", 0.05) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= END)
        run.resize(1, 3)
        run.places(-1)
        run.kill("w2")
        outcome = run.result()
    check(outcome, calm.result)
