"""Sums over replicas: the same bits for any workers that carry them, complete or PeerLost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from headway.strategies import PeerLost, totals
from headway.strategies.group import Group
from headway.testing.workers import crew, die

COUNT = 5
ELEMENTS = 1003
"""Divisible by no number of workers."""


def value(replica: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(replica)
    return torch.randn(ELEMENTS, generator=draws) * 10.0 ** torch.randint(-6, 6, (ELEMENTS,), generator=draws)


def in_tree_order(present: set[int]) -> torch.Tensor:
    def node(first: int, width: int) -> torch.Tensor | None:
        if width == 1:
            return value(first) if first in present else None
        left, right = node(first, width // 2), node(first + width // 2, width // 2)
        return right if left is None else left if right is None else left + right

    found = node(0, 8)
    return torch.zeros(ELEMENTS) if found is None else found


def dealt(workers: int, seed: int, present: set[int]) -> list[list[int]]:
    choose = random.Random(seed)
    carriers = {replica: choose.randrange(workers) for replica in sorted(present)}
    return [[replica for replica, rank in carriers.items() if rank == each] for each in range(workers)]


def sums(group: Group, seeds: int) -> None:
    for seed in range(seeds):
        present = set(random.Random(seed).sample(range(COUNT), [COUNT, 3, COUNT, 1, 0][seed % 5]))
        replicas = dealt(group.size, seed, present)
        values = {replica: value(replica).to(group.device) for replica in replicas[group.rank]}
        out = torch.full((ELEMENTS,), 7.0).to(group.device)
        totals.total(group, values, out, replicas, COUNT)
        assert torch.equal(out.cpu(), in_tree_order(present)), f"seed {seed}: {replicas}"
        for replica, given in values.items():
            assert torch.equal(given.cpu(), value(replica)), "the caller's tensors are its own"


def under_way(group: Group) -> None:
    """Several at a time, and other collectives between."""
    replicas = dealt(group.size, 1, set(range(COUNT)))
    values = {replica: value(replica) for replica in replicas[group.rank]}
    twice = {replica: 2 * value(replica) for replica in replicas[group.rank]}
    outs = [torch.zeros(ELEMENTS), torch.zeros(ELEMENTS)]
    started = [totals.start(group, each, out, replicas, COUNT) for each, out in zip((values, twice), outs, strict=True)]
    assert group.total(torch.ones(1)).item() == group.size
    for each in started:
        each.wait()
    wanted = in_tree_order(set(range(COUNT)))
    assert torch.equal(outs[0], wanted)
    assert torch.equal(outs[1], 2 * wanted)


def broken_off(group: Group) -> None:
    replicas = dealt(group.size, 1, set(range(COUNT)))
    values = {replica: value(replica) for replica in replicas[group.rank]}
    if group.rank == 1:
        die()
    started = totals.start(group, values, torch.zeros(ELEMENTS), replicas, COUNT)
    with pytest.raises(PeerLost):
        started.wait()


@pytest.mark.parametrize("bucket_bytes", [totals.BUCKET_BYTES, 400])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_the_bits_do_not_hang_on_the_workers(
    workers: int, bucket_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "BUCKET_BYTES", bucket_bytes)
    crew("threads", tmp_path)(sums, workers, 10)


@pytest.mark.parametrize(
    ("backend", "check"),
    [("gloo", sums), ("nccl_like", sums), ("threads", under_way), ("gloo", under_way), ("threads", broken_off)],
)
def test_over(backend: str, check: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "BUCKET_BYTES", 400)
    crew(backend, tmp_path)(check, 3, *([5] if check is sums else []))


def test_a_worker_alone_needs_no_group() -> None:
    out = torch.empty(ELEMENTS)
    totals.total(None, {replica: value(replica) for replica in range(COUNT)}, out, [range(COUNT)], COUNT)
    assert torch.equal(out, in_tree_order(set(range(COUNT))))
