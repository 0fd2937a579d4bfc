"""The contract of a strategy that sums gradients synchronously: what `headway.strategies.Strategy` promises, as checks.

Each check runs in every worker of a group (`headway.testing.workers.crew`) and raises AssertionError where the strategy
breaks the promise. A way is the strategy's name, or its options, and whether it is `order` or `bitwise`. `CHECKS` lists
them; `headway.testing.compressing` has what a strategy promises besides that sends less than the numbers.

    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("workers", [1, 2, 3])
    @pytest.mark.parametrize("backend", CREWS)
    def test_contract(check, workers, backend, tmp_path):
        crew(backend, tmp_path)(check, workers, ("my_strategy", "order"))
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from headway.core.lanes import carried
from headway.errors import BadInput
from headway.strategies import PeerLost, Reproducible, Strategy, create, named
from headway.strategies.group import Group
from headway.strategies.kept import Kept
from headway.strategies.options import Strategy as Options
from headway.testing.workers import connect_again, die, start_values

LANES = 7
ROWS = (4, 3, 0, 2, 1, 3, 2)
"""Rows of each lane: uneven, one empty, one of a single row."""
CHANGES = 5
REPLICAS = 5
"""Of a strategy that has some: sets of lanes that are carried as a whole."""
TOLERANCES = {"fp16": 2e-3, "bf16": 2e-2, "int8": 2e-2}
"""Of compressors that leave little out, in one sum; of all others 1e-6, so that a way is made with options for which
that holds (top_k with ratio 1, power_sgd with a start_step that is never reached)."""

Way = tuple[str | Options, Reproducible]


class Net(nn.Module):
    """Layers of two dtypes, one that only some lanes use, one that none uses, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.coarse = nn.Linear(8, 8).bfloat16()
        self.sometimes = nn.Linear(8, 8)
        self.last = nn.Linear(8, 1)
        self.never = nn.Linear(3, 3)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        start_values(self, 0)

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
    device = next(model.parameters()).device
    value: torch.Tensor = model(batch(lane, step).to(device), extra=lane == 3).square().sum() / sum(ROWS)
    return value


def expected(step: int = 0) -> dict[str, torch.Tensor | None]:
    """Gradients by plain autograd over all lanes in one process."""
    model = Net()
    for lane in range(LANES):
        if ROWS[lane]:
            loss(model, lane, step).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def change(lane: int, step: int = 0) -> torch.Tensor:
    """What a lane changed; float32, shape [CHANGES]."""
    return torch.randn(CHANGES, generator=torch.Generator().manual_seed(1000 + 100 * step + lane))


def in_tree_order(step: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Gradients and changes, summed as bitwise promises: halves of the lanes, padded to a power of two, first."""
    found: list[dict[str, torch.Tensor] | None] = []
    for lane in range(LANES):
        model = Net()
        if ROWS[lane]:
            loss(model, lane, step).backward()
        # A lane that did not use a parameter contributes nothing, which is to say zero.
        sums = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
        found.append({**sums, "changes": change(lane, step)} if ROWS[lane] else None)

    def node(first: int, width: int) -> dict[str, torch.Tensor] | None:
        if width == 1:
            return found[first] if first < LANES else None
        left, right = node(first, width // 2), node(first + width // 2, width // 2)
        if left is None or right is None:
            return left or right
        return {name: left[name] + right[name] for name in left}

    whole = node(0, 8)
    assert whole is not None
    return whole, whole.pop("changes")


def dealt(workers: int, seed: int | None = None) -> list[list[int]]:
    """Lanes by rank: in turn, or at random, where a worker may carry none."""
    if seed is None:
        return [list(range(rank, LANES, workers)) for rank in range(workers)]
    choose = random.Random(seed)
    carriers = [choose.randrange(workers) for _ in range(LANES)]
    return [[lane for lane, carrier in enumerate(carriers) if carrier == rank] for rank in range(workers)]


def options(way: Way) -> Options:
    """Of the strategy."""
    return named(way[0]) if isinstance(way[0], str) else way[0]


def replicas(way: Way, workers: int) -> list[tuple[int, ...]]:
    """By rank, where the strategy has some: in turn."""
    return [tuple(range(rank, REPLICAS, workers)) for rank in range(workers)] if options(way).compresses else []


def mine(group: Group, seed: int | None = None, way: Way = ("all_reduce", "order")) -> list[int]:
    """This worker's lanes that have rows; those of its replicas, where the strategy has some."""
    return [lane for lane in every(group, seed, way) if ROWS[lane]]


def every(group: Group, seed: int | None = None, way: Way = ("all_reduce", "order")) -> list[int]:
    """This worker's lanes, with rows or without."""
    found = dealt(group.size, seed)[group.rank]
    if own := replicas(way, group.size):
        lanes = carried(LANES, REPLICAS)
        found = sorted(lane for replica in own[group.rank] for lane in lanes[replica])
    return found


def made(
    way: Way,
    model: nn.Module,
    group: Group | None,
    tail: int = 0,
    changes: int = CHANGES,
    among: Sequence[Sequence[int]] | None = None,
    kept: Kept | None = None,
) -> Strategy:
    """The strategy under test, for the contract's lanes; among: its replicas by rank, where they are not dealt in
    turn."""
    return create(
        options(way),
        list(model.parameters()),
        reproducible=way[1],
        lanes=LANES,
        tail=tail,
        changes=changes,
        group=group,
        replicas=among or replicas(way, group.size if group is not None else 1),
        kept=kept,
    )


def do_lanes(
    strategy: Strategy,
    model: nn.Module,
    lanes: Sequence[int],
    step: int = 0,
    between: Callable[[], Any] | None = None,
) -> None:
    """A worker's part of a step, up to `finish`."""
    strategy.begin(lanes)
    for lane in lanes:
        value = loss(model, lane, step)
        if between is not None:
            between()
        strategy.before_backward(lane, last=lane == lanes[-1])
        value.backward()
        strategy.after_backward()
        strategy.lane_done(change(lane, step))


def assert_sums(model: nn.Module, wanted: dict[str, torch.Tensor | None], way: Way) -> None:
    for name, parameter in model.named_parameters():
        given, right = parameter.grad, wanted[name]
        if right is None:
            assert given is None, f"{name} was used by no lane and has a gradient"
        else:
            assert given is not None, f"{name} has no gradient"
            grad = given.cpu()
            tolerance = TOLERANCES.get(options(way).compression.kind, 1e-6)
            tolerance = 2e-2 if right.dtype == torch.bfloat16 else tolerance
            assert torch.allclose(grad, right, rtol=tolerance, atol=tolerance), f"{name}: {grad} is not {right}"


def gradients_are_the_sum_over_all_lanes(group: Group, way: Way) -> None:
    model = Net().to(group.device)
    strategy = made(way, model, group, 2)
    for step, seed in enumerate([None, 1, 2, 3]):
        do_lanes(strategy, model, mine(group, seed, way), step)
        _, changes = strategy.finish(torch.zeros(2))
        assert_sums(model, expected(step), way)
        assert torch.allclose(changes, in_tree_order(step)[1], atol=1e-5)


def bitwise_sums_are_those_of_the_tree(group: Group, way: Way) -> None:
    if way[1] != "bitwise" or options(way).compresses:
        return
    model = Net().to(group.device)
    strategy = made(way, model, group)
    for step in range(8):
        do_lanes(strategy, model, mine(group, step or None, way), step)
        _, changes = strategy.finish(torch.zeros(0))
        sums, wanted_changes = in_tree_order(step)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.equal(parameter.grad.cpu(), sums[name]), f"step {step}: {name} is not the same to the bit"
        assert torch.equal(changes, wanted_changes)


def zero_grad_in_the_loop_loses_nothing(group: Group, way: Way) -> None:
    model = Net().to(group.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = made(way, model, group, 2)
    for step in range(2):
        do_lanes(strategy, model, mine(group, way=way), step, lambda: optimizer.zero_grad(set_to_none=True))
        strategy.finish(torch.zeros(2))
        assert_sums(model, expected(step), way)


def gradients_changed_between_lanes_are_refused(group: Group, way: Way) -> None:
    """Or do no harm, where the strategy keeps the sums out of reach. For a worker alone."""
    model = Net().to(group.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = made(way, model, group)
    try:
        do_lanes(strategy, model, mine(group, way=way), between=lambda: optimizer.zero_grad(set_to_none=False))
        strategy.finish(torch.zeros(0))
    except BadInput:
        return
    assert_sums(model, expected(), way)


def a_backward_pass_of_the_users_own_is_refused(group: Group, way: Way) -> None:
    """For a worker alone."""
    model = Net().to(group.device)
    strategy = made(way, model, group)
    try:
        do_lanes(strategy, model, mine(group, way=way), between=lambda: loss(model, 0).backward())
        strategy.finish(torch.zeros(0))
    except BadInput:
        return
    raise AssertionError("a backward() between the lanes went into the sum unseen")


def the_state_of_unused_parameters_does_not_move(group: Group, way: Way) -> None:
    model = Net().to(group.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    strategy = made(way, model, group)
    for step in range(2):
        do_lanes(strategy, model, mine(group, way=way), step)
        strategy.finish(torch.zeros(0))
        optimizer.step()
    assert model.never.weight not in optimizer.state
    assert torch.equal(model.never.weight.cpu(), Net().never.weight), "weight decay moved it"
    assert optimizer.state[model.sometimes.weight]["step"] == 2, "used by one lane, moved on every worker"


def the_tail_arrives_exactly(group: Group, way: Way) -> None:
    model = Net().to(group.device)
    values = torch.randn(300, generator=torch.Generator().manual_seed(1)) * 1e6
    part = torch.where(torch.arange(300) % group.size == group.rank, values, torch.zeros(300))
    strategy = made(way, model, group, 300)
    for step in range(2):
        do_lanes(strategy, model, mine(group, way=way), step)
        assert torch.equal(strategy.finish(part)[0], values)
        assert_sums(model, expected(step), way)


def a_worker_without_lanes_takes_part(group: Group, way: Way) -> None:
    """In the last step of an epoch a worker may carry only empty lanes."""
    model = Net().to(group.device)
    among = [range(REPLICAS), *[()] * (group.size - 1)] if options(way).compresses else None
    strategy = made(way, model, group, 1, among=among)
    do_lanes(strategy, model, [lane for lane in range(LANES) if ROWS[lane]] if group.rank == 0 else [])
    assert strategy.finish(torch.ones(1))[0].item() == group.size
    assert_sums(model, expected(), way)


def a_step_begun_again_leaves_nothing_behind(group: Group, way: Way) -> None:
    """The sums are right, or the peers are lost; never wrong."""
    model = Net().to(group.device)
    strategy = made(way, model, group)
    lanes = mine(group, way=way)
    for done in range(len(lanes)):
        strategy.begin(lanes)
        for lane in lanes[:done]:
            strategy.before_backward(lane, last=False)
            loss(model, lane, step=9).backward()
            strategy.after_backward()
            strategy.lane_done(change(lane, 9))
    do_lanes(strategy, model, lanes)
    try:
        _, changes = strategy.finish(torch.zeros(0))
    except PeerLost:
        assert group.size > 1, "a worker alone has no peer to lose"
        return
    assert_sums(model, expected(), way)
    assert torch.allclose(changes, in_tree_order()[1], atol=1e-5)


def gradients_that_are_no_numbers_are_known(group: Group, way: Way) -> None:
    """By all workers, whoever has them and whichever bucket they are in; and only those."""
    model = Net().to(group.device)
    strategy = made(way, model, group)
    for step, bad in enumerate([None, model.first.weight, model.coarse.bias, None, model.last.bias]):
        if bad is not None and 0 in mine(group, way=way):
            hook = bad.register_hook(lambda gradient, step=step: gradient * float("inf" if step % 2 else "nan"))
        do_lanes(strategy, model, mine(group, way=way), step)
        strategy.finish(torch.zeros(0))
        if bad is not None and 0 in mine(group, way=way):
            hook.remove()
        assert strategy.finite() == (bad is None), f"step {step}"
    strategy.close()


def closing_lets_go_of_the_model(group: Group, way: Way) -> None:
    model = Net().to(group.device)
    strategy = made(way, model, group, 1)
    do_lanes(strategy, model, mine(group, way=way))
    strategy.finish(torch.zeros(1))
    strategy.close()
    assert all(p.grad is None for p in model.parameters())
    loss(model, 0).backward()
    other = made(way, Net().to(group.device), group, 1)
    other.begin([])
    other.finish(torch.zeros(1))


def a_model_without_float32_works(group: Group, way: Way) -> None:
    model = nn.Linear(2, 1).bfloat16().to(group.device)
    strategy = made(way, model, group, 3, changes=0)
    lane = every(group, way=way)[0]
    strategy.begin([lane])
    strategy.before_backward(lane, last=True)
    model(torch.ones(1, 2, dtype=torch.bfloat16, device=group.device)).sum().backward()
    strategy.after_backward()
    strategy.lane_done(torch.zeros(0))
    assert strategy.finish(torch.ones(3))[0].tolist() == [group.size] * 3
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[group.size, group.size]]


def a_lost_peer_never_raises_in_backward(group: Group, way: Way) -> None:
    """The connection breaks before the last lane's backward pass; only `finish` says so. Leaves the group broken."""
    model = Net().to(group.device)
    strategy = made(way, model, group)
    strategy.begin(mine(group, way=way))
    group.sever()
    do_lanes(strategy, model, mine(group, way=way))
    try:
        strategy.finish(torch.zeros(0))
    except PeerLost:
        return
    assert group.size == 1, "a step was finished over broken connections"


def a_killed_peer_is_a_lost_peer(group: Group, way: Way, folder: str) -> float:
    """Rank 1 dies in its second step; the others repeat it without. Returns the seconds after which they knew."""
    model = Net().to(group.device)
    strategy = made(way, model, group, 1)
    do_lanes(strategy, model, mine(group, way=way))
    strategy.finish(torch.zeros(1))
    if group.rank == 1:
        strategy.begin(mine(group, way=way))
        die()
    do_lanes(strategy, model, mine(group, way=way), step=1)
    begun = time.monotonic()
    try:
        strategy.finish(torch.zeros(1))
    except PeerLost:
        seconds = time.monotonic() - begun
    else:
        raise AssertionError("a step was finished without the worker that is gone")
    strategy.close()
    group.close()
    fewer = connect_again(group, "fewer", max(group.rank - 1, 0), group.size - 1, folder)
    strategy = made(way, model, fewer, 1)
    for step in (1, 2):
        do_lanes(strategy, model, mine(fewer, way=way), step)
        assert strategy.finish(torch.ones(1))[0].item() == fewer.size
        assert_sums(model, expected(step), way)
    fewer.close()
    return seconds


CHECKS = [
    gradients_are_the_sum_over_all_lanes,
    bitwise_sums_are_those_of_the_tree,
    zero_grad_in_the_loop_loses_nothing,
    the_state_of_unused_parameters_does_not_move,
    the_tail_arrives_exactly,
    gradients_that_are_no_numbers_are_known,
    a_worker_without_lanes_takes_part,
    closing_lets_go_of_the_model,
    a_model_without_float32_works,
]
"""One after another in one group."""
BREAKING_CHECKS = [a_step_begun_again_leaves_nothing_behind, a_lost_peer_never_raises_in_backward]
"""Each in a group of its own."""
CHECKS_ALONE = [gradients_changed_between_lanes_are_refused, a_backward_pass_of_the_users_own_is_refused]
"""For a worker alone."""
