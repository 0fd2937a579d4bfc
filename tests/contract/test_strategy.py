"""Every strategy keeps the contract in both modes, in groups of 1, 2, 3 and 5 workers: threads over what is like
gloo and what is like NCCL, and some in processes over gloo."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from headway.core import reduction
from headway.errors import BadInput
from headway.strategies import Reproducible, all_reduce, create, flat
from headway.strategies.compress.exchange import Exchange
from headway.strategies.compressed import Compressed
from headway.strategies.connect import connect
from headway.strategies.group import Group
from headway.strategies.options import Compression, Strategy
from headway.testing import compressing
from headway.testing import strategy as contract
from headway.testing.strategy import Way
from headway.testing.workers import CREWS, TIMEOUT_S, crew


def how(**options: Any) -> Strategy:
    return Strategy(kind="all_reduce", compression=Compression(**options))


def called(way: Way) -> str:
    return "-".join([way[0] if isinstance(way[0], str) else way[0].compression.kind, way[1]])


WAYS: list[Way] = [("all_reduce", mode) for mode in ("order", "bitwise")]
ways = pytest.mark.parametrize("way", WAYS, ids=called)
NEAR: list[Way] = [
    (how(kind="fp16"), "order"),
    (how(kind="bf16"), "order"),
    (how(kind="int8", dense_below=0), "bitwise"),
    (how(kind="top_k", ratio=1.0, dense_below=0), "order"),
    (how(kind="power_sgd", start_step=1000), "order"),
]
"""All that leave out little or nothing in one sum."""
FAR: list[Way] = [
    (how(kind="fp16"), "order"),
    (how(kind="int8", dense_below=0), "order"),
    (how(kind="top_k", ratio=0.1, dense_below=0), "order"),
    (how(kind="power_sgd", rank=2, dense_below=0), "bitwise"),
    (how(kind="power_sgd", rank=2, dense_below=0, start_step=2), "order"),
]
"""As they are used."""


@pytest.fixture
def alone() -> Group:
    return connect(None, 0, 1)


def small_buckets(bucket_bytes: int | None, patch: pytest.MonkeyPatch | None = None) -> None:
    """In a worker that is a process; or, undone later, in those that are threads."""
    if bucket_bytes is not None:
        for name in ("BUCKET_BYTES", "FIRST_BUCKET_BYTES"):
            (patch or pytest.MonkeyPatch()).setattr(flat, name, bucket_bytes)
        assert len(flat.layouts(list(contract.Net().parameters()), 0)[-1].buckets) > 3


def all_checks(group: Group, way: Way, bucket_bytes: int | None) -> None:
    """All in one group, one after another: a group costs more than a check."""
    small_buckets(bucket_bytes)
    for check in contract.CHECKS:
        try:
            check(group, way)
        except Exception as error:
            raise AssertionError(f"{check.__name__}: {error}") from error


def breaking_check(group: Group, index: int, way: Way) -> None:
    small_buckets(16)
    contract.BREAKING_CHECKS[index](group, way)


backends = pytest.mark.parametrize("backend", CREWS)


@pytest.mark.parametrize(
    ("backend", "workers", "bucket_bytes"),
    [
        # All parameters in one bucket, as well: what is new there has nothing to do with how many workers there are.
        pytest.param(backend, workers, bucket, marks=[pytest.mark.long] if bucket is None and workers in (1, 5) else [])
        for bucket in (None, 16)
        for backend in CREWS
        for workers in ([2, 3] if backend == "gloo" else [1, 2, 3, 5])
    ],
)
@ways
def test_contract(
    way: Way, backend: str, workers: int, bucket_bytes: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend != "gloo":
        small_buckets(bucket_bytes, monkeypatch)
    crew(backend, tmp_path)(all_checks, workers, way, bucket_bytes if backend == "gloo" else None)


def compressed_checks(group: Group, way: Way, checks: Sequence[Callable[..., None]]) -> None:
    for check in checks:
        try:
            check(group, way)
        except Exception as error:
            raise AssertionError(f"{check.__name__}: {error!r}") from error


@pytest.mark.parametrize(
    ("way", "backend", "workers"),
    [
        *[(way, "threads", workers) for way in NEAR for workers in (1, 2, 3, 5)],
        *[(way, "nccl_like", 3) for way in NEAR[:3:2]],
    ],
    ids=lambda value: called(value) if isinstance(value, tuple) else str(value),
)
def test_contract_of_compressed(way: Way, backend: str, workers: int, tmp_path: Path) -> None:
    crew(backend, tmp_path)(all_checks, workers, way, None)


@pytest.mark.parametrize(
    ("way", "backend", "workers"),
    [
        *[(way, "threads", workers) for way in FAR for workers in (1, 2, 3)],
        *[(way, "nccl_like", 2) for way in FAR[1:4]],
        *[(way, "gloo", 3) for way in FAR[1:4:2]],
    ],
    ids=lambda value: called(value) if isinstance(value, tuple) else str(value),
)
def test_what_compressed_promises_besides(way: Way, backend: str, workers: int, tmp_path: Path) -> None:
    checks = compressing.CHECKS[:1] if backend == "nccl_like" else compressing.CHECKS  # its device is slow
    crew(backend, tmp_path)(compressed_checks, workers, way, checks)


@pytest.mark.parametrize("index", range(len(contract.BREAKING_CHECKS)))
@pytest.mark.parametrize("way", NEAR[2:], ids=called)
def test_compressed_is_broken_off(way: Way, index: int, tmp_path: Path) -> None:
    crew("threads", tmp_path)(contract.BREAKING_CHECKS[index], 3, way)


@pytest.mark.parametrize("way", NEAR[2:], ids=called)
def test_compressed_loses_a_peer(way: Way, tmp_path: Path) -> None:
    seconds = crew("threads", tmp_path)(contract.a_killed_peer_is_a_lost_peer, 3, way, str(tmp_path))
    assert all(s < TIMEOUT_S / 2 for i, s in enumerate(seconds) if i != 1), "it is not the time limit"


@pytest.mark.parametrize("check", contract.CHECKS_ALONE)
@pytest.mark.parametrize("way", NEAR[2:4], ids=called)
def test_meddling_with_compressed_gradients(check: Callable[..., None], way: Way, alone: Group) -> None:
    check(alone, way)


@pytest.mark.parametrize("index", range(len(contract.BREAKING_CHECKS)))
@pytest.mark.parametrize("workers", [1, 3])
@backends
@ways
def test_broken_off(
    way: Way, backend: str, workers: int, index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "gloo":
        crew(backend, tmp_path)(breaking_check, workers, index, way)
    else:
        small_buckets(16, monkeypatch)
        crew(backend, tmp_path)(contract.BREAKING_CHECKS[index], workers, way)


@pytest.mark.parametrize("check", contract.CHECKS_ALONE)
@ways
def test_meddling_with_gradients(check: Callable[..., None], way: Way, alone: Group) -> None:
    check(alone, way)


def test_gradients_changed_after_the_last_lane_are_refused(alone: Group) -> None:
    model = contract.Net()
    strategy = contract.made(("all_reduce", "order"), model, alone)
    contract.do_lanes(strategy, model, contract.mine(alone))
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    with pytest.raises(BadInput, match="changed between the lanes"):
        strategy.finish(torch.zeros(0))


@pytest.mark.parametrize("workers", [2, 3])
@backends
@ways
def test_a_killed_peer_is_a_lost_peer(way: Way, backend: str, workers: int, tmp_path: Path) -> None:
    seconds = crew(backend, tmp_path)(contract.a_killed_peer_is_a_lost_peer, workers, way, str(tmp_path))
    assert seconds[1] is None
    assert all(s < TIMEOUT_S / 2 for i, s in enumerate(seconds) if i != 1), "it is not the time limit"


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(BadInput, match="Did you mean 'all_reduce'"):
        create("allreduce", list(nn.Linear(1, 1).parameters()), lanes=1, tail=0, changes=0)


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
    monkeypatch.setattr(flat, "FIRST_BUCKET_BYTES", 8)
    monkeypatch.setattr(flat, "BUCKET_BYTES", 16)
    assert flat.buckets(sizes, 4) == cut


def test_every_bucket_takes_a_multiple_and_holds_its_parameters() -> None:
    parameters = list(contract.Net().parameters())
    for multiple in (1, 3, 5):
        for layout in flat.layouts(parameters, 7, multiple):
            assert all(cut % multiple == 0 for cut in layout.cuts)
            spans = [(first, first + p.numel()) for first, p in zip(layout.starts, layout.parameters, strict=True)] + [
                (layout.extra.start, layout.extra.stop)
            ]
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
            assert spans[-1][1] <= layout.cuts[-1]


@ways
def test_a_gradient_in_two_parts_is_refused(way: Way, alone: Group) -> None:
    """Its first part may be on its way when the second comes."""
    model = nn.Linear(2, 2)
    strategy = contract.made(way, model, alone)
    strategy.begin([0])
    x = torch.ones(1, 2, requires_grad=True)
    value = checkpoint(model, checkpoint(model, x, use_reentrant=True), use_reentrant=True).sum()
    strategy.before_backward(0, last=True)
    value.backward()

    def rest() -> None:
        strategy.after_backward()
        strategy.lane_done(torch.zeros(contract.CHANGES))
        strategy.finish(torch.zeros(0))

    with pytest.raises(BadInput, match="twice in one backward pass"):
        rest()


def broken(check: Callable[..., None], alone: Group, mode: Reproducible = "order") -> bool:
    try:
        check(alone, ("all_reduce", mode))
    except AssertionError:
        return True
    return False


def test_the_contract_finds_a_strategy_that_breaks_it(alone: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite is worth as much as what it notices."""
    monkeypatch.setattr(all_reduce, "take_back", lambda parameter, view: setattr(parameter, "grad", view))
    assert broken(contract.zero_grad_in_the_loop_loses_nothing, alone)
    monkeypatch.undo()
    finish = all_reduce.AllReduce.finish
    Sums = tuple[torch.Tensor, torch.Tensor]  # noqa: N806

    def inexact(self: all_reduce.AllReduce, tail: torch.Tensor) -> Sums:
        summed, changes = finish(self, tail)
        return summed + 1e-3, changes

    def everything_used(self: all_reduce.AllReduce, tail: torch.Tensor) -> Sums:
        self._used = [True] * len(self._used)
        return finish(self, tail)

    def nothing_changed(self: all_reduce.AllReduce, change: torch.Tensor) -> None:
        pass

    monkeypatch.setattr(all_reduce.AllReduce, "finish", inexact)
    assert broken(contract.the_tail_arrives_exactly, alone)
    monkeypatch.setattr(all_reduce.AllReduce, "finish", everything_used)
    assert broken(contract.the_state_of_unused_parameters_does_not_move, alone)
    monkeypatch.undo()
    monkeypatch.setattr(all_reduce.AllReduce, "lane_done", nothing_changed)
    assert broken(contract.gradients_are_the_sum_over_all_lanes, alone)


def test_the_contract_finds_another_order_of_additions(alone: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_turn(nodes: list[reduction.Node], present: list[int], lanes: int) -> reduction.Folded:
        return reduction.Folded(tuple(min(i, 1) for i in range(len(nodes))), (reduction.Node(3, 0),))

    reduction.plan.cache_clear()
    monkeypatch.setattr(reduction, "fold", in_turn)
    try:
        assert broken(contract.bitwise_sums_are_those_of_the_tree, alone, "bitwise")
    finally:
        reduction.plan.cache_clear()


def test_the_contract_finds_a_compressing_strategy_that_breaks_it(
    alone: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_broken(check: Callable[..., None], way: Way) -> bool:
        try:
            check(alone, way)
        except AssertionError:
            return True
        return False

    def commits_as_it_waits(self: Exchange, out: torch.Tensor) -> None:
        wait(self, out)
        commit(self)

    def keeps_for_its_place(self: Exchange, unused: Any = ()) -> None:
        commit(self, unused)
        self._kept.own = dict.fromkeys(self._kept.own, self._kept.own[0])

    wait, commit, int8 = Exchange.wait, Exchange.commit, FAR[1]
    monkeypatch.setattr(Exchange, "commit", lambda self, unused=(): None)
    assert is_broken(compressing.what_is_left_out_arrives, int8)
    monkeypatch.setattr(Exchange, "wait", commits_as_it_waits)
    assert is_broken(compressing.a_step_that_is_done_again_moves_nothing_that_is_kept, int8)
    monkeypatch.undo()
    monkeypatch.setattr(Compressed, "finite", lambda self: True)
    assert is_broken(compressing.gradients_that_are_no_numbers_are_not_kept, int8)
    monkeypatch.undo()
    monkeypatch.setattr(Exchange, "commit", keeps_for_its_place)
    assert is_broken(compressing.what_is_left_out_arrives, int8)
