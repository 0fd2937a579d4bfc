"""The contract of a strategy that sums gradients synchronously: what `headway.strategies.Strategy` promises, as checks.

Each check runs in every worker of a process group (`headway.testing.workers.run`) and raises AssertionError where the
strategy breaks the promise. `CHECKS` lists them:

    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_contract(check, workers, tmp_path):
        run(check, workers, tmp_path, "my_strategy")
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headway.core.lanes import carried
from headway.errors import BadInput
from headway.strategies import PeerLost, Strategy, create
from headway.testing.workers import die

LANES = 5
ROWS = (4, 3, 0, 2, 1)
"""Rows of each lane: uneven, one empty, so that with 3 workers one has a single lane of a single row."""


class Net(nn.Module):
    """Layers of two dtypes, one that only some lanes use, one that none uses, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 8)
        self.coarse = nn.Linear(8, 8).bfloat16()
        self.sometimes = nn.Linear(8, 8)
        self.last = nn.Linear(8, 1)
        self.never = nn.Linear(3, 3)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, x: torch.Tensor, extra: bool) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = x + self.coarse(x.bfloat16()).float() + self.frozen(x)
        if extra:
            x = x + self.sometimes(x)
        result: torch.Tensor = self.last(torch.tanh(x))
        return result


def batch(lane: int, step: int = 0) -> torch.Tensor:
    """A lane's rows, shape [ROWS[lane], 6]."""
    return torch.randn(ROWS[lane], 6, generator=torch.Generator().manual_seed(100 * step + lane))


def loss(model: nn.Module, lane: int, step: int = 0) -> torch.Tensor:
    """The lane's share of the step's loss; scalar."""
    value: torch.Tensor = model(batch(lane, step), extra=lane == 3).square().sum() / sum(ROWS)
    return value


def expected(step: int = 0) -> dict[str, torch.Tensor | None]:
    """Gradients by plain autograd over all lanes in one process."""
    model = Net()
    for lane in range(LANES):
        if ROWS[lane]:
            loss(model, lane, step).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def do_lanes(
    strategy: Strategy,
    model: nn.Module,
    rank: int,
    workers: int,
    step: int = 0,
    between: Callable[[], Any] | None = None,
) -> None:
    """A worker's part of a step, up to `finish`."""
    strategy.begin()
    mine = [lane for lane in carried(LANES, workers)[rank] if ROWS[lane]]
    for lane in mine:
        value = loss(model, lane, step)
        if between is not None:
            between()
        strategy.before_backward(last=lane == mine[-1])
        value.backward()
        strategy.after_backward()


def assert_sums(model: nn.Module, wanted: dict[str, torch.Tensor | None]) -> None:
    for name, parameter in model.named_parameters():
        grad, right = parameter.grad, wanted[name]
        if right is None:
            assert grad is None, f"{name} was used by no lane and has a gradient"
        else:
            assert grad is not None, f"{name} has no gradient"
            tolerance = 2e-2 if right.dtype == torch.bfloat16 else 1e-6
            assert torch.allclose(grad, right, rtol=tolerance, atol=tolerance), f"{name}: {grad} is not {right}"


def gradients_are_the_sum_over_all_lanes(rank: int, workers: int, name: str) -> None:
    model = Net()
    strategy = create(name, model, workers, 2)
    for step in range(3):
        do_lanes(strategy, model, rank, workers, step)
        strategy.finish(torch.zeros(2))
        assert_sums(model, expected(step))


def zero_grad_in_the_loop_loses_nothing(rank: int, workers: int, name: str) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = create(name, model, workers, 2)
    for step in range(2):
        do_lanes(strategy, model, rank, workers, step, lambda: optimizer.zero_grad(set_to_none=True))
        strategy.finish(torch.zeros(2))
        assert_sums(model, expected(step))


def gradients_changed_between_lanes_are_refused(rank: int, workers: int, name: str) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = create(name, model, workers, 2)
    try:
        do_lanes(strategy, model, rank, workers, between=lambda: optimizer.zero_grad(set_to_none=False))
    except BadInput:
        return
    raise AssertionError("zero_grad(set_to_none=False) erased the gradients of earlier lanes unseen")


def the_state_of_unused_parameters_does_not_move(rank: int, workers: int, name: str) -> None:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    strategy = create(name, model, workers, 0)
    for step in range(2):
        do_lanes(strategy, model, rank, workers, step)
        strategy.finish(torch.zeros(0))
        optimizer.step()
    assert model.never.weight not in optimizer.state
    assert torch.equal(model.never.weight, Net().never.weight), "weight decay moved it"
    assert optimizer.state[model.sometimes.weight]["step"] == 2, "used by one lane, moved on every worker"


def the_tail_arrives_exactly(rank: int, workers: int, name: str) -> None:
    model = Net()
    values = torch.randn(300, generator=torch.Generator().manual_seed(1)) * 1e6
    mine = torch.where(torch.arange(300) % workers == rank, values, torch.zeros(300))
    strategy = create(name, model, workers, 300)
    for step in range(2):
        do_lanes(strategy, model, rank, workers, step)
        assert torch.equal(strategy.finish(mine), values)
        assert_sums(model, expected(step))


def a_worker_without_lanes_takes_part(rank: int, workers: int, name: str) -> None:
    """In the last step of an epoch a worker may carry only empty lanes."""
    model = Net()
    strategy = create(name, model, workers, 1)
    strategy.begin()
    if rank == 0:
        for lane in range(LANES):
            if ROWS[lane]:
                strategy.before_backward(last=lane == LANES - 1)
                loss(model, lane).backward()
                strategy.after_backward()
    assert strategy.finish(torch.ones(1)).item() == workers
    assert_sums(model, expected())


def closing_lets_go_of_the_model(rank: int, workers: int, name: str) -> None:
    model = Net()
    strategy = create(name, model, workers, 1)
    do_lanes(strategy, model, rank, workers)
    strategy.finish(torch.zeros(1))
    strategy.close()
    assert all(p.grad is None for p in model.parameters())
    loss(model, 0).backward()
    other = create(name, Net(), workers, 1)
    other.begin()
    other.finish(torch.zeros(1))


def a_model_without_float32_works(rank: int, workers: int, name: str) -> None:
    model = nn.Linear(2, 1).bfloat16()
    strategy = create(name, model, workers, 3)
    strategy.begin()
    strategy.before_backward(last=True)
    model(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
    strategy.after_backward()
    assert strategy.finish(torch.ones(3)).tolist() == [workers] * 3
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[workers, workers]]


def a_killed_peer_is_a_lost_peer(rank: int, workers: int, name: str) -> float:
    """Rank 1 dies in its second step. Returns the seconds after which the others knew."""
    model = Net()
    strategy = create(name, model, workers, 1)
    do_lanes(strategy, model, rank, workers)
    strategy.finish(torch.zeros(1))
    if rank == 1:
        die()
    begun = time.monotonic()
    try:
        do_lanes(strategy, model, rank, workers)
        strategy.finish(torch.zeros(1))
    except PeerLost:
        return time.monotonic() - begun
    raise AssertionError("a step was finished without the worker that is gone")


CHECKS = [
    gradients_are_the_sum_over_all_lanes,
    zero_grad_in_the_loop_loses_nothing,
    the_state_of_unused_parameters_does_not_move,
    the_tail_arrives_exactly,
    a_worker_without_lanes_takes_part,
    closing_lets_go_of_the_model,
    a_model_without_float32_works,
]
