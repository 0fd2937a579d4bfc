"""The parameter server's bsp equals a plain loop to the bit, whoever carries what, and loses no update."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from headway.core.lanes import carried as in_turn
from headway.errors import BadInput
from headway.strategies import PeerLost
from headway.strategies.group import Group, Work
from headway.strategies.kept import Kept
from headway.strategies.parameter_server import Cut, Ranged, gathered_state, hand_over, is_elementwise, scattered
from headway.strategies.parameter_server.handing_over import whole_state
from headway.testing import strategy as contract
from headway.testing.strategy import CHANGES, LANES, ROWS, change, in_tree_order
from headway.testing.workers import CREWS, connect_again, crew, die, start_values

STEPS = 6
T = torch.optim


class Net(nn.Module):
    """Of tensors that are cut and others that are not, one of another dtype, one that some steps use, one that none
    does, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 70)
        self.second = nn.Linear(70, 31)
        self.coarse = nn.Linear(31, 31).bfloat16()
        self.sometimes = nn.Linear(31, 31)
        self.never = nn.Linear(3, 3)
        self.frozen = nn.Linear(31, 31).requires_grad_(False)
        self.last = nn.Linear(31, 1)
        start_values(self, 0)

    def forward(self, x: torch.Tensor, extra: bool) -> torch.Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        x = x + self.coarse(x.bfloat16()).float() + self.frozen(x)
        if extra:
            x = x + self.sometimes(x)
        result: torch.Tensor = self.last(torch.tanh(x))
        return result


class Normalised(Optimizer):
    """Moves each tensor by so much, whatever its gradient's size: no elementwise optimiser."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    (length,) = state.setdefault("length", [torch.zeros(())])  # a tensor in a list, changed in place
                    length += p.grad.float().norm().cpu()
                    p.add_(p.grad, alpha=-group["lr"] / float(length))


class Counting(Normalised):
    """Keeps a number in its groups."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1


MAKERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": partial(T.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "plain_sgd": partial(T.SGD, lr=0.1),
    "adam": partial(T.Adam, lr=0.01, amsgrad=True),
    "adamw": partial(T.AdamW, lr=0.01, weight_decay=0.1),
    "fused": partial(T.Adam, lr=0.01, fused=True),
    "adagrad": partial(T.Adagrad, lr=0.05, initial_accumulator_value=0.1),
    "rmsprop": partial(T.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "normalised": partial(Normalised, lr=0.01),
}


def two_groups(model: Net, make: Callable[..., Optimizer]) -> Optimizer:
    """Over all parameters, in another order than the model's."""
    last = [*model.last.parameters(), *model.sometimes.parameters()]
    ours = {id(p) for p in last}
    rest = [p for p in model.parameters() if id(p) not in ours]
    return make([{"params": last, "lr": 0.02}, {"params": rest}])


def loss(model: Net, lane: int, step: int) -> torch.Tensor:
    rows = torch.randn(ROWS[lane], 6, generator=torch.Generator().manual_seed(100 * step + lane))
    there = next(model.parameters()).device
    value: torch.Tensor = model(rows.to(there), extra=lane == 3 and step % 2 == 1).square().sum() / sum(ROWS)
    return value


@lru_cache(maxsize=8)
def in_one_process(make: Callable[..., Optimizer], steps: int = STEPS, schedule: bool = False) -> tuple[Net, Optimizer]:
    """The plain loop: lanes' gradients are added up by halves, then the optimiser is stepped."""
    model = Net()
    optimizer = two_groups(model, make)
    rates = LambdaLR(optimizer, lambda step: 0.5**step) if schedule else None
    for step in range(steps):
        sums = tree_sums(model, step)
        for name, parameter in model.named_parameters():
            parameter.grad = sums.get(name)
        optimizer.step()
        if rates is not None:
            rates.step()
    return model, optimizer


def tree_sums(model: Net, step: int) -> dict[str, torch.Tensor]:
    found: list[dict[str, torch.Tensor] | None] = []
    used: set[str] = set()
    for lane in range(LANES):
        model.zero_grad()
        if ROWS[lane]:
            loss(model, lane, step).backward()
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        used |= {n for n, p in trained if p.grad is not None}
        found.append({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in trained} if ROWS[lane] else None)

    def node(first: int, width: int) -> dict[str, torch.Tensor] | None:
        if width == 1:
            return found[first] if first < LANES else None
        left, right = node(first, width // 2), node(first + width // 2, width // 2)
        if left is None or right is None:
            return left or right
        return {name: left[name] + right[name] for name in left}

    whole = node(0, 8)
    assert whole is not None
    return {name: value for name, value in whole.items() if name in used}


class Worker:
    """One worker's part of a run: model, optimiser, what is kept."""

    def __init__(self, make: Callable[..., Optimizer], device: torch.device, bitwise: bool = True) -> None:
        self.model = Net().to(device)
        self.optimizer = two_groups(self.model, make)
        self.cut = Cut(list(self.model.parameters()), LANES, whole=not is_elementwise(self.optimizer))
        self.kept = Kept()
        self.bitwise = bitwise
        self.clip_norm: float | None = None
        self.scale = 1.0
        self.rates: LambdaLR | None = None

    def join(self, group: Group, carried: Sequence[Sequence[int]], fail_over: bool = True) -> tuple[int, ...]:
        self.group, self.carried = group, carried
        lost = hand_over(group, carried, self.kept, fail_over=fail_over)
        self.strategy = Ranged(
            self.cut,
            list(self.model.parameters()),
            lanes=LANES,
            tail=3,
            changes=CHANGES,
            group=group,
            carried=carried,
            kept=self.kept,
            bitwise=self.bitwise,
            fail_over=fail_over,
        )
        return lost

    def sums(self, step: int) -> torch.Tensor:
        strategy, rank = self.strategy, self.group.rank
        lanes = [lane for lane in self.carried[rank] if ROWS[lane]]
        strategy.begin(lanes)
        for lane in lanes:
            value = loss(self.model, lane, step) * self.scale
            strategy.before_backward(lane, last=lane == lanes[-1])
            value.backward()
            strategy.after_backward()
            strategy.lane_done(change(lane, step))
        tail = torch.zeros(3)
        tail[min(rank, 2)] = rank + 0.1
        summed, changes = strategy.finish(tail)
        if self.group.size <= 3:
            assert torch.equal(summed[: self.group.size], torch.arange(self.group.size) + 0.1)
        return changes

    def step(self, step: int) -> None:
        changes = self.sums(step)
        if self.bitwise:
            assert torch.equal(changes, in_tree_order(step)[1])
        assert self.strategy.finite()
        self.strategy.update(self.optimizer, self.clip_norm, self.scale)
        self.strategy.commit()
        if self.rates is not None:
            self.rates.step()

    def require(self, wanted: Net, optimizer: Optimizer, tolerance: float | None = None) -> None:
        for (name, mine), theirs in zip(self.model.named_parameters(), wanted.parameters(), strict=True):
            require_same(name, mine, theirs, tolerance)
        found = gathered_state(self.group, self.carried, self.kept, self.cut, self.optimizer)
        self.group.barrier()  # who is through may close the group
        right = optimizer.state_dict()
        assert found["param_groups"] == right["param_groups"]
        assert {k for k, v in found["state"].items() if v} == {k for k, v in right["state"].items() if v}
        for index, state in right["state"].items():
            assert found["state"][index].keys() == state.keys()
            for key, value in state.items():
                require_same(f"{key} of {index}", found["state"][index][key], value, tolerance)


def require_same(name: str, mine: Any, theirs: Any, tolerance: float | None) -> None:
    if isinstance(theirs, list):
        for one, other in zip(mine, theirs, strict=True):
            require_same(name, one, other, tolerance)
    elif not isinstance(theirs, torch.Tensor):
        assert mine == pytest.approx(theirs, rel=tolerance or 0.0), name
    elif tolerance is None:
        assert mine.shape == theirs.shape, name
        assert torch.equal(mine.cpu(), theirs), f"{name} is not the same to the bit"
    else:
        assert torch.allclose(mine.cpu().float(), theirs.float(), rtol=tolerance, atol=tolerance), name


def dealt(workers: int, turn: int = 0) -> list[list[int]]:
    """Ranges by rank; each turn deals them otherwise."""
    found = [list(each) for each in in_turn(LANES, workers)]
    if turn % 3 == 1:
        found = found[1:] + found[:1]
    if turn % 3 == 2:
        found = [list(range(rank, LANES, workers)) for rank in range(workers)]
    return found


def one_loop(group: Group, name: str, bitwise: bool, schedule: bool) -> None:
    worker = Worker(MAKERS[name], group.device, bitwise)
    if schedule:
        worker.rates = LambdaLR(worker.optimizer, lambda step: 0.5**step)
    worker.join(group, dealt(group.size))
    for step in range(STEPS):
        worker.step(step)
    assert len(worker.optimizer.state) == 0, "the state is in the ranges"
    wanted = in_one_process(MAKERS[name], schedule=schedule)
    worker.require(*wanted, None if bitwise else 2e-2)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", MAKERS)
def test_equals_a_loop_in_one_process(name: str, workers: int, tmp_path: Path) -> None:
    in_one_process(MAKERS[name], schedule=name == "adamw")  # once for all that compare with it
    crew("threads", tmp_path)(one_loop, workers, name, True, name == "adamw")


@pytest.mark.parametrize("backend", [each for each in CREWS if each != "threads"])
def test_over_real_connections(backend: str, tmp_path: Path) -> None:
    crew(backend, tmp_path)(one_loop, 3, "adam", True, False)


@pytest.mark.parametrize("workers", [1, 3])
def test_in_any_order_it_is_near(workers: int, tmp_path: Path) -> None:
    crew("threads", tmp_path)(one_loop, workers, "sgd", False, False)


def moves(group: Group, name: str) -> None:
    worker = Worker(MAKERS[name], group.device)
    for step in range(STEPS):
        assert worker.join(group, dealt(group.size, step)) == ()
        worker.step(step)
        worker.strategy.close()
    worker.require(*in_one_process(MAKERS[name]))


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", ["adagrad", "adam", "normalised"])
def test_ranges_move(name: str, workers: int, tmp_path: Path) -> None:
    crew("threads", tmp_path)(moves, workers, name)


def death(group: Group, name: str, gone: int, folder: str, fail_over: bool) -> tuple[int, ...]:
    worker = Worker(MAKERS[name], group.device)
    worker.join(group, dealt(group.size), fail_over)
    for step in range(3):
        worker.step(step)
    if group.rank == gone:
        die()
    with pytest.raises(PeerLost):
        worker.step(3)
    worker.strategy.close()
    group.close()
    rank = group.rank - (group.rank > gone)
    fewer = connect_again(group, "fewer", rank, group.size - 1, folder)
    lost = worker.join(fewer, dealt(fewer.size), fail_over)
    if not lost:
        for step in range(3, STEPS):
            worker.step(step)
        worker.require(*in_one_process(MAKERS[name]))
    fewer.close()
    return lost


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("name", ["adagrad", "adam"])
def test_a_lost_carrier_costs_no_update(name: str, gone: int, tmp_path: Path) -> None:
    found = crew("threads", tmp_path)(death, 3, name, gone, str(tmp_path), True)
    assert [each for rank, each in enumerate(found) if rank != gone] == [(), ()]


def test_without_fail_over_what_is_lost_is_named(tmp_path: Path) -> None:
    found = crew("threads", tmp_path)(death, 3, "adam", 1, str(tmp_path), False)
    assert [found[0], found[2]] == [tuple(dealt(3)[1])] * 2


def in_doubt(group: Group, ahead: int) -> None:
    """One worker has applied the update; the others were told of a loss just before, and it may carry nothing now."""
    worker = Worker(MAKERS["adam"], group.device)
    worker.join(group, dealt(group.size))
    worker.step(0)
    worker.sums(1)
    worker.strategy.update(worker.optimizer)
    if group.rank == ahead:
        worker.strategy.commit()
    worker.strategy.close()
    group.barrier()  # `close` has nothing under way to break off
    for parameter in worker.model.parameters():
        group.broadcast(parameter, ahead)
    worker.kept.common = group.share(worker.kept.common, ahead)
    rest = [each for rank, each in enumerate(dealt(group.size)) if rank != ahead]
    rest[0] = sorted(rest[0] + dealt(group.size)[ahead])
    assert worker.join(group, [*rest[:ahead], [], *rest[ahead:]]) == ()
    for step in range(2, STEPS):
        worker.step(step)
    worker.require(*in_one_process(MAKERS["adam"]))


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_update_that_one_applied_is_everybodys(ahead: int, tmp_path: Path) -> None:
    crew("threads", tmp_path)(in_doubt, 3, ahead)


def undone(group: Group, name: str) -> None:
    """Nobody has applied it: it is done again."""
    worker = Worker(MAKERS[name], group.device)
    worker.join(group, dealt(group.size))
    worker.step(0)
    before = copy.deepcopy(worker.kept)
    values = [p.detach().clone() for p in worker.model.parameters()]
    worker.sums(5)
    worker.strategy.update(worker.optimizer)
    for mine, old in zip(worker.model.parameters(), values, strict=True):
        assert torch.equal(mine, old), "an update is beside the old numbers until it is applied"
    require_equal_trees(worker.kept.own, before.own)
    require_equal_trees(worker.kept.backups, before.backups)
    for step in range(1, STEPS):
        worker.step(step)
    worker.require(*in_one_process(MAKERS[name]))


def require_equal_trees(mine: Any, other: Any) -> None:
    if isinstance(mine, dict):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            require_equal_trees(value, other[key])
    elif isinstance(mine, list):
        for value, right in zip(mine, other, strict=True):
            require_equal_trees(value, right)
    else:
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(other))


@pytest.mark.parametrize("name", ["adam", "normalised"])
def test_an_update_that_is_not_committed_leaves_nothing(name: str, tmp_path: Path) -> None:
    crew("threads", tmp_path)(undone, 2, name)


def clipped(group: Group) -> tuple[list[float], list[torch.Tensor]]:
    worker = Worker(MAKERS["sgd"], group.device)
    worker.clip_norm, worker.scale = 0.05, 8.0
    worker.join(group, dealt(group.size))
    norms = []
    for step in range(3):
        worker.sums(step)
        wanted = torch.nn.utils.get_total_norm(list(tree_sums(copy.deepcopy(worker.model), step).values()))
        norms.append(worker.strategy.norm())
        assert norms[-1] == pytest.approx(8.0 * float(wanted), rel=1e-3)
        worker.strategy.gradients()
        assert worker.model.never.weight.grad is None
        whole = torch.nn.utils.get_total_norm([p.grad for p in worker.model.parameters() if p.grad is not None])
        assert float(whole) == pytest.approx(norms[-1], rel=1e-3)
        worker.strategy.update(worker.optimizer, worker.clip_norm, worker.scale)
        worker.strategy.commit()
    return norms, [p.detach().clone() for p in worker.model.parameters()]


def test_a_clipped_update_is_the_same_on_any_number_of_workers(tmp_path: Path) -> None:
    found = [each for workers in (1, 2, 3) for each in crew("threads", tmp_path)(clipped, workers)]
    for norms, values in found[1:]:
        assert norms == found[0][0]
        assert all(torch.equal(mine, first) for mine, first in zip(values, found[0][1], strict=True))


def no_number(group: Group) -> None:
    worker = Worker(MAKERS["sgd"], group.device)
    worker.join(group, dealt(group.size))
    if 0 in worker.carried[group.rank]:
        worker.model.coarse.bias.register_hook(lambda gradient: gradient * float("nan"))
    worker.sums(0)
    assert not worker.strategy.finite()


@pytest.mark.parametrize("workers", [1, 3])
def test_gradients_that_are_no_numbers_are_known_to_all(workers: int, tmp_path: Path) -> None:
    crew("threads", tmp_path)(no_number, workers)


def test_a_whole_state_is_cut_and_joined() -> None:
    model, optimizer = in_one_process(MAKERS["adam"])
    cut = Cut(list(model.parameters()), 5)
    trees = scattered(optimizer.state_dict(), cut, optimizer, range(5))
    fresh = two_groups(model, MAKERS["adam"])
    found = whole_state(trees, cut, fresh)["state"]
    for index, state in optimizer.state_dict()["state"].items():
        require_equal_trees(found[index], state)


def goes_on(group: Group, state: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    worker = Worker(MAKERS["adam"], group.device)
    worker.model.load_state_dict(weights)
    worker.optimizer.load_state_dict(state)
    worker.join(group, dealt(group.size))
    for step in range(3, STEPS):
        worker.step(step)
    worker.require(*in_one_process(MAKERS["adam"]))


def test_goes_on_from_another_strategys_checkpoint(tmp_path: Path) -> None:
    model, optimizer = in_one_process(MAKERS["adam"], steps=3)
    crew("threads", tmp_path)(goes_on, 2, optimizer.state_dict(), model.state_dict())


def counts(group: Group) -> None:
    worker = Worker(partial(Counting, lr=0.1), group.device)
    worker.join(group, dealt(group.size))
    with pytest.raises(BadInput, match="'k' in its groups"):
        worker.step(0)


def test_an_optimiser_with_numbers_in_its_groups_is_refused(tmp_path: Path) -> None:
    crew("threads", tmp_path)(counts, 1)


def test_only_torchs_own_are_elementwise() -> None:
    class Mine(T.Adam):
        pass

    weights = [nn.Parameter(torch.zeros(2))]
    assert is_elementwise(T.Adam(weights))
    assert not is_elementwise(Mine(weights))
    assert not is_elementwise(T.LBFGS(weights))


class Whole(Ranged):
    """As the contract wants it: all gradients are there after `finish`."""

    def finish(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = super().finish(tail)
        self.gradients()
        return found


def made(
    way: contract.Way, model: nn.Module, group: Group, tail: int = 0, changes: int = CHANGES, among: object = None
) -> Ranged:
    parameters = list(model.parameters())
    return Whole(
        Cut(parameters, 5),
        parameters,
        lanes=LANES,
        tail=tail,
        changes=changes,
        group=group,
        carried=in_turn(5, group.size),
        kept=Kept(),
        bitwise=way[1] == "bitwise",
    )


def all_checks(group: Group, way: contract.Way) -> None:
    for check in contract.CHECKS:
        check(group, way)


ways = pytest.mark.parametrize("way", [("parameter_server", mode) for mode in ("order", "bitwise")])


@pytest.mark.parametrize(("backend", "workers"), [("threads", 1), ("threads", 2), ("threads", 5), ("nccl_like", 3)])
@ways
def test_keeps_the_contract_of_sums(
    way: contract.Way, backend: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "made", made)
    crew(backend, tmp_path)(all_checks, workers, way)


@pytest.mark.parametrize("check", contract.BREAKING_CHECKS)
@pytest.mark.parametrize("workers", [1, 3])
@ways
def test_broken_off(
    way: contract.Way, workers: int, check: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "made", made)
    crew("threads", tmp_path)(check, workers, way)


@pytest.mark.parametrize("check", contract.CHECKS_ALONE)
@ways
def test_meddling_with_gradients(
    way: contract.Way, check: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "made", made)
    crew("threads", tmp_path)(check, 1, way)


def counted(group: Group) -> tuple[int, int]:
    """Bytes that a step gives to others, and those of all gradients."""
    worker = Worker(MAKERS["adam"], group.device)
    worker.bitwise = False
    worker.join(group, dealt(group.size))
    worker.step(0)
    sent, to_all = 0, group.all_to_all

    def to_each(output: torch.Tensor, input: torch.Tensor, output_sizes: Any, input_sizes: Any) -> Work:
        nonlocal sent
        sent += input.itemsize * sum(size for rank, size in enumerate(input_sizes) if rank != group.rank)
        return to_all(output, input, output_sizes, input_sizes)

    group.all_to_all = to_each  # type: ignore[method-assign]
    worker.step(1)
    return sent, sum(p.nbytes for p in worker.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("workers", [2, 3])
def test_a_step_moves_an_all_reduces_bytes_and_one_share(workers: int, tmp_path: Path) -> None:
    found = crew("threads", tmp_path)(counted, workers)
    whole = found[0][1]
    allowed = whole * (2 * (workers - 1) + 1)  # gradients to carriers and values to all; what is summed to its copy
    assert 0.95 * allowed < sum(sent for sent, _ in found) < 1.05 * allowed, "beside what the lanes changed"
