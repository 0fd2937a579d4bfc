"""Lanes in one pass, on one worker: the same as apart, or apart, with the reason."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.unit.loops import LANES, STEPS, Undisturbed, job, rows
from torch import nn
from torch.nn import functional

import headway
from headway.core.lanes_together import Reason
from headway.elastic.worker import batches
from headway.elastic.worker.context import Context
from headway.elastic.worker.headroom import Headroom
from headway.elastic.worker.loop import train_task
from headway.elastic.worker.session import Session
from headway.elastic.worker.together import Together, is_memory, is_theirs
from headway.errors import NonFiniteLoss
from headway.strategies import PeerLost

BATCH = 4
"""Rows of a lane."""
ALL = BATCH * LANES

Batch = dict[str, torch.Tensor]
Loss = Callable[["Made", nn.Module, Batch], torch.Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


class Heard(Undisturbed):
    """What is told of lanes as well."""

    def __init__(self, *arguments: Any) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        super().__init__(*arguments)

    def lanes(self, text: str, **facts: Any) -> None:
        self.told.append((text, facts))


class Made(headway.Task):
    """A task of two functions. What it was given is kept: rows by call, and the step of each."""

    def __init__(self, loss: Loss, model: Callable[[], nn.Module] | None = None) -> None:
        self.of, self.build = loss, model or mlp
        self.sizes: list[int] = []
        self.steps: list[int] = []
        self.session: Session | None = None

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        self.built = self.build()
        return self.built

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.5)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        if torch.is_grad_enabled():  # not of an evaluation
            self.sizes.append(len(batch["x"]))
            self.steps.append(now())
        return self.of(self, model, batch)

    def in_step(self, number: int) -> list[int]:
        """Rows of the calls in a step."""
        return [size for size, step in zip(self.sizes, self.steps, strict=True) if step == number]


def now() -> int:
    """The step under way."""
    from headway.elastic.worker.context import current

    return int(current().at.removeprefix("step ").partition(",")[0])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))


def x_of(batch: Batch) -> torch.Tensor:
    return batch["x"].float() / 10


def y_of(batch: Batch) -> torch.Tensor:
    return batch["id"] % 3


def plain(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(model(x_of(batch)), y_of(batch))


def run(data: Path, folder: Path, made: Made, **fields: Any) -> Heard:
    whole = {"reproducible": "order", **fields}
    return Heard(job(data, **whole), folder, lambda context: train_task(made, context.job))


def compared(
    data: Path, folder: Path, loss: Loss, model: Callable[[], nn.Module] | None = None, **fields: Any
) -> tuple[Heard, Made, float]:
    """A run, and the largest difference of its losses to those of lanes apart, relative."""
    task, other = Made(loss, model), Made(loss, model)
    found = run(data, folder / "together", task, **fields)
    apart = run(data, folder / "apart", other, lanes_together="never", **fields)
    for a, b in zip(task.built.state_dict().values(), other.built.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert [step["samples"] for step in found.steps] == [step["samples"] for step in apart.steps]
    assert [step["rows"] for step in found.steps] == [step["rows"] for step in apart.steps]
    pairs = zip(found.steps, apart.steps, strict=True)
    return found, task, max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in pairs)


def test_lanes_go_together_and_are_tried_both_ways(data: Path, tmp_path: Path) -> None:
    found, task, off = compared(data, tmp_path, plain)
    assert off < 1e-5
    assert not found.told
    both = [BATCH] * LANES + [ALL]
    assert task.in_step(0) == [BATCH, *both], "one lane first, by which it is known what fits"
    assert [task.in_step(step) for step in (1, 2, 4, 8)] == [both] * 4
    assert [task.in_step(step) for step in (3, 5, 6, 7, 9, 10, 11)] == [[ALL]] * 7


def gpt() -> nn.Module:
    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedded, self.place = nn.Embedding(16, 16), nn.Parameter(torch.zeros(4, 16))
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True) for _ in range(2)
            )
            self.head = nn.Linear(16, 16)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            found = self.embedded(words) + self.place
            mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1])
            for layer in self.layers:
                found = layer(found, src_mask=mask, is_causal=True)
            return self.head(found)  # type: ignore[no-any-return]

    return Gpt()


def words_of(batch: Batch) -> torch.Tensor:
    return (batch["id"][:, None] * torch.tensor([3, 5, 7, 11]) + torch.arange(4)) % 16


def next_word(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    words = words_of(batch)
    return functional.cross_entropy(model(words)[:, :-1].flatten(0, 1), words[:, 1:].flatten())


@pytest.mark.parametrize(("loss", "model"), [(plain, mlp), (next_word, gpt)], ids=["mlp", "gpt"])
def test_losses_are_those_of_lanes_apart_for_200_steps(
    data: Path, tmp_path: Path, loss: Loss, model: Callable[[], nn.Module]
) -> None:
    found, task, off = compared(data, tmp_path, loss, model, steps=200, checkpoint={"every_steps": None})
    assert off < 1e-3
    assert not found.told
    assert task.in_step(150) == [ALL]


def test_rows_that_are_left_over_weigh_what_they_do_apart(data: Path, tmp_path: Path) -> None:
    """64 rows in steps of 20: the last of an epoch has 4, in lanes of their own number."""
    _, task, off = compared(data, tmp_path, plain, lane_batch=5)
    assert off < 1e-5
    assert task.in_step(5) == [20]
    assert task.in_step(7) == [4]


# What is not the mean over rows


def contrastive(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    found = functional.normalize(model(x_of(batch)), dim=1)
    return functional.cross_entropy(found @ found.T * 3, torch.arange(len(found)))


def padded(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    """A mean over the tokens that are there: one to three of a row."""
    there = torch.arange(3) < (batch["id"] % 3 + 1)[:, None]
    target = torch.where(there, (batch["id"][:, None] + torch.arange(3)) % 3, -100)
    scores = model(x_of(batch))[:, None, :] * torch.tensor([1.0, 0.5, -0.5])[None, :, None]
    return functional.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=-100)


def weighted(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(model(x_of(batch)), y_of(batch), torch.tensor([1.0, 5.0, 0.2]))


def balanced(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    """As a mixture of experts does: how evenly the batch as a whole is spread."""
    shares: torch.Tensor = model(x_of(batch)).softmax(1)
    return functional.cross_entropy(shares, y_of(batch)) + 10 * shares.mean(0).square().sum()


def own_noise(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    """Randomness written by hand: a generator that nobody else knows."""
    mine = torch.Generator().manual_seed(5)
    return functional.cross_entropy(model(x_of(batch) + torch.randn(len(batch["x"]), 4, generator=mine)), y_of(batch))


def slope(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    """The same loss, and a gradient that hangs on how many rows there are."""
    found = functional.cross_entropy(model(x_of(batch)), y_of(batch))
    return found.detach() + (found - found.detach()) * len(batch["x"])


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 3))


def norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))


def instance() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 3))


class Seen(nn.Module):
    """Passes on what it gets, and keeps how far it is spread, or how many rows there were."""

    def __init__(self, kept: str) -> None:
        super().__init__()
        self.kept = kept
        self.spread: torch.Tensor
        self.rows: torch.Tensor
        self.register_buffer("spread", torch.zeros(4))
        self.register_buffer("rows", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.kept == "spread":
            self.spread += x.var(0).detach()
        if self.training and self.kept == "rows":
            self.rows += len(x)
        return x


def spread() -> nn.Module:
    return nn.Sequential(Seen("spread"), mlp())


def counts() -> nn.Module:
    return nn.Sequential(Seen("rows"), mlp())


def masked() -> nn.Module:
    """As a decoder has it, whose mask is one of its buffers."""
    found = nn.Sequential(Seen("spread"), mlp())
    found.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))
    found.register_buffer("huge", torch.tensor(torch.finfo(torch.float32).min))
    return found


def numpys_own(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    """A generator that goes on from call to call."""
    import numpy as np

    mine = task.__dict__.setdefault("mine", np.random.default_rng(5))
    return functional.cross_entropy(model(x_of(batch)) * float(mine.normal(1, 0.1)), y_of(batch))


def called(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    """Its weight grows from call to call."""
    calls = task.__dict__["calls"] = int(task.__dict__.get("calls", 0)) + 1
    return functional.cross_entropy(model(x_of(batch)), y_of(batch)) * (1 + calls / 1000)


def summed(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(model(x_of(batch)), y_of(batch), reduction="sum")


def clocked(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    """It goes by the time."""
    return functional.cross_entropy(model(x_of(batch)), y_of(batch)) * (1 + time.monotonic_ns() % 1009)


def numpys(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    import numpy as np

    return functional.cross_entropy(model(x_of(batch)) * float(np.random.normal(1, 0.1)), y_of(batch))


def pythons(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    import random

    return functional.cross_entropy(model(x_of(batch)) * random.uniform(0.9, 1.1), y_of(batch))


def size_known(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    return functional.cross_entropy(model(x_of(batch)).view(BATCH, 3), y_of(batch))


@pytest.mark.parametrize(
    ("loss", "model", "reason"),
    [
        (contrastive, mlp, Reason.LOSS),
        (padded, mlp, Reason.LOSS),
        (weighted, mlp, Reason.LOSS),
        (balanced, mlp, Reason.LOSS),
        (own_noise, mlp, Reason.LOSS),
        (slope, mlp, Reason.GRADIENT),
        (plain, dropout, Reason.RANDOM),
        (numpys, mlp, Reason.RANDOM),
        (pythons, mlp, Reason.RANDOM),
        (plain, norm, Reason.LOSS),
        (plain, instance, Reason.LOSS),
        (summed, mlp, Reason.LOSS),
        (plain, spread, Reason.BUFFERS),
        (plain, masked, Reason.BUFFERS),
        (plain, counts, Reason.BUFFERS),
        (size_known, mlp, Reason.RAISED),
    ],
)
def test_what_is_another_loss_together_is_kept_apart(
    data: Path, tmp_path: Path, loss: Loss, model: Callable[[], nn.Module], reason: Reason
) -> None:
    found, task, off = compared(data, tmp_path, loss, model)
    assert off == 0.0, "also in the step that showed it"
    assert len(found.told) == (2 if reason is Reason.RAISED else 1), "once; and what was raised"
    text, facts = found.told[-1]
    assert reason.value in text
    assert facts == {"step": 0, "apart": reason.name.lower(), "why": text}
    assert task.in_step(1) == [BATCH] * LANES
    assert len(found.steps) == STEPS


@pytest.mark.parametrize("loss", [numpys_own, called, clocked])
def test_what_goes_on_from_call_to_call_is_seen(data: Path, tmp_path: Path, loss: Loss) -> None:
    """It is another with every call, so that nothing says what it should be; lanes are apart from the first step on."""
    task = Made(loss)
    found = run(data, tmp_path, task)
    ((text, facts),) = found.told
    assert Reason.LOSS.value in text
    assert (facts["step"], facts["apart"]) == (0, "loss")
    assert task.in_step(1) == [BATCH] * LANES


def test_dropout_that_a_schedule_switches_on_is_seen_in_its_first_step(data: Path, tmp_path: Path) -> None:
    def loss(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        model[1].p = 0.3 if now() >= 6 else 0.0  # type: ignore[index]
        found: torch.Tensor = model[0](x_of(batch))  # type: ignore[index]
        found = model[1](found) if now() >= 6 else found  # type: ignore[index]
        return functional.cross_entropy(model[2](found), y_of(batch))  # type: ignore[index]

    found, task, off = compared(data, tmp_path, loss, dropout)
    assert off < 1e-5
    assert [facts["step"] for _, facts in found.told] == [6]
    assert task.in_step(5) == [ALL]
    assert task.in_step(6) == [ALL] + [BATCH] * LANES, "it was done again, apart"
    assert task.in_step(7) == [BATCH] * LANES


def test_what_only_differs_later_is_found_by_the_looks_that_go_on(data: Path, tmp_path: Path) -> None:
    def loss(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        return contrastive(task, model, batch) if now() >= 5 else plain(task, model, batch)

    task = Made(loss)
    found = run(data, tmp_path, task, steps=20)
    assert [facts["step"] for _, facts in found.told] == [8]
    assert task.in_step(7) == [ALL]
    assert task.in_step(9) == [BATCH] * LANES


def test_steps_that_overflow_say_nothing_and_are_not_counted_as_looks(data: Path, tmp_path: Path) -> None:
    """As the first do under fp16, until the scale is found."""

    def loss(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        return plain(task, model, batch) * 1e36 if now() < 3 else contrastive(task, model, batch)

    task = Made(loss)
    found = run(data, tmp_path, task, precision="fp16")
    assert [facts["step"] for _, facts in found.told] == [3]
    assert task.in_step(4) == [BATCH] * LANES


def test_a_gradient_that_overflows_only_together_parts_nothing_under_fp16(data: Path, tmp_path: Path) -> None:
    def loss(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        return plain(task, model, batch) * (1e36 if now() == 1 and len(batch["x"]) > BATCH else 1.0)

    task = Made(loss)
    found = run(data, tmp_path, task, precision="fp16")
    assert not found.told
    assert task.in_step(3) == [*[BATCH] * LANES, ALL], "the third that could be compared"
    assert task.in_step(11) == [ALL]


@pytest.mark.parametrize("change", ["mode", "frozen"])
def test_another_mode_is_looked_at_at_once(data: Path, tmp_path: Path, change: str) -> None:
    def train(context: Context) -> list[tuple[int, int]]:
        torch.manual_seed(0)
        model, sizes = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), []
        with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.02), None) as session:
            for step in session.steps():
                if change == "mode":
                    model[1].train(step.number not in (5, 6, 9))
                else:
                    model[0].bias.requires_grad_(step.number not in (5, 6, 9))
                for batch in step.lanes(together=True):
                    sizes.append((step.number, len(batch["x"])))
                    step.backward(functional.cross_entropy(model(x_of(batch)), y_of(batch)))
        return sizes

    found = Heard(job(data, reproducible="order"), tmp_path, train)
    looked = sorted({step for step, size in found.result if size == BATCH})
    assert looked == [0, 1, 2, 4, 5, 6, 9, 11], (
        "5, 6 and 9 are the first three of it; before 11 were eight of the other"
    )


# Loops of one's own


def loop(context: Context, **options: Any) -> list[int]:
    torch.manual_seed(0)
    model, sizes = mlp(), []
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.02), None) as session:
        for step in session.steps():
            for batch in step.lanes(**options):
                sizes.append(len(batch["x"]))
                step.record("mean", batch["x"].float().mean())
                if step.number % 2:
                    step.record("odd", float(batch["id"].double().mean()))
                step.backward(functional.cross_entropy(model(x_of(batch)), y_of(batch)))
    return sizes


def test_loops_of_ones_own_keep_lanes_apart_unless_they_ask(data: Path, tmp_path: Path) -> None:
    apart = Heard(job(data, reproducible="order"), tmp_path / "apart", loop)
    asked = Heard(job(data, reproducible="order"), tmp_path / "asked", lambda c: loop(c, together=True))
    assert set(apart.result) == {BATCH}
    assert asked.result.count(ALL) == STEPS
    for step, values in apart.values.items():
        assert asked.values[step] == pytest.approx(values, rel=1e-6, abs=1e-6)
    assert len(apart.values) >= STEPS


@pytest.mark.parametrize(
    "fields",
    [{"reproducible": "bitwise"}, {"lanes_together": "never"}, {"micro_batch": 2}, {"accumulate": 2}, {"lanes": 1}],
    ids=str,
)
def test_where_lanes_stay_apart(data: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    workers = {"workers": {"max": 1}} if "lanes" in fields else {}
    found = Heard(
        job(data, **{"reproducible": "order", **fields, **workers}), tmp_path, lambda c: loop(c, together=True)
    )
    assert max(found.result) <= BATCH


def test_a_group_has_so_many_rows_at_most(data: Path, tmp_path: Path) -> None:
    found = Heard(job(data, reproducible="order", rows_together=9), tmp_path, lambda c: loop(c, together=True))
    assert max(found.result) == 8
    assert found.result.count(8) == 2 * STEPS


def test_closures_keep_lanes_apart(data: Path, tmp_path: Path) -> None:
    class Search(Made):
        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    task = Search(plain)
    run(data, tmp_path, task)
    assert set(task.sizes) == {BATCH}


def test_several_updates_are_watched_each_for_itself(data: Path, tmp_path: Path) -> None:
    class Two(Made):
        def model(self) -> Any:
            torch.manual_seed(0)
            return {"a": mlp(), "b": mlp()}

        def optimizer(self, model: Any) -> Any:
            return {name: torch.optim.SGD(each.parameters(), lr=0.02) for name, each in model.items()}

        def loss(self, model: Any, batch: Batch, update: str) -> torch.Tensor:  # type: ignore[override]
            self.sizes.append(len(batch["x"]))
            return functional.cross_entropy(model["a"](x_of(batch)) + model["b"](x_of(batch)), y_of(batch))

    task, other = Two(plain), Two(plain)
    found, apart = run(data, tmp_path / "a", task), run(data, tmp_path / "b", other, lanes_together="never")
    assert not found.told
    assert task.sizes.count(ALL) == 2 * STEPS
    for a, b in zip(found.steps, apart.steps, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


# What goes wrong


def test_a_loss_that_is_no_number_is_taken_apart_to_name_the_lane(data: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def loss(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        found = plain(task, model, batch)
        if now() == 6 and not seen:
            seen.extend(batch["id"].tolist())
        return found * float("nan") if now() == 6 and seen[9] in batch["id"] else found

    with pytest.raises(NonFiniteLoss) as caught:
        run(data, tmp_path, Made(loss))
    assert len(seen) == ALL
    assert "from lane 2" in caught.value.fact, "the tenth row is the third lane's"


def test_a_loss_that_is_only_no_number_together_parts_the_lanes(data: Path, tmp_path: Path) -> None:
    def loss(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        return plain(task, model, batch) * (float("inf") if len(batch["x"]) > BATCH and now() == 6 else 1.0)

    found, task, off = compared(data, tmp_path, loss)
    assert off < 1e-5
    assert [(facts["step"], facts["apart"]) for _, facts in found.told] == [(6, "loss")]
    assert task.in_step(7) == [BATCH] * LANES


def too_large(_: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
    if len(batch["x"]) > 2 * BATCH:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    return plain(_, model, batch)


def test_too_little_memory_halves_the_group(data: Path, tmp_path: Path) -> None:
    found, task, off = compared(data, tmp_path, too_large)
    assert off < 1e-5
    ((text, facts),) = found.told
    assert f"{LANES} lanes ({ALL} rows) in one pass were too much" in text
    assert not facts
    assert task.in_step(11) == [2 * BATCH] * 2


class Full(torch.autograd.Function):
    """There is no memory for its backward pass where there are too many rows."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        if len(gradients[0]) > BATCH:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return gradients[0]


def test_too_little_memory_in_a_backward_pass_of_ones_own_loop(data: Path, tmp_path: Path) -> None:
    """In the middle of it: some gradients are there already."""

    def train(context: Context, together: bool) -> list[int]:
        torch.manual_seed(0)
        model, sizes = mlp(), []
        with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.02), None) as session:
            for step in session.steps():
                for batch in step.lanes(together=together):
                    sizes.append(len(batch["x"]))
                    found = model[2](Full.apply(model[1](model[0](x_of(batch)))))  # type: ignore[no-untyped-call, index]
                    step.backward(functional.cross_entropy(found, y_of(batch)))
        return sizes

    found = Heard(job(data, reproducible="order"), tmp_path / "a", lambda c: train(c, True))
    apart = Heard(job(data, reproducible="order"), tmp_path / "b", lambda c: train(c, False))
    assert len(found.told) == 1
    assert set(found.result[-LANES:]) == {BATCH}
    assert [s["loss"] for s in found.steps] == [s["loss"] for s in apart.steps], "nothing of what broke off was applied"


def test_what_fits_follows_a_whole_lane_and_the_workers_of_the_machine(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lane was measured, and whoever was there then."""
    monkeypatch.setattr(Headroom, "end", lambda self: 1000)
    monkeypatch.setattr(Headroom, "free", lambda self, neighbours: 16_000 // neighbours)
    replica: Any = SimpleNamespace(device=torch.device("cpu"), updates=[], trained=[], apart=None)
    made = job(data, reproducible="order")
    other: Any = SimpleNamespace(lanes=lambda text: None, look=lambda: None)
    whole, short = (Together(made, replica, other, other) for _ in range(2))
    for together, size in ((whole, BATCH), (short, 1)):
        together.measure()
        together.measure_done(size)
    assert (whole.most, short.most) == (8, 2)
    whole.neighbours = 4
    assert whole.most == 2
    whole.neighbours = 1
    assert whole.most == 8
    whole.halve((0, 1, 2, 3, 4, 5), 24, 0)
    assert whole.most == 3
    whole.neighbours = 8
    assert whole.most == 1


@pytest.mark.parametrize("at", [0, 3])
def test_too_little_memory_for_the_batch_itself(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Where nobody's loss could catch it."""
    whole = batches.joined

    def joined(each: Any, rows: Any) -> Any:
        if now() >= at and sum(rows) > BATCH:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return whole(each, rows)

    monkeypatch.setattr(batches, "joined", joined)
    found, task, off = compared(data, tmp_path, plain)
    assert off < 1e-5
    assert len(found.told) == 1
    assert "too much for a worker's memory" in found.told[0][0]
    assert task.in_step(11) == [BATCH] * LANES


def test_too_little_memory_for_a_lane_beside_the_batch_of_all(data: Path, tmp_path: Path) -> None:
    """As it is while both ways are tried."""

    def loss(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        if now() == 1 and task.in_step(1) == [BATCH]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return plain(task, model, batch)

    task = Made(loss)
    found = run(data, tmp_path / "together", task)
    apart = run(data, tmp_path / "apart", Made(plain), lanes_together="never")
    assert [s["loss"] for s in found.steps] == pytest.approx([s["loss"] for s in apart.steps], rel=1e-5)
    assert len(found.told) == 1
    assert task.in_step(1) == [BATCH] * 3 + [2 * BATCH] * 2
    assert task.in_step(11) == [2 * BATCH] * 2


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), None),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("shape '[4, 3]' is invalid for input of size 48"), False),
        (PeerLost("a peer is out of memory"), None),
    ],
    ids=str,
)
def test_which_errors_may_come_of_several_lanes(error: Exception, memory: bool | None) -> None:
    assert is_theirs(error) is (memory is not None)
    assert memory is None or is_memory(error) is memory


def test_an_error_of_a_lane_alone_is_the_users(data: Path, tmp_path: Path) -> None:
    def loss(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        if now() == 7:
            raise ZeroDivisionError("mine")
        return plain(task, model, batch)

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(data, tmp_path, Made(loss))


def test_lanes_of_other_shapes_are_computed_apart_in_that_step(data: Path, tmp_path: Path) -> None:
    """As those of a transform that pads to the longest row of the lane's batch."""
    lengths = itertools.cycle([3, 4])

    def train(context: Context, lanes_together: bool) -> list[tuple[int, int]]:
        torch.manual_seed(0)
        model, sizes, read = mlp(), [], context.train.batch

        def ragged(epoch: int, step: int, lane: int) -> Any:
            found = read(epoch, step, lane)
            found.arrays["long"] = torch.zeros(len(found.ids), next(lengths) if (epoch, step) == (1, 1) else 5)
            return found

        context.train.batch = ragged  # type: ignore[method-assign]
        with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.02), None) as session:
            for step in session.steps():
                for batch in step.lanes(together=lanes_together):
                    sizes.append((step.number, len(batch["x"])))
                    step.backward(functional.cross_entropy(model(x_of(batch)), y_of(batch)))
        return sizes

    found = Heard(job(data, reproducible="order"), tmp_path / "a", lambda c: train(c, True))
    ((text, facts),) = found.told
    assert "'long' has rows of shape (3,) in one lane, (4,) in another" in text
    assert not facts
    assert [size for step, size in found.result if step == 5] == [BATCH] * LANES
    assert [size for step, size in found.result if step == 6] == [ALL]


def test_why_lanes_are_apart_comes_back_with_the_state(data: Path, tmp_path: Path) -> None:
    """A run that is resumed does not begin to doubt it once more."""

    def later(task: Made, model: nn.Module, batch: Batch) -> torch.Tensor:
        return contrastive(task, model, batch) if now() == 4 else plain(task, model, batch)

    folder = tmp_path / "run"
    run(data, folder, Made(later), steps=6)
    task = Made(plain)
    found = run(data, folder, task, steps=9)
    assert [step["step"] for step in found.steps] == [6, 7, 8]
    assert set(task.sizes) == {BATCH}
