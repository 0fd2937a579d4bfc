"""What rounds compute is what a plain loop in one process computes over the same lanes, without any of Headway's
engine: replicas simulated one after another, or no replicas at all where the mathematics is the same."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_elastic_run import Calm as Quiet
from tests.unit.test_elastic_run import data as data
from torch import nn

from headway.checkpoint.store import Store
from headway.core.lanes import carried
from headway.core.ledger import Ledger
from headway.data.read.streams import open_readers
from headway.elastic.worker import batches, draws
from headway.elastic.worker.context import Context
from headway.elastic.worker.engine import now
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session
from headway.job import Job, parse
from headway.strategies.options import Outer
from headway.strategies.outer import fragments, stepped

LANES, STEPS = 8, 12
RATE = 2**-5
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, RATE),
    "momentum": lambda p: torch.optim.SGD(p, RATE, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, RATE),
    "adamw": lambda p: torch.optim.AdamW(p, RATE, weight_decay=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, RATE),
    "rmsprop": lambda p: torch.optim.RMSprop(p, RATE),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.dropout(torch.tanh(self.first(x)), 0.25, self.training)
        return (self.last(hidden) - x.sum(1, keepdim=True)).square().mean()  # type: ignore[no-any-return]


def job(data: Path, **strategy: Any) -> Job:
    return parse(
        {
            "name": "n",
            "task": "t.py:T",
            "data": {"train": str(data / "train")},
            "lanes": LANES,
            "lane_batch": 2,
            "steps": STEPS,
            "seed": 3,
            "reproducible": "bitwise",
            "strategy": {"replicas": 4, **strategy},
            "workers": {"max": 4},
        }
    )


def trained(made: Job, folder: Path, optimizer: str) -> list[torch.Tensor]:
    """By Headway, on one worker."""
    training, validation = open_readers(made)
    quiet = Quiet.__new__(Quiet)
    quiet.steps, quiet.values = [], []
    context = Context(
        job=made, device="cpu", train=training, validation=validation,
        saver=Saver(Store(folder, "a" * 64, made.checkpoint), made.checkpoint, quiet),  # type: ignore[arg-type]
        journal=quiet, run="calm", members=Alone(made.units), ledger=Ledger(now()),  # type: ignore[arg-type]
    )  # fmt: skip
    model = Net()
    session = Session(context, model, OPTIMIZERS[optimizer](model.parameters()), None)
    with session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"].float()))
    context.saver.finish()
    context.close()
    return [p.detach().clone() for p in model.parameters()]


def gradients(model: Net, made: Job, reader: Any, step: int, lanes: Any) -> None:
    """Of the mean over these lanes' rows, lane after lane."""
    cursor = reader.order.cursor(step)
    sizes = reader.order.sizes(cursor.step)
    rows = sum(sizes[lane] for lane in lanes)
    model.zero_grad()
    sums: list[Any] = []
    for lane in lanes:
        if not sizes[lane]:
            continue
        batch = reader.batch(cursor.epoch, cursor.step, lane)
        draws.seed("lane", made.seed, cursor.epoch, cursor.step, lane)
        found = batches.tensors_of(batch, torch.device("cpu"))["x"]
        (model(found.float()) * (sizes[lane] / rows)).backward()
        sums.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
        model.zero_grad()
    for parameter, *parts in zip(model.parameters(), *sums, strict=True):
        parameter.grad = tree(parts)


def tree(parts: list[torch.Tensor]) -> torch.Tensor:
    """Halves first, as bitwise promises (of a power of two)."""
    if len(parts) == 1:
        return parts[0]
    half = 1 << ((len(parts) - 1).bit_length() - 1)
    return tree(parts[:half]) + tree(parts[half:])


def plain(made: Job, optimizer: str) -> list[torch.Tensor]:
    """One model, all lanes."""
    reader, _ = open_readers(made)
    model = Net()
    moved = OPTIMIZERS[optimizer](model.parameters())
    for step in range(STEPS):
        gradients(model, made, reader, step, range(LANES))
        moved.step()
    reader.close()
    return [p.detach() for p in model.parameters()]


def simulated(made: Job, optimizer: str, meet: Any) -> list[torch.Tensor]:
    """Four models, one after another, that meet at each round's end: meet(common, models, number) gives the new common
    weights."""
    reader, _ = open_readers(made)
    models = [Net() for _ in range(4)]
    moved = [OPTIMIZERS[optimizer](model.parameters()) for model in models]
    every = made.strategy.round_steps
    common = [p.detach().clone() for p in models[0].parameters()]
    for step in range(STEPS):
        for model, one, lanes in zip(models, moved, carried(LANES, 4), strict=True):
            gradients(model, made, reader, step, lanes)
            one.step()
        if (step + 1) % every == 0 or step + 1 == STEPS:
            ends = [[p.detach().clone() for p in model.parameters()] for model in models]
            common, own = meet(common, ends, step // every, step + 1 == STEPS)
            for model, weights in zip(models, own, strict=True):
                with torch.no_grad():
                    for parameter, value in zip(model.parameters(), weights, strict=True):
                        parameter.copy_(value)
    reader.close()
    return common


def mean(ends: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [tree([value * 0.25 for value in values]) for values in zip(*ends, strict=True)]


def close(found: list[torch.Tensor], wanted: list[torch.Tensor], tolerance: float = 1e-5) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance), (one - other).abs().max()


def exact(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other), (one - other).abs().max()


optimizers = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@optimizers
def test_all_reduce_is_a_plain_loop_to_the_bit(optimizer: str, tmp_path: Path, data: Path) -> None:
    made = job(data)
    exact(trained(made, tmp_path, optimizer), plain(made, optimizer))


@pytest.mark.parametrize("strategy", [{"kind": "local_sgd", "every": 1}, {"kind": "gossip", "graph": "complete"}])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_who_meets_after_each_step_is_a_plain_loop(
    strategy: dict[str, Any], optimizer: str, tmp_path: Path, data: Path
) -> None:
    made = job(data, **strategy)
    close(trained(made, tmp_path, optimizer), plain(made, optimizer))


@optimizers
def test_local_sgd_of_weights_is_its_replicas_in_one_process(optimizer: str, tmp_path: Path, data: Path) -> None:
    made = job(data, kind="local_sgd", every=5, average="weights")

    def meet(common: Any, ends: Any, number: int, last: bool) -> Any:
        found = mean(ends)
        return found, [found] * 4

    exact(trained(made, tmp_path, optimizer), simulated(made, optimizer, meet))


@optimizers
def test_diloco_is_its_replicas_in_one_process(optimizer: str, tmp_path: Path, data: Path) -> None:
    made = job(data, kind="diloco", every=5)
    outer = [p.detach().clone().requires_grad_() for p in Net().parameters()]
    of_torch = torch.optim.SGD(outer, lr=0.7, momentum=0.9, nesterov=True)

    def meet(common: Any, ends: Any, number: int, last: bool) -> Any:
        for parameter, start, *values in zip(outer, common, *ends, strict=True):
            parameter.grad = mean([[start - value] for value in values])[0]
        of_torch.step()
        found = [p.detach().clone() for p in outer]
        return found, [found] * 4

    close(trained(made, tmp_path, optimizer), simulated(made, optimizer, meet), 1e-6)


@optimizers
def test_gossip_is_its_replicas_in_one_process(optimizer: str, tmp_path: Path, data: Path) -> None:
    made = job(data, kind="gossip", graph="ring", average_every=4)

    def meet(common: Any, ends: Any, number: int, last: bool) -> Any:
        if last or (number + 1) % 4 == 0:
            found = mean(ends)
            return found, [found] * 4
        own = []
        for r in range(4):
            near = sorted({(r - 1) % 4, r, (r + 1) % 4})
            own.append([sum(values[other] for other in near) / 3 for values in zip(*ends, strict=True)])
        return common, own

    close(trained(made, tmp_path, optimizer), simulated(made, optimizer, meet), 1e-6)


@pytest.mark.parametrize("compression", ["int8", "top_k"])
def test_what_is_left_out_comes_later(compression: str, tmp_path: Path, data: Path) -> None:
    """Weights are near those of what is sent whole, and not the same."""
    plain_ = trained(job(data, kind="diloco", every=2), tmp_path / "whole", "adamw")
    smaller = {"kind": compression, "dense_below": 0, **({"ratio": 0.5} if compression == "top_k" else {})}
    found = trained(job(data, kind="diloco", every=2, compression=smaller), tmp_path / "less", "adamw")
    close(found, plain_, 0.2)
    assert any(not torch.equal(one, other) for one, other in zip(found, plain_, strict=True))


def test_fragments_in_turn_are_simulated_too(tmp_path: Path, data: Path) -> None:
    made = job(data, kind="diloco", every=4, fragments=2)
    parts = fragments([p.numel() for p in Net().parameters()], 2)
    momenta = [torch.zeros_like(p) for p in Net().parameters()]

    def meet(common: Any, ends: Any, number: int, last: bool) -> Any:
        due = range(4) if last else range(*parts[number % 2])
        own = [[value.clone() for value in each] for each in ends]
        common = list(common)
        for at in due:
            gradient = mean([[common[at] - each[at]] for each in ends])[0]
            common[at], momenta[at] = stepped(common[at], gradient, momenta[at], Outer())
            for each in own:
                each[at] = common[at]
        return common, own

    exact(trained(made, tmp_path, "adamw"), simulated(made, "adamw", meet))


def test_fragments_are_about_alike() -> None:
    assert fragments([5, 1, 1, 1, 1, 1], 2) == [(0, 1), (1, 6)]
    assert fragments([1, 1], 5) == [(0, 1), (1, 2)]
    assert fragments([7], 3) == [(0, 1)]
    assert fragments([1] * 10, 3) == [(0, 3), (3, 7), (7, 10)]


def test_two_outer_steps_by_hand() -> None:
    """Two parameters, 1 and 2. The replicas changed them by (0.5, -1) on average, then by (0.25, 0): the gradients are
    (-0.5, 1) and (-0.25, 0). Momenta: (-0.5, 1); 0.9 x that - (0.25, 0) = (-0.7, 0.9). With Nesterov's the changes are
    0.7 x (g + 0.9 m): 0.7 x (-0.95, 1.9) = (-0.665, 1.33); 0.7 x (-0.88, 0.81) = (-0.616, 0.567)."""
    weights, momentum = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for gradient, wanted in (([-0.5, 1.0], [1.665, 0.67]), ([-0.25, 0.0], [2.281, 0.103])):
        given = torch.tensor(gradient, dtype=torch.float64)
        weights, momentum = stepped(weights, given, momentum, Outer())
        assert torch.allclose(weights, torch.tensor(wanted, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(momentum, torch.tensor([-0.7, 0.9], dtype=torch.float64))


@pytest.mark.parametrize("outer", [Outer(lr=1.0, momentum=0.0, nesterov=False), Outer(nesterov=False)])
def test_other_outer_optimisers_are_torchs(outer: Outer) -> None:
    parameter = torch.zeros(5).requires_grad_()
    of_torch = torch.optim.SGD([parameter], lr=outer.lr, momentum=outer.momentum)
    weights, momentum = torch.zeros(5), torch.zeros(5)
    for seed in range(5):
        parameter.grad = torch.randn(5, generator=torch.Generator().manual_seed(seed))
        weights, momentum = stepped(weights, parameter.grad, momentum, outer)
        of_torch.step()
        assert torch.allclose(weights, parameter.detach())


def test_an_unlike_replica_is_simulated_too(data: Path) -> None:
    """The simulation is worth as much as what it notices: replicas' own optimisers matter."""
    made = job(data, kind="local_sgd", every=5, average="weights")

    def meet(common: Any, ends: Any, number: int, last: bool) -> Any:
        found = mean(ends)
        return found, [found] * 4

    found = simulated(made, "adam", meet)
    assert not torch.allclose(found[0], copy.deepcopy(plain(made, "adam"))[0])
