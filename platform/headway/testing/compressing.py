"""What a strategy promises that sends less than the numbers, beside the contract of `headway.testing.strategy`.

@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_contract(check, workers, tmp_path):
    options = Strategy(kind="all_reduce", compression=Compression(kind="int8", dense_below=0))
    crew("threads", tmp_path)(check, workers, (options, "order"))
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from headway.strategies import Strategy
from headway.strategies.group import Group
from headway.strategies.kept import Kept
from headway.testing.strategy import LANES, REPLICAS, ROWS, Net, Way, do_lanes, expected, made, mine, options, replicas


def a_step(strategy: Strategy, model: nn.Module, lanes: Sequence[int], step: int, tail: int = 3) -> list[torch.Tensor]:
    """All that comes of a step, on the CPU."""
    do_lanes(strategy, model, lanes, step)
    sums = strategy.finish(torch.full((tail,), float(len(lanes))))
    return [*sums, *(p.grad.cpu().clone() for p in model.parameters() if p.grad is not None)]


def alone(way: Way, steps: Sequence[int], kept: Kept, model: nn.Module | None = None) -> list[list[torch.Tensor]]:
    """All that comes of some steps, each committed, in one worker that carries all replicas."""
    model = model or Net()
    strategy = made(way, model, None, 3, among=[range(REPLICAS)], kept=kept)
    lanes = [lane for lane in range(LANES) if ROWS[lane]]
    found = []
    for step in steps:
        found.append(a_step(strategy, model, lanes, step))
        strategy.commit()
    strategy.close()
    return found


def assert_same(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], what: str) -> None:
    assert len(found) == len(wanted), what
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True)), f"{what}: other bits"


def the_bits_do_not_hang_on_the_workers(group: Group, way: Way) -> None:
    """For the same replicas; in both modes."""
    model, kept, whole = Net().to(group.device), Kept(), Kept()
    strategy = made(way, model, group, 3, kept=kept)
    for step, wanted in enumerate(alone(way, range(3), whole)):
        found = a_step(strategy, model, mine(group, way=way), step)
        strategy.commit()
        assert_same(found, wanted, f"step {step}")
    assert packed(kept.common) == packed(whole.common), "what all keep"
    for replica in replicas(way, group.size)[group.rank]:
        assert packed(kept.own.get(replica)) == packed(whole.own.get(replica)), f"what replica {replica} keeps"


def a_step_that_is_done_again_moves_nothing_that_is_kept(group: Group, way: Way) -> None:
    """Summed, and not committed, since somebody else was lost: the sum is the same again."""
    model, kept = Net().to(group.device), Kept()
    strategy = made(way, model, group, 3, kept=kept)
    lanes = mine(group, way=way)
    a_step(strategy, model, lanes, 0)
    strategy.commit()
    before = packed([kept.common, kept.own])
    found = a_step(strategy, model, lanes, 1)
    assert_same(a_step(strategy, model, lanes, 1), found, "done again")
    assert packed([kept.common, kept.own]) == before, "what is kept moved before the step was committed"
    strategy.commit()


def what_is_kept_moves_with_replicas(group: Group, way: Way) -> None:
    """Two steps alone, then two by these workers with what was kept: as four alone."""
    kept, whole = Kept(), Kept()
    alone(way, range(2), kept)
    wanted = alone(way, range(4), whole)[2:]
    kept.carry(replicas(way, group.size)[group.rank])
    model = Net().to(group.device)
    strategy = made(way, model, group, 3, kept=copy.deepcopy(kept))
    for step in (2, 3):
        assert_same(a_step(strategy, model, mine(group, way=way), step), wanted[step - 2], f"step {step}")
        strategy.commit()


def gradients_that_are_no_numbers_are_not_kept(group: Group, way: Way) -> None:
    """The step that has some may be committed, passed over: the next one is as if it had not been."""
    model, kept = Net().to(group.device), Kept()
    strategy = made(way, model, group, 3, kept=kept)
    lanes = mine(group, way=way)
    for step in range(3):
        hook = model.first.weight.register_hook(lambda gradient, bad=step == 1: gradient * (float("nan") if bad else 1))
        found = a_step(strategy, model, lanes, step)
        hook.remove()
        assert strategy.finite() == (step != 1)
        strategy.commit()
    assert_same(found, alone(way, [0, 2], Kept())[1], "after it")


def what_is_left_out_arrives(group: Group, way: Way) -> None:
    """The same step again and again: the mean of what arrived comes nearer and nearer to the exact sum, since no more
    than a few steps' worth is kept back. For a strategy that feeds back what it leaves out, as it is."""
    compression = options(way).compression
    if compression.kind in ("fp16", "bf16") or not compression.error_feedback or compression.momentum:
        return
    model = Net().to(group.device)
    wanted = torch.cat([right.view(-1) for right in expected().values() if right is not None])
    strategy = made(way, model, group, 3, kept=Kept())
    arrived, missing = torch.zeros_like(wanted), {}
    for step in range(1, 31):
        arrived += torch.cat([each.view(-1) for each in a_step(strategy, model, mine(group, way=way), 0)[2:]])
        strategy.commit()
        missing[step] = float((arrived / step - wanted).norm() / wanted.norm())
    assert missing[30] < 0.5 * missing[6], f"{missing[6]:.2g} is missing after 6 steps, {missing[30]:.2g} after 30"


def packed(tree: Any) -> Any:
    """What is kept, so that it can be compared to the bit."""
    if isinstance(tree, torch.Tensor):
        return tree.cpu().numpy().tobytes()
    if isinstance(tree, dict):
        return {key: packed(value) for key, value in tree.items()}
    return [packed(each) for each in tree] if isinstance(tree, list) else tree


CHECKS = [
    the_bits_do_not_hang_on_the_workers,
    a_step_that_is_done_again_moves_nothing_that_is_kept,
    what_is_kept_moves_with_replicas,
    gradients_that_are_no_numbers_are_not_kept,
    what_is_left_out_arrives,
]
"""One after another in one group."""
