"""Several optimisers that take turns in a step: a GAN, alone and on workers that come and go, to the bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import STEPS, Undisturbed, check, job, raised, rows
from torch import nn

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.errors import BadInput
from headway.strategies import PeerLost
from headway.testing.elastic import Run, advance

ALL = {"min": 3}
"""Nobody begins before all are there, however long they take."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


def names(step: Any) -> list[str]:
    """The critic learns in every step, twice; the generator in every second one."""
    return ["critic", "critic"] if step.number % 2 else ["critic", "critic", "generator"]


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "critic": nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(8, 1)),
        "generator": nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)),
    }


def optimizers(model: Any) -> dict[str, torch.optim.Optimizer]:
    return {
        "critic": torch.optim.RMSprop(model["critic"].parameters(), lr=1e-3),
        "generator": torch.optim.Adam(model["generator"].parameters(), lr=1e-3),
    }


def schedules(found: dict[str, torch.optim.Optimizer], steps: int) -> dict[str, Any]:
    return {"generator": torch.optim.lr_scheduler.StepLR(found["generator"], 3, 0.5)}


def loss(model: Any, batch: dict[str, torch.Tensor], update: str) -> torch.Tensor:
    made = model["generator"](torch.randn(len(batch["x"]), 2))
    if update == "critic":
        return model["critic"](made).mean() - model["critic"](batch["x"].float()).mean()
    return -model["critic"](made).mean()


Hook = Callable[[Context, Session, int, str], None]


def train(context: Context, pace_s: float = 0.0, hook: Hook | None = None, of: Any = names) -> dict[str, Any]:
    """A loop of the user's own. hook: called as hook(context, session, pass, where), to do harm."""
    model = models()
    session = Session(context, model, optimizers(model), schedules)
    with session:
        for step in session.steps():
            for number, update in enumerate(step.updates(of)):
                weight = 1 + 0.1 * torch.rand(())  # drawn before the lanes: the same on all workers
                for batch in step.lanes():
                    time.sleep(pace_s)
                    if hook is not None:
                        hook(context, session, number, "lane")
                    step.record(f"of/{update}", batch["x"].double().mean())
                    step.backward(loss(session.model, batch, update) * weight)
            advance(session.step)
            if step.last_of_epoch:
                session.evaluate(lambda m, b: {"score": m["critic"](b["x"].float()).mean()})
    found = {
        f"{name}/{key}": value.tolist() for name, each in model.items() for key, value in each.state_dict().items()
    }
    rates = {name: each.param_groups[0]["lr"] for name, each in session.optimizers.items()}
    return {"weights": found, "rates": rates, "step": session.step, "frozen": [
        name for name, p in session.model.named_parameters() if not p.requires_grad
    ]}  # fmt: skip


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Undisturbed(job(data), tmp_path_factory.mktemp("calm"), train)
    torch.set_num_threads(threads)


def test_a_step_of_several_updates_is_what_plain_pytorch_does(data: Path, tmp_path: Path) -> None:
    """One lane, without noise: against a loop by hand."""

    def quiet(model: Any, batch: Any, update: str) -> torch.Tensor:
        x = batch["x"].float()
        made = model["generator"](x[:, :2])
        score: torch.Tensor = model["critic"](made).mean()
        return score - model["critic"](x).mean() if update == "critic" else -score

    def build() -> dict[str, nn.Module]:
        made = models()
        made["critic"][2].p = 0.0  # type: ignore[index]
        return made

    batches: list[Any] = []

    def own(context: Context) -> Any:
        model = build()
        with Session(context, model, optimizers(model), schedules) as session:
            for step in session.steps():
                for update in step.updates(names):
                    for batch in step.lanes():
                        batches.append((step.number, update, batch))
                        step.backward(quiet(session.model, batch, update))
        return model

    made = job(data, lanes=1, lane_batch=16, workers={"max": 1})
    found = Undisturbed(made, tmp_path, own).result
    plain = build()
    steppers = optimizers(plain)
    (schedule,) = schedules(steppers, STEPS).values()
    for place, (number, update, batch) in enumerate(batches):
        for each in steppers.values():
            each.zero_grad()
        quiet(plain, batch, update).backward()
        steppers[update].step()
        if place + 1 == len(batches) or batches[place + 1][0] != number:
            schedule.step()
    for name, each in plain.items():
        for key, value in each.state_dict().items():
            torch.testing.assert_close(found[name].state_dict()[key], value)


def test_each_update_moves_its_own_parameters_alone(data: Path, tmp_path: Path) -> None:
    def critic_only(context: Context) -> Any:
        return train(context, of=["critic"])

    before = {key: value.tolist() for key, value in models()["generator"].state_dict().items()}
    found = Undisturbed(job(data), tmp_path, critic_only).result
    trained = {key: found["weights"][f"generator/{key}"] for key in before if "running" not in key and "num" not in key}
    assert trained == {key: before[key] for key in trained}
    assert found["weights"]["critic/0.weight"] != models()["critic"].state_dict()["0.weight"].tolist()
    assert found["frozen"] == []
    assert found["rates"]["generator"] < 1e-3, "a schedule follows the step, whoever updates in it"


def test_losses_are_recorded_by_update(calm: Undisturbed) -> None:
    assert {"loss/critic", "loss/generator", "of/critic", "of/generator"} <= calm.values[2].keys()
    assert "loss/generator" not in calm.values[3]
    assert calm.steps[2]["loss"] == pytest.approx(calm.values[2]["loss/generator"])


def test_three_workers_and_one_that_is_killed(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    with Run(tmp_path / "run", job(data, workers=ALL), train, 0.01) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 3)
        run.resize(1, 3)
        run.places(-1)  # nobody takes its place
        run.kill(run.members[1])
        outcome = run.result()
    check(outcome, calm)


def test_a_worker_joins(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    with Run(tmp_path / "run", job(data), train, places=1, hold=2) as run:
        run.join()
        outcome = run.result()
    check(outcome, calm)
    assert len(outcome.results) == 2


def lose_in(which: int) -> Hook:
    """The second worker does not get what the others have, in a pass of step 4."""
    return {0: _lose_0, 1: _lose_1, 2: _lose_2}[which]


def _lose(context: Context, session: Session, number: int, where: str, which: int) -> None:
    if (session.step, number, context.members.alone().names[0]) != (4, which, "w1"):
        return
    pact = session.engine.pact
    whole = pact.sum

    def lose(tail: torch.Tensor) -> Any:
        whole(tail)
        time.sleep(0.3)  # until the others most probably have received all
        raise PeerLost("scripted")

    pact.sum = lose  # type: ignore[method-assign]


def _lose_0(*arguments: Any) -> None:
    _lose(*arguments, which=0)


def _lose_1(*arguments: Any) -> None:
    _lose(*arguments, which=1)


def _lose_2(*arguments: Any) -> None:
    _lose(*arguments, which=2)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_survivor_that_is_behind_levels_up_in_the_middle_of_a_step(
    tmp_path: Path, data: Path, calm: Undisturbed, which: int
) -> None:
    with Run(tmp_path / "run", job(data, workers=ALL), train, 0.005, lose_in(which)) as run:
        outcome = run.result()
    check(outcome, calm)
    assert "scripted" in {e["reason"] for e in outcome.of("lost")}


def test_all_are_lost_in_the_middle_of_a_step(tmp_path: Path, data: Path, calm: Undisturbed) -> None:
    """The next ones begin a step anew with its first update."""
    with Run(tmp_path / "run", job(data), train, 0.02) as run:
        run.wait_until(lambda: run.step >= 7)
        for worker in list(run.members):
            run.kill(worker)
        outcome = run.result()
    check(outcome, calm)


def test_an_update_that_is_unknown(data: Path, tmp_path: Path) -> None:
    error = raised(data, tmp_path, lambda context: train(context, of=["critik"]))
    assert error.fact == "there is no update 'critik'"
    assert "critic" in error.remedy


def test_lanes_without_their_update(data: Path, tmp_path: Path) -> None:
    def bare(context: Context) -> None:
        model = models()
        with Session(context, model, optimizers(model), None) as session:
            for step in session.steps():
                for batch in step.lanes():
                    step.backward(loss(session.model, batch, "critic"))

    assert "several optimisers" in raised(data, tmp_path, bare).fact


def test_a_pass_that_is_left_out(data: Path, tmp_path: Path) -> None:
    def skips(context: Context) -> None:
        model = models()
        with Session(context, model, optimizers(model), None) as session:
            for step in session.steps():
                for update in step.updates():
                    if update == "critic":
                        for batch in step.lanes():
                            step.backward(loss(session.model, batch, update))

    assert "for update 'generator'" in raised(data, tmp_path, skips).fact


def test_a_parameter_of_two_optimisers(data: Path, tmp_path: Path) -> None:
    def shared(context: Context) -> None:
        model = models()
        both = {name: torch.optim.SGD(model["critic"].parameters(), lr=0.1) for name in ("a", "b")}
        Session(context, model, both, None)

    assert "'a' and 'b'" in raised(data, tmp_path, shared).fact


def test_a_job_that_names_one_optimiser_for_several(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        Undisturbed(job(data, optimizer={"name": "sgd", "lr": 0.1}), tmp_path, train)
    assert "critic, generator" in caught.value.reason
