"""Optimisers that evaluate the loss themselves: LBFGS, alone and on workers that come and go, to the bit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import Undisturbed, check, job, raised, rows
from torch import nn

import headway
from headway.elastic.worker import closures
from headway.elastic.worker.context import Context
from headway.elastic.worker.loop import train_task
from headway.elastic.worker.session import Session
from headway.errors import BadInput
from headway.job import Job
from headway.strategies import PeerLost
from headway.testing.elastic import Run, advance


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


def small(data: Path, **fields: Any) -> Job:
    return job(data, **{"steps": 12, **fields})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.1), nn.Linear(6, 1))


def lbfgs(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=3, line_search_fn="strong_wolfe")


def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    x = batch["x"].float()
    return (model(x).squeeze(1) - x.sin().sum(1)).square().mean()


def train(
    context: Context, pace_s: float = 0.0, lose: tuple[int, int] | None = None, hang_at: int = -1
) -> dict[str, Any]:
    """lose: (step, evaluation) whose sums the second worker does not get, though the others do; hang_at: the step in
    which its loss does not return."""
    model = network()
    session = Session(context, model, lbfgs(model), None)

    def of(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        time.sleep(pace_s)
        while session.step == hang_at and context.members.alone().names[0] == "w1":
            time.sleep(0.1)
        return loss(model, batch)

    pact = type(session.engine.pact)
    whole, counted, sums = pact.sum, [-1, 0], [0]

    def lossy(self: Any, tail: torch.Tensor) -> Any:
        found = whole(self, tail)
        if counted[0] != session.step:
            counted[:] = [session.step, 0]
        counted[1] += 1
        sums[0] += 1
        if lose == (session.step, counted[1] - 1) and context.members.alone().names[0] == "w1":
            pact.sum = whole  # type: ignore[method-assign]
            time.sleep(0.3)  # until the others most probably have received all
            raise PeerLost("scripted")
        return found

    if lose is not None:
        pact.sum = lossy  # type: ignore[method-assign]
    with session:
        for step in session.steps():
            step.minimize(of)
            advance(session.step)
            if step.last_of_epoch:
                session.evaluate(lambda m, b: {"error": loss(m, b)})
    state = session.optimizer.state_dict()["state"][0]
    assert state["func_evals"] > session.step, "it evaluates more than once a step"
    return {
        "weights": {key: value.tolist() for key, value in model.state_dict().items()},
        "directions": [each.tolist() for each in state["old_dirs"]],
        "evaluations": state["func_evals"],
        "step": session.step,
    }


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Undisturbed(small(data), tmp_path_factory.mktemp("calm"), train)
    torch.set_num_threads(threads)


def test_it_does_what_plain_pytorch_does(data: Path, tmp_path: Path) -> None:
    """One lane, without noise: against a loop by hand."""
    batches: dict[int, Any] = {}

    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))

    def own(context: Context) -> Any:
        model, losses = build(), []
        with Session(context, model, lbfgs(model), None) as session:
            for step in session.steps():

                def of(batch: Any, number: int = step.number) -> torch.Tensor:
                    batches[number] = batch
                    return loss(model, batch)

                step.minimize(of)
                losses.append(step.loss)
        return model.state_dict(), losses

    found, losses = Undisturbed(small(data, lanes=1, lane_batch=16, workers={"max": 1}), tmp_path, own).result
    plain = build()
    optimizer, by_hand = lbfgs(plain), []
    for batch in batches.values():

        def closure(batch: Any = batch) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(plain, batch)
            value.backward()
            return value

        by_hand.append(float(optimizer.step(closure).detach()))  # type: ignore[arg-type]
    torch.testing.assert_close(found, plain.state_dict(), rtol=1e-4, atol=1e-5)
    assert losses == pytest.approx(by_hand, rel=1e-4)


def test_three_workers_and_one_that_is_killed(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    with Run(tmp_path / "run", small(data, workers={"min": 3}), train, 0.003) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 2)
        run.resize(1, 3)
        run.places(-1)  # nobody takes its place
        run.kill(run.members[1])
        outcome = run.result()
    check(outcome, calm)


def test_a_worker_joins(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    with Run(tmp_path / "run", small(data), train, places=1, hold=1) as run:
        run.join()
        outcome = run.result()
    check(outcome, calm)
    assert len(outcome.results) == 2


@pytest.mark.parametrize("evaluation", [0, 1])
def test_a_loss_in_the_middle_puts_the_steps_beginning_back(
    tmp_path: Path, data: Path, calm: Undisturbed, evaluation: int
) -> None:
    with Run(tmp_path / "run", small(data, workers={"min": 3}), train, 0.001, (5, evaluation)) as run:
        outcome = run.result()
    check(outcome, calm)
    assert "scripted" in {e["reason"] for e in outcome.of("lost")}


def test_a_loss_that_does_not_return_is_a_hang_and_named(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    made = small(data, workers={"silence_s": 1.0, "hang_s": 3.0})
    with Run(tmp_path / "run", made, train, 0.0, None, 4) as run:
        outcome = run.result()
    check(outcome, calm)
    assert "hung" in {e["cause"] for e in outcome.of("recovery") if "w1" in e["workers"]}


class Fit(headway.Task):
    def model(self) -> nn.Module:
        return network()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return lbfgs(model)

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return loss(model, batch)


def test_a_task_with_such_an_optimiser_needs_nothing_else(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    made = small(data)
    found = Undisturbed(made, tmp_path, lambda context: train_task(Fit(), made))
    assert found.steps == calm.steps


def _loop(body: Any) -> Any:
    def own(context: Context) -> None:
        model = network()
        with Session(context, model, lbfgs(model), None) as session:
            for step in session.steps():
                body(step, model)

    return own


def test_what_is_given_to_it_returns_a_loss(data: Path, tmp_path: Path) -> None:
    found = raised(data, tmp_path, _loop(lambda step, model: step.minimize(lambda batch: None)))
    assert "the loss is a NoneType" in found.fact


def test_a_backward_of_ones_own_in_it_is_refused(data: Path, tmp_path: Path) -> None:
    def own(model: nn.Module, batch: Any) -> torch.Tensor:
        value = loss(model, batch)
        value.backward(retain_graph=True)
        return value

    found = raised(data, tmp_path, _loop(lambda step, model: step.minimize(lambda batch: own(model, batch))))
    assert "gradients were changed" in found.fact


def test_a_backward_outside_of_lanes_is_refused(data: Path, tmp_path: Path) -> None:
    found = raised(data, tmp_path, _loop(lambda step, model: step.backward(torch.zeros((), requires_grad=True))))
    assert "outside the loop over step.lanes()" in found.fact


def test_one_that_evaluates_is_not_used_as_one_that_does_not(data: Path, tmp_path: Path) -> None:
    def body(step: Any, model: nn.Module) -> None:
        for batch in step.lanes():
            step.backward(loss(model, batch))

    assert "minimize" in raised(data, tmp_path, _loop(body)).remedy


def test_one_that_evaluates_without_end(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closures, "MOST", 2)
    found = raised(data, tmp_path, _loop(lambda step, model: step.minimize(lambda batch: loss(model, batch))))
    assert "evaluated the loss 2 times in step 0" in found.fact


def test_what_does_not_go_with_it(data: Path, tmp_path: Path) -> None:
    for fields in ({"clip_norm": 1.0}, {"precision": "fp16"}):
        with pytest.raises(BadInput, match="with LBFGS"):
            Undisturbed(small(data, **fields), tmp_path, train)

    def clips(context: Context) -> None:
        model = network()
        Session(context, model, lbfgs(model), None, clip=lambda parameters: None)

    with pytest.raises(BadInput, match=r"clip\(\) with LBFGS"):
        Undisturbed(small(data), tmp_path, clips)


def test_what_is_recorded_is_of_the_evaluation_that_the_step_begins_with(data: Path, tmp_path: Path) -> None:
    """As step.loss is, whether its name is new or known."""

    def records(context: Context) -> None:
        model = network()
        with Session(context, model, lbfgs(model), None) as session:
            for step in session.steps():

                def of(batch: dict[str, torch.Tensor], step: Any = step) -> torch.Tensor:
                    found = loss(model, batch)
                    step.record("mine", found.detach())
                    return found

                step.minimize(of)

    found = Undisturbed(small(data), tmp_path, records)
    for step in found.steps:
        assert found.values[step["step"]]["mine"] == pytest.approx(step["loss"], rel=1e-5)
