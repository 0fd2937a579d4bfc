"""Every strategy keeps the contract, on real process groups of 1, 2 and 3 workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from headway.errors import BadInput
from headway.job import STRATEGIES
from headway.strategies import all_reduce, create
from headway.testing import strategy as contract
from headway.testing.workers import run


def all_checks(rank: int, workers: int, name: str, bucket_bytes: int | None) -> None:
    """All in one group, one after another: a group costs more than a check."""
    if bucket_bytes is not None:
        all_reduce.BUCKET_BYTES = all_reduce.FIRST_BUCKET_BYTES = bucket_bytes
        if name == "all_reduce":
            assert len(all_reduce.AllReduce(contract.Net(), 1, 0)._flats[-1].buckets) > 3
    for check in contract.CHECKS:
        try:
            check(rank, workers, name)
        except Exception as error:
            raise AssertionError(f"{check.__name__}: {error}") from error


@pytest.mark.parametrize("bucket_bytes", [None, 16])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", STRATEGIES)
def test_contract(name: str, workers: int, bucket_bytes: int | None, tmp_path: Path) -> None:
    run(all_checks, workers, tmp_path, name, bucket_bytes)


@pytest.mark.parametrize("name", STRATEGIES)
def test_gradients_changed_between_lanes_are_refused(name: str) -> None:
    contract.gradients_changed_between_lanes_are_refused(0, 1, name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_gradients_changed_after_the_last_lane_are_refused(name: str) -> None:
    model = contract.Net()
    strategy = create(name, model, 1, 1)
    contract.do_lanes(strategy, model, 0, 1)
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    with pytest.raises(BadInput, match="changed between the lanes"):
        strategy.finish(torch.zeros(1))


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_killed_peer_is_a_lost_peer(name: str, workers: int, tmp_path: Path) -> None:
    begun = time.monotonic()
    seconds = run(contract.a_killed_peer_is_a_lost_peer, workers, tmp_path, name)
    assert seconds[1] is None
    assert all(s < 12.0 for i, s in enumerate(seconds) if i != 1)
    assert time.monotonic() - begun < 30.0


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(BadInput, match="Did you mean 'all_reduce'"):
        create("allreduce", nn.Linear(1, 1), 1, 0)


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        ([], []),
        ([1], [(0, 1)]),
        ([9, 1, 1], [(0, 1), (1, 3)]),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [(0, 2), (2, 6), (6, 10)]),
    ],
)
def test_buckets(sizes: list[int], cut: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_reduce, "FIRST_BUCKET_BYTES", 8)
    monkeypatch.setattr(all_reduce, "BUCKET_BYTES", 16)
    assert all_reduce.buckets(sizes, 4) == cut


def broken(check: Callable[..., None]) -> bool:
    try:
        check(0, 1, "all_reduce")
    except AssertionError:
        return True
    return False


def test_the_contract_finds_a_strategy_that_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite is worth as much as what it notices."""
    monkeypatch.setattr(all_reduce, "take_back", lambda parameter, view: setattr(parameter, "grad", view))
    assert broken(contract.zero_grad_in_the_loop_loses_nothing)
    monkeypatch.undo()
    finish = all_reduce.AllReduce.finish

    def everything_used(self: all_reduce.AllReduce, tail: torch.Tensor) -> torch.Tensor:
        self._used = [True] * len(self._used)
        return finish(self, tail)

    monkeypatch.setattr(all_reduce.AllReduce, "finish", lambda self, tail: finish(self, tail) + 1e-3)
    assert broken(contract.the_tail_arrives_exactly)
    monkeypatch.setattr(all_reduce.AllReduce, "finish", everything_used)
    assert broken(contract.the_state_of_unused_parameters_does_not_move)
