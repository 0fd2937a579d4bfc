"""A lane's batch in parts, one after the other: the same update, and the same bits on any number of workers. And
clipping of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import Undisturbed, check, job, raised, rows
from torch import nn

import headway
from headway.elastic.worker.context import Context
from headway.elastic.worker.loop import train_task
from headway.elastic.worker.session import Session
from headway.errors import BadInput
from headway.testing.elastic import Run, advance


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


def train(context: Context, pace_s: float = 0.0, noise: float = 0.0) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 8), "b": nn.Linear(8, 1), "odd": nn.Linear(4, 1)})
    session = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5), None)
    sizes = set()
    with session:
        for step in session.steps():
            for batch in step.lanes():
                x = batch["x"].float()
                sizes.add(len(x))
                found = model["b"](nn.functional.dropout(model["a"](x).tanh(), noise)).square().mean()
                if batch["id"][0] % 3 == 0:  # in some parts only
                    found = found + model["odd"](x).mean() * 1e-3
                step.record("mean", x.mean())
                step.backward(found)
            advance(session.step)
    weights = {key: value.tolist() for key, value in model.state_dict().items()}
    return {"weights": weights, "sizes": sorted(sizes), "step": session.step}


@pytest.mark.parametrize("reproducible", ["order", "bitwise"])
def test_parts_add_up_to_the_whole(data: Path, tmp_path: Path, reproducible: str) -> None:
    def run(accumulate: int) -> Undisturbed:
        made = job(data, accumulate=accumulate, reproducible=reproducible, steps=1)
        return Undisturbed(made, tmp_path / str(accumulate), lambda context: plain(context))

    def plain(context: Context) -> Any:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.5), None) as session:
            for step in session.steps():
                for batch in step.lanes():
                    step.record("mean", batch["x"].mean())
                    step.backward(model(batch["x"].float()).square().mean())
        return model.state_dict()

    whole, parts = run(1), run(4)
    torch.testing.assert_close(parts.result, whole.result)
    assert parts.steps[0]["loss"] == pytest.approx(whole.steps[0]["loss"], rel=1e-6)
    assert parts.steps[0]["samples"] == whole.steps[0]["samples"]
    assert parts.values[0]["mean"] == pytest.approx(whole.values[0]["mean"], rel=1e-6)


def test_parts_on_workers_that_come_and_go_give_the_same_bits(data: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = job(data, accumulate=2)
    calm = Undisturbed(made, tmp_path / "calm", lambda context: train(context, noise=0.3))
    torch.set_num_threads(threads)
    assert calm.result["sizes"] == [2]
    with Run(tmp_path / "run", made, train, 0.0, 0.3, places=2) as run:
        run.wait_until(lambda: run.step >= 2)
        run.kill(run.members[-1])
        outcome = run.result()
    check(outcome, calm)


def test_a_number_that_does_not_divide_is_refused(data: Path) -> None:
    with pytest.raises(BadInput, match="accumulate=3 does not divide lane_batch=4"):
        job(data, accumulate=3)


def test_clipping_of_ones_own(data: Path, tmp_path: Path) -> None:
    """It sees the gradients of all lanes, and the job's clip_norm takes its place."""
    seen: list[float] = []

    class Clipped(headway.Task):
        def model(self) -> nn.Module:
            return nn.Linear(4, 1, bias=False)

        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=1.0)

        def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            found: torch.Tensor = model(batch["x"].float()).mean() * 100
            return found

        def clip(self, parameters: list[nn.Parameter]) -> None:
            assert all(p.grad is not None for p in parameters)
            seen.append(float(parameters[0].grad.abs().max()))  # type: ignore[union-attr]
            nn.utils.clip_grad_value_(parameters, 1e-3)

    def weights(**fields: Any) -> torch.Tensor:
        made = job(data, steps=1, **fields)
        kept: list[torch.Tensor] = []

        def call(context: Context) -> None:
            task = Clipped()
            model = task.model()
            nn.init.zeros_(model.weight)  # type: ignore[arg-type]
            vars(task)["model"] = lambda: model
            train_task(task, made)
            kept.append(model.weight.detach().clone())  # type: ignore[operator, union-attr]

        Undisturbed(made, tmp_path / str(len(fields)), call)
        return kept[0]

    assert float(weights().abs().max()) == pytest.approx(1e-3)
    assert seen[0] > 1e-3
    assert float(weights(clip_norm=0.5).norm()) == pytest.approx(0.5)
    assert len(seen) == 1


def test_a_gradient_of_ones_own_between_parts_is_seen(data: Path, tmp_path: Path) -> None:
    def meddles(context: Context) -> None:
        model = nn.Linear(4, 1)
        with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None) as session:
            for step in session.steps():
                for batch in step.lanes():
                    step.backward(model(batch["x"].float()).mean())
                    model(batch["x"].float()).mean().backward()

    assert "gradients were changed" in raised(data, tmp_path, meddles, accumulate=2).fact
