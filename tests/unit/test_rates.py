"""Schedules are made for the length that the run has now, and those that go by a metric are given it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as rates
from torch.optim.lr_scheduler import LRScheduler

from headway import optim
from headway.checkpoint.store import Store
from headway.core.ledger import Ledger
from headway.data.read.streams import open_readers
from headway.elastic.worker.context import Context
from headway.elastic.worker.engine import now
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.errors import BadInput
from headway.job import Job, parse
from headway.plan import digest
from headway.testing.company import Notes

LANES = 2
Make = Callable[[torch.optim.Optimizer, int], Any]


class Kept(Notes):
    """Notes with the rates."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.measured: list[dict[str, float]] = []

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self.rates.append(rate)


def warm(step: int, steps: int) -> float:
    """As transformers' get_cosine_schedule_with_warmup has it."""
    if step < 2:
        return step / 2
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - 2) / (steps - 2))))


class Decay:
    """A factor with a state of its own."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: int) -> float:
        return 1 - step / self.steps


def sequential(o: torch.optim.Optimizer, steps: int) -> LRScheduler:
    up = rates.LinearLR(o, 0.1, total_iters=3)
    return rates.SequentialLR(o, [up, rates.CosineAnnealingLR(o, steps - 3)], [3])


def chained(o: torch.optim.Optimizer, steps: int) -> LRScheduler:
    return rates.ChainedScheduler([rates.ConstantLR(o, 0.5, 4), rates.PolynomialLR(o, steps, 2.0)])


SCHEDULES: dict[str, Make] = {
    "one-cycle": lambda o, steps: rates.OneCycleLR(o, 0.5, total_steps=steps),
    "cosine": lambda o, steps: rates.CosineAnnealingLR(o, steps),
    "warm restarts": lambda o, steps: rates.CosineAnnealingWarmRestarts(o, steps // 2),
    "sequential": sequential,
    "chained": chained,
    "lambda": lambda o, steps: rates.LambdaLR(o, lambda step: 1 - step / steps),
    "partial": lambda o, steps: rates.LambdaLR(o, partial(warm, steps=steps)),
    "callable": lambda o, steps: rates.LambdaLR(o, Decay(steps)),
    "multiplicative": lambda o, steps: rates.MultiplicativeLR(o, lambda step: 1 - 1 / steps),
    "milestones": lambda o, steps: rates.MultiStepLR(o, [steps // 2, steps // 2, 3 * steps // 4]),
    "linear": lambda o, steps: rates.LinearLR(o, 1.0, 0.0, steps),
    "cyclic": lambda o, steps: rates.CyclicLR(o, 0.01, 0.5, steps // 4),
}


@pytest.fixture(scope="module", name="data")
def _data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (32,))
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


def job(data: Path, **fields: Any) -> Job:
    tree = {"name": "n", "task": "t.py:T", "lanes": LANES, "lane_batch": 16, "checkpoint": {"every_steps": None}}
    return parse({**tree, "data": {"train": str(data / "train"), "validation": str(data / "train")}, **fields})


def trained(
    made: Job, folder: Path, make: Make | None, values: Callable[[int], dict[str, float]] | None = None
) -> tuple[list[float], Session]:
    """The rates of the steps that were done; values: of the evaluation after each."""
    train, validation = open_readers(made)
    notes = Kept()
    context = Context(
        job=made, device="cpu", train=train, validation=validation,
        saver=Saver(Store(folder, "a" * 64, made.checkpoint), made.checkpoint, notes),  # type: ignore[arg-type]
        journal=notes, run="r", members=Alone(LANES), ledger=Ledger(now()),  # type: ignore[arg-type]
    )  # fmt: skip
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    try:
        training = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9), make)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # SequentialLR's own, and LambdaLR's about what it does not save
            with training:
                for step in training.steps():
                    for batch in step.lanes():
                        step.backward(nn.functional.cross_entropy(model(batch["x"]), batch["y"]))
                    if values is not None:
                        at = training.step
                        training.evaluate(lambda m, b, at=at: values(at))  # type: ignore[misc]
            context.saver.finish()
    finally:
        context.saver.close()
        context.close()
    return notes.rates, training


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_longer_run_goes_on_with_the_schedule_of_its_own_length(name: str, tmp_path: Path, data: Path) -> None:
    make = SCHEDULES[name]
    whole, _ = trained(job(data, steps=20), tmp_path / "whole", make)
    first, _ = trained(job(data, steps=10), tmp_path / "parts", make)
    rest, training = trained(job(data, steps=20), tmp_path / "parts", make)
    assert (len(first), len(rest)) == (10, 10)
    assert rest == whole[10:], "to the bit"
    assert training.optimizer.param_groups[0]["momentum"] > 0


def test_the_jobs_own_is_too_from_the_first_step_on(tmp_path: Path, data: Path) -> None:
    section = {"name": "cosine", "warmup_steps": 3}
    whole, _ = trained(job(data, steps=20, schedule=section), tmp_path / "whole", None)
    trained(job(data, steps=10, schedule=section), tmp_path / "parts", None)
    rest, _ = trained(job(data, steps=20, schedule=section), tmp_path / "parts", None)
    assert rest == whole[10:]


def test_one_of_the_same_length_is_loaded(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a shorter run, which was done already, has nothing left to do."""
    make = SCHEDULES["one-cycle"]
    trained(job(data, steps=10), tmp_path / "r", make)
    rest, training = trained(job(data, steps=5), tmp_path / "r", make)
    assert rest == []
    assert training.step == 10
    monkeypatch.setattr(optim, "advance", None)
    rest, training = trained(job(data, steps=10), tmp_path / "r", make)
    assert training.schedule is not None
    assert training.schedule.last_epoch == 10


class Stubborn(LRScheduler):
    """Goes to its fifth step only."""

    def get_lr(self) -> list[Any]:
        if self.last_epoch > 5:
            raise ValueError("no further")
        return [0.1 for _ in self.base_lrs]


def test_one_that_cannot_be_brought_there_is_refused_by_name(tmp_path: Path, data: Path) -> None:
    trained(job(data, steps=10), tmp_path / "r", SCHEDULES["cosine"])
    with pytest.raises(BadInput, match="schedule Stubborn cannot be brought to step 10: no further"):
        trained(job(data, steps=20), tmp_path / "r", lambda o, steps: Stubborn(o))


def by_epochs(made: Job, folder: Path, known: bool = True) -> list[float]:
    """A schedule that the loop steps itself, once in five steps."""
    train, validation = open_readers(made)
    notes = Kept()
    context = Context(
        job=made, device="cpu", train=train, validation=validation,
        saver=Saver(Store(folder, "a" * 64, made.checkpoint), made.checkpoint, notes),  # type: ignore[arg-type]
        journal=notes, run="r", members=Alone(LANES), ledger=Ledger(now()),  # type: ignore[arg-type]
    )  # fmt: skip
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = rates.CosineAnnealingLR(optimizer, (made.steps or 0) // 5)
    training = Session(context, model, optimizer, None)
    if known:
        training.register("schedule", schedule)
    try:
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    step.backward(nn.functional.cross_entropy(model(batch["x"]), batch["y"]))
                if training.step % 5 == 0:
                    schedule.step()
        context.saver.finish()
    finally:
        context.saver.close()
        context.close()
    return notes.rates


def test_one_that_is_stepped_by_epochs_is_registered(tmp_path: Path, data: Path) -> None:
    whole = by_epochs(job(data, steps=20), tmp_path / "whole")
    assert len(set(whole)) == 4
    by_epochs(job(data, steps=10), tmp_path / "parts")
    assert by_epochs(job(data, steps=20), tmp_path / "parts") == whole[10:]
    with pytest.raises(BadInput, match="a learning-rate schedule that the session does not know of"):
        by_epochs(job(data, steps=20), tmp_path / "unknown", known=False)


# -- by a metric -----------------------------------------------------------------------------------------------------


def plateau(o: torch.optim.Optimizer, steps: int) -> Any:
    return rates.ReduceLROnPlateau(o, patience=1, factor=0.5)


def stays(step: int) -> dict[str, float]:
    """Better until step 3, then the same."""
    return {"loss": max(1.0, 4.0 - step), "other": -float(step)}


@pytest.mark.parametrize(
    ("section", "make"),
    [({"metric": "loss"}, plateau), ({"name": "plateau", "metric": "loss", "patience": 1, "factor": 0.5}, None)],
    ids=["task's", "job's"],
)
def test_a_plateau_is_found_by_the_metric_that_the_job_names(
    section: dict[str, Any], make: Make | None, tmp_path: Path, data: Path
) -> None:
    wanted = [0.5] * 5 + [0.25] * 2 + [0.125] * 2 + [0.0625]
    whole, _ = trained(job(data, steps=10, schedule=section), tmp_path / "whole", make, stays)
    assert whole == wanted
    first, _ = trained(job(data, steps=4, schedule=section), tmp_path / "parts", make, stays)
    rest, _ = trained(job(data, steps=10, schedule=section), tmp_path / "parts", make, stays)
    assert first + rest == wanted, "its state is kept in a longer run"
    other, _ = trained(job(data, steps=10, schedule={**section, "metric": "other"}), tmp_path / "other", make, stays)
    assert other == [0.5] * 10


def test_a_metric_that_is_not_there_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(
        BadInput, match=r"schedule\.metric=lost: the evaluation has no such metric\. Did you mean 'loss'"
    ):
        trained(job(data, steps=2, schedule={"metric": "lost"}), tmp_path, plateau, stays)


def other_optimizers(o: torch.optim.Optimizer, steps: int) -> Any:
    return rates.StepLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 1)


@pytest.mark.parametrize(
    ("fields", "make", "said"),
    [
        ({}, plateau, "ReduceLROnPlateau, and the job names no metric"),
        ({"schedule": {"metric": "loss"}}, SCHEDULES["cosine"], "a CosineAnnealingLR, which goes by steps"),
        ({"schedule": {"metric": "loss"}}, None, "the task has no schedule"),
        ({}, other_optimizers, "a StepLR of another optimiser"),
        ({}, lambda o, steps: 0.1, r"schedule\(\) returned a float"),
    ],
)
def test_schedules_that_cannot_be_used_are_refused(
    fields: dict[str, Any], make: Make | None, said: str, data: Path
) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(BadInput, match=said) as caught:
        optim.checked_schedule(job(data, steps=2, **fields), optimizer, 2, make)
    assert caught.value.remedy


def test_a_metric_without_anything_to_evaluate_is_refused(data: Path) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    made = job(data, steps=2, schedule={"metric": "loss"})
    without = made.model_copy(update={"data": made.data.model_copy(update={"validation": None})})
    with pytest.raises(BadInput, match="there is no validation set"):
        optim.checked_schedule(without, optimizer, 2, plateau)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"name": "plateau"}, "goes by a metric"),
        ({"name": "cosine", "metric": "loss"}, "goes by steps"),
        ({"metric": "loss", "warmup_steps": 3}, "no warm-up"),
        ({"name": "plateux", "metric": "x"}, "Did you mean 'plateau'"),
    ],
)
def test_sections_that_contradict_themselves(section: dict[str, Any], said: str, data: Path) -> None:
    with pytest.raises(BadInput, match=said):
        job(data, steps=2, schedule=section)


def test_keys_that_are_not_used_leave_the_digest_as_it_was(data: Path) -> None:
    """Golden: of the release before they came."""
    made = job(data, steps=2, schedule={"name": "cosine", "warmup_steps": 3})
    kept = made.model_dump(mode="json", include={"schedule"})["schedule"]
    assert {"metric", "patience", "mode"} <= set(kept)
    same = job(data, steps=2, schedule={"name": "cosine", "warmup_steps": 3, "patience": 10, "mode": "min"})
    other = job(data, steps=2, schedule={"name": "plateau", "metric": "loss", "patience": 3})
    another = job(data, steps=2, schedule={"name": "plateau", "metric": "loss", "patience": 4})
    assert digest(made, []) == digest(same, [])
    assert len({digest(made, []), digest(other, []), digest(another, [])}) == 3
