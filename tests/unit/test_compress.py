"""What is sent in place of the numbers: numbers by hand, the same bits for any workers, nothing lost for good."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headway.errors import BadInput
from headway.strategies import create
from headway.strategies.compress import low_rank, sharded
from headway.strategies.compress.casts import Cast
from headway.strategies.compress.exchange import Exchange, compressed_total
from headway.strategies.compress.factored import Factored
from headway.strategies.compress.int8 import Int8
from headway.strategies.compress.top_k import SPAN, TopK, share
from headway.strategies.compress.ways import Among, Left, carrier
from headway.strategies.group import Group
from headway.strategies.kept import Kept
from headway.strategies.options import Compression, Strategy
from headway.testing.workers import crew, start_values

COUNT = 4
SHAPES = [(3,), (40, 30), (17,), (8, 5, 5), (1,)]
EXTRA = 3
ELEMENTS = 3 + 1200 + 17 + 200 + 1 + EXTRA
KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "fp16": {},
    "bf16": {},
    "int8": {"dense_below": 10},
    "top_k": {"dense_below": 10, "ratio": 0.1},
    "power_sgd": {"dense_below": 10, "rank": 2},
}
CLOSE = {"none": 1e-6, "fp16": 2e-3, "bf16": 2e-2, "int8": 0.05}
"""Of each kind, what one sum may differ from the exact one, of the largest of a block's numbers."""
kinds = pytest.mark.parametrize("kind", KINDS)


def options(kind: str, **more: Any) -> Compression:
    return Compression(kind=kind, **{**KINDS[kind], **more})


def value(replica: int, step: int) -> torch.Tensor:
    return torch.randn(ELEMENTS, generator=torch.Generator().manual_seed(100 * step + replica))


def exact(step: int) -> torch.Tensor:
    first, second, third, fourth = (value(replica, step) for replica in range(COUNT))
    return (first + second) + (third + fourth)


def exchange_of(kind: str, group: Group | None, replicas: Sequence[Sequence[int]], kept: Kept, **more: Any) -> Exchange:
    device = group.device if group is not None else torch.device("cpu")
    among = Among(group if len(replicas) > 1 else None, replicas, COUNT, device)
    return Exchange(options(kind, **more), SHAPES, among, kept, extra=EXTRA)


def steps(
    group: Group | None, kind: str, replicas: Sequence[Sequence[int]], first: int, last: int, kept: Kept, **more: Any
) -> list[torch.Tensor]:
    """The sums of some steps."""
    exchange = exchange_of(kind, group, replicas, kept, **more)
    sums = []
    for step in range(first, last):
        rank, device = (group.rank, group.device) if group is not None else (0, torch.device("cpu"))
        out = torch.full((ELEMENTS,), 7.0).to(device)
        compressed_total(exchange, {r: value(r, step).to(device) for r in replicas[rank]}, out)
        sums.append(out.cpu())
        exchange.commit()
    return sums


# Golden numbers


def test_int8_by_hand() -> None:
    """The largest is 127; halves go to even: 0.5 and 2.5 of the grid are 0 and 2."""
    codec = Int8(block=4)
    values = torch.tensor([127.0, 0.5, 2.5, -3.0, 0.0, 0.0, 0.0, 0.0, -0.254])
    message = codec.encode(values)
    assert len(message) == codec.size(9) == 3 * 4 + 12
    assert message[:12].view(torch.float32).tolist() == pytest.approx([1.0, 0.0, 0.002])
    assert message[12:21].view(torch.int8).tolist() == [127, 0, 2, -3, 0, 0, 0, 0, -127]
    assert codec.decode(message, 9).tolist() == pytest.approx([127.0, 0.0, 2.0, -3.0, 0.0, 0.0, 0.0, 0.0, -0.254])


def test_int8_of_a_kind_with_its_halves() -> None:
    """What is cut between blocks has the same form, so that it does not matter how large a message is."""
    codec = Int8(block=4)
    values = torch.randn(10, generator=torch.Generator().manual_seed(0))
    parts = torch.cat([codec.decode(codec.encode(part), len(part)) for part in values.split(8)])
    assert torch.equal(codec.decode(codec.encode(values), 10), parts)


def test_top_k_by_hand() -> None:
    codec = TopK(0.25)
    values = torch.tensor([0.5, -4.0, 0.0, 3.0, 2.0])
    message = codec.encode(values)
    assert codec.many(5) == 2
    assert len(message) == codec.size(5) == 4 + 2 * 4 + 2 * 2
    places, numbers = codec.said(message, 5)
    assert (places.tolist(), numbers.tolist()) == ([1, 3], [-4.0, 3.0])
    assert codec.decode(message, 5).tolist() == [0.0, -4.0, 0.0, 3.0, 0.0]


def test_top_k_far_apart() -> None:
    """Places beyond 16 bits; spans of which nothing is sent; the first and last of a span."""
    values = torch.zeros(4 * SPAN + 5)
    where = [0, SPAN - 1, SPAN, 3 * SPAN + SPAN // 2, 4 * SPAN + 4]
    values[where] = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0])
    codec = TopK(5 / len(values))
    message = codec.encode(values)
    assert codec.said(message, len(values))[0].tolist() == where
    assert torch.equal(codec.decode(message, len(values)), values)


def test_power_sgd_of_rank_one_by_hand() -> None:
    """Two replicas' matrices [[3, 0], [4, 0]] and [[0, 3], [0, 4]], and Q = (0.6, 0.8): P is
    0.6 (3, 4) + 0.8 (3, 4) = (4.2, 5.6), of length 7, so (0.6, 0.8). Then the replicas' Q are (5, 0) and (0, 5), which
    leave nothing out: the sum P Q' = [[3, 3], [4, 4]] is exact, though Q was not.
    """
    among = Among(None, [(0, 1)], 2, torch.device("cpu"))
    way = Factored([torch.Size((2, 2))], 1, among, feedback=True)
    given = {0: torch.tensor([3.0, 0.0, 4.0, 0.0]), 1: torch.tensor([0.0, 3.0, 0.0, 4.0])}
    out = torch.empty(4)
    way.start(given, [(0, 1)], Left(common=[torch.tensor([[0.6], [0.8]])]), None)
    left = way.wait(out)
    assert out.tolist() == pytest.approx([3.0, 3.0, 4.0, 4.0])
    assert left.common[0].view(-1).tolist() == pytest.approx([5.0, 5.0])
    # What it cannot say, it leaves: diag(2, 1) with Q = (1, 0) has P = (1, 0), Q = (2, 0).
    given = {0: torch.tensor([2.0, 0.0, 0.0, 1.0]), 1: torch.zeros(4)}
    way.start(given, [(0, 1)], Left(common=[torch.tensor([[1.0], [0.0]])]), None)
    left = way.wait(out)
    assert out.tolist() == [2.0, 0.0, 0.0, 0.0]
    assert left.own[0].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert left.own[1].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_columns_are_made_orthogonal() -> None:
    draws = torch.Generator().manual_seed(0)
    found = low_rank.orthogonal(torch.randn(50, 4, generator=draws))
    assert torch.allclose(found.T @ found, torch.eye(4), atol=1e-6)
    twice = torch.randn(50, 1, generator=draws).repeat(1, 3) * torch.tensor([1.0, 2.0, 1e-9])
    found = low_rank.orthogonal(twice)
    assert torch.linalg.vector_norm(found, dim=0).tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert not low_rank.orthogonal(torch.zeros(5, 2)).any()


def test_a_column_without_length_begins_anew() -> None:
    """After a step of zero gradients; else it would be zero for ever."""
    fresh = low_rank.drawn(6, 2, 0)
    found = low_rank.begun(torch.cat([torch.zeros(6, 1), torch.ones(6, 1)], dim=1), fresh)
    assert torch.allclose(found[:, 0], fresh[:, 0] / fresh[:, 0].norm())
    assert torch.allclose(found[:, 1], torch.full((6,), 6**-0.5))


@pytest.mark.parametrize(
    "codec", [Cast(torch.float16), Cast(torch.bfloat16), Int8(8), TopK(0.3)], ids=["fp16", "bf16", "int8", "top_k"]
)
@pytest.mark.parametrize("elements", [0, 1, 7, 8, 100])
def test_a_message_is_as_large_as_it_says(codec: Any, elements: int) -> None:
    if elements or not isinstance(codec, TopK):
        message = codec.encode(torch.ones(elements))
        assert len(message) == codec.size(elements)
        assert len(message) % 4 == 0
        assert codec.decode(message, elements).shape == (elements,)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "codec", [Cast(torch.float16), Cast(torch.bfloat16), Int8(8), TopK(0.3)], ids=["fp16", "bf16", "int8", "top_k"]
)
def test_what_is_no_number_arrives_as_none(codec: Any, bad: float) -> None:
    values = torch.ones(20)
    values[11] = bad
    assert not codec.decode(codec.encode(values), 20).sum().isfinite()


def test_shards_of_replicas_that_are_not_there_are_the_next_ones() -> None:
    assert carrier([(0, 2), (1,)], 3) == [0, 1, 0]
    assert carrier([(1,), (4,)], 6) == [0, 0, 1, 1, 1, 0]


# Sums


def as_alone(group: Group, kind: str, replicas: Sequence[Sequence[int]], count: int) -> bool:
    """The sums, and what is kept, are what they are where one worker carries all. True if it comes to its end."""
    kept, whole = Kept(), Kept()
    found = steps(group, kind, replicas, 0, count, kept)
    wanted = steps(None, kind, [range(COUNT)], 0, count, whole)
    for step, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert torch.equal(one, other), f"step {step} of {kind}"
    for replica in replicas[group.rank]:
        mine = kept.own.get(replica, {}).get("compression", {})
        alone = whole.own.get(replica, {}).get("compression", {})
        assert mine.keys() == alone.keys()
        assert all(torch.equal(mine[key].cpu(), alone[key]) for key in mine)
    return True


@pytest.mark.parametrize("replicas", [[(0, 1), (2, 3)], [(0, 3), (1,), (2,)], [(2,), (3,), (0,), (1,)]], ids=str)
@kinds
def test_the_bits_do_not_hang_on_the_workers(
    kind: str, replicas: Sequence[Sequence[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded, "BUCKET_BYTES", 4 * COUNT * 256)  # several pieces
    assert all(crew("threads", tmp_path)(as_alone, len(replicas), kind, replicas, 3))


@pytest.mark.parametrize("kind", ["int8", "top_k", "power_sgd"])
@pytest.mark.parametrize("backend", ["gloo", "nccl_like"])
def test_over(backend: str, kind: str, tmp_path: Path) -> None:
    assert all(crew(backend, tmp_path)(as_alone, 2, kind, [(0, 3), (1, 2)], 2))


@pytest.mark.parametrize("kind", CLOSE)
def test_a_sum_is_near_the_exact_one(kind: str) -> None:
    (found,) = steps(None, kind, [range(COUNT)], 0, 1, Kept())
    assert (found - exact(0)).abs().max() < CLOSE[kind] * exact(0).abs().max()
    assert kind == "none" or not torch.allclose(found, exact(0), rtol=1e-6), "nothing was compressed"


@kinds
def test_what_lies_behind_and_small_tensors_are_exact(kind: str) -> None:
    for step, found in enumerate(steps(None, kind, [range(COUNT)], 0, 2, Kept())):
        assert torch.equal(found[-EXTRA:], exact(step)[-EXTRA:])
        if kind in ("int8", "top_k", "power_sgd"):
            assert torch.equal(found[:3], exact(step)[:3])


@pytest.mark.parametrize("kind", ["int8", "top_k", "power_sgd"])
def test_nothing_is_lost_for_good(kind: str) -> None:
    """The same gradient again and again: what arrives, summed over steps, comes to what was brought; without error
    feedback the same is left out each time."""

    def missing(count: int, **more: Any) -> float:
        exchange = exchange_of(kind, None, [range(COUNT)], Kept(), **more)
        arrived, out = torch.zeros(ELEMENTS), torch.empty(ELEMENTS)
        for _ in range(count):
            compressed_total(exchange, {r: value(r, 0) for r in range(COUNT)}, out)
            arrived += out
            exchange.commit()
        return float((arrived / count - exact(0)).norm() / exact(0).norm())

    assert missing(40) < 0.3 * missing(5)
    assert missing(40) < 0.25 * missing(40, error_feedback=False)


@pytest.mark.parametrize("kind", ["int8", "top_k", "power_sgd"])
def test_a_sum_that_is_not_used_leaves_nothing_behind(kind: str) -> None:
    kept = Kept()
    exchange = exchange_of(kind, None, [range(COUNT)], kept)
    outs = [torch.empty(ELEMENTS) for _ in range(3)]
    compressed_total(exchange, {r: value(r, 0) for r in range(COUNT)}, outs[0])
    assert exchange.summed
    exchange.commit()
    assert not exchange.summed
    before = contents([kept.common, kept.own])
    for out in outs[1:]:
        compressed_total(exchange, {r: value(r, 1) for r in range(COUNT)}, out)
    assert torch.equal(outs[1], outs[2])
    assert contents([kept.common, kept.own]) == before


@pytest.mark.parametrize("kind", ["int8", "top_k", "power_sgd"])
def test_what_is_kept_moves_with_replicas(kind: str, tmp_path: Path) -> None:
    """Two steps on two workers, then two on three others that were given what was kept: as four on one."""
    first = [(0, 1), (2, 3)]
    kept = crew("threads", tmp_path)(half, 2, kind, first)
    whole = Kept(kept[0].common, {**kept[0].own, **kept[1].own})
    second = [(3,), (0, 2), (1,)]
    assert contents(kept[0].common) == contents(kept[1].common)
    given = [Kept(copy.deepcopy(whole.common), {r: whole.own[r] for r in numbers}) for numbers in second]
    found = crew("threads", tmp_path)(rest, 3, kind, second, given)
    wanted = steps(None, kind, [range(COUNT)], 0, 4, Kept())[2:]
    for sums in found:
        assert all(torch.equal(one, other) for one, other in zip(sums, wanted, strict=True))


def half(group: Group, kind: str, replicas: Sequence[Sequence[int]]) -> Kept:
    kept = Kept()
    steps(group, kind, replicas, 0, 2, kept)
    return kept


def rest(group: Group, kind: str, replicas: Sequence[Sequence[int]], kept: Sequence[Kept]) -> list[torch.Tensor]:
    return steps(group, kind, replicas, 2, 4, kept[group.rank])


def some(group: Group, kind: str) -> torch.Tensor:
    """A round that replica 2 misses; its worker takes part in the exchange."""
    replicas, present = [(0, 1), (2,), (3,)], [(0, 1), (), (3,)]
    exchange = exchange_of(kind, group, replicas, Kept())
    out = torch.empty(ELEMENTS)
    compressed_total(exchange, {r: value(r, 0) for r in present[group.rank]}, out, present)
    return out


@kinds
def test_a_replica_may_be_missing(kind: str, tmp_path: Path) -> None:
    found = crew("threads", tmp_path)(some, 3, kind)
    out = torch.empty(ELEMENTS)
    exchange = exchange_of(kind, None, [range(COUNT)], Kept())
    compressed_total(exchange, {r: value(r, 0) for r in (0, 1, 3)}, out, [(0, 1, 3)])
    assert all(torch.equal(each, out) for each in found)
    assert torch.allclose(out[:3], (exact(0) - value(2, 0))[:3], atol=0.05)


def nobody(group: Group, kind: str) -> torch.Tensor:
    exchange = exchange_of(kind, group, [(0, 1), (2, 3)], Kept())
    out = torch.ones(ELEMENTS)
    compressed_total(exchange, {}, out, [(), ()])
    exchange.commit()
    return out


@kinds
def test_all_may_be_missing(kind: str, tmp_path: Path) -> None:
    assert not any(each.any() for each in crew("threads", tmp_path)(nobody, 2, kind))


@pytest.mark.parametrize("kind", ["top_k", "power_sgd"])
def test_the_first_steps_are_whole(kind: str) -> None:
    found = steps(None, kind, [range(COUNT)], 0, 3, Kept(), start_step=2)
    wanted = steps(None, "none", [range(COUNT)], 0, 3, Kept())
    assert [torch.equal(one, other) for one, other in zip(found, wanted, strict=True)] == [True, True, False]


@pytest.mark.parametrize("kind", ["int8", "top_k", "power_sgd"])
def test_what_arrives_and_is_not_used_is_sent_again(kind: str) -> None:
    """Of a tensor that no lane used in a step: nothing is brought, and what arrives of it is thrown away."""
    kept = Kept()
    exchange = exchange_of(kind, None, [range(COUNT)], kept)
    out = torch.empty(ELEMENTS)
    compressed_total(exchange, {r: value(r, 0) for r in range(COUNT)}, out)
    exchange.commit()
    behind, here = slice(1220, 1420), slice(1200, 1400) if kind == "power_sgd" else slice(1217, 1417)
    before = [kept.own[r]["compression"]["left_out"][here].clone() for r in range(COUNT)]
    idle = {r: 0.01 * value(r, 1) for r in range(COUNT)}
    for each in idle.values():
        each[behind] = 0.0
    compressed_total(exchange, idle, out)
    assert out[behind].any(), "nothing arrives of it: the test shows nothing"
    exchange.commit(unused=[3])
    for r, left in enumerate(before):
        assert torch.equal(kept.own[r]["compression"]["left_out"][here], left)
    if kind == "int8":
        whole = [kept.own[r]["compression"]["left_out_of_sum"] for r in range(COUNT)]
        assert [len(each) for each in whole] == [512, 512, 393, 0], "shards of whole blocks"


@pytest.mark.parametrize("kind", ["int8", "top_k", "power_sgd"])
def test_what_was_kept_of_other_tensors_is_not_used(kind: str) -> None:
    """As where the user freezes some: of as many elements, too."""
    kept, fresh = Kept(), Kept()
    steps(None, kind, [range(COUNT)], 0, 2, kept)
    among = Among(None, [range(COUNT)], COUNT, torch.device("cpu"))
    shapes = [(8, 5, 5), (17,), (40, 30), (3,), (1,)]
    outs = []
    for each in (kept, fresh):
        outs.append(torch.empty(ELEMENTS))
        exchange = Exchange(options(kind), shapes, among, each, extra=EXTRA)
        compressed_total(exchange, {r: value(r, 3) for r in range(COUNT)}, outs[-1])
        exchange.commit()
    assert torch.equal(*outs)
    assert contents(kept.own) == contents(fresh.own)


def contents(tree: Any) -> Any:
    """To be compared."""
    if isinstance(tree, list):
        return [contents(each) for each in tree]
    if isinstance(tree, dict):
        return {key: contents(each) for key, each in tree.items()}
    return tree.tolist() if isinstance(tree, torch.Tensor) else tree


def test_numbers_that_are_not_floats_are_refused() -> None:
    exchange = exchange_of("int8", None, [range(COUNT)], Kept())
    with pytest.raises(BadInput, match=r"compression=int8 of numbers of torch\.int64"):
        exchange.start({r: torch.ones(ELEMENTS, dtype=torch.int64) for r in range(COUNT)})


class Mixed(nn.Module):
    """Parameters of three kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.coarse, self.fine = nn.Linear(40, 40), nn.Linear(40, 40).bfloat16(), nn.Linear(40, 40).double()
        start_values(self, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fine(self.coarse(self.plain(x).bfloat16()).double())
        return result


@pytest.mark.parametrize("kind", ["fp16", "int8", "top_k", "power_sgd"])
def test_parameters_of_other_types(kind: str) -> None:
    """Of 16 bits: as those of 32. Of 64 bits: summed as they are."""
    model, plain = Mixed(), Mixed()
    found = Strategy(kind="all_reduce", compression=options(kind))
    strategy = create(found, list(model.parameters()), lanes=4, tail=1, changes=0, replicas=[(0, 1)], kept=Kept())
    strategy.begin([0, 1, 2, 3])
    for lane in range(4):
        x = torch.randn(3, 40, generator=torch.Generator().manual_seed(lane))
        strategy.before_backward(lane, last=lane == 3)
        model(x).square().mean().backward()
        strategy.after_backward()
        strategy.lane_done(torch.zeros(0))
        plain(x).square().mean().backward()
    strategy.finish(torch.zeros(1))
    missing = whole = 0.0
    for name, parameter in model.named_parameters():
        wanted, grad = plain.get_parameter(name).grad, parameter.grad
        assert grad is not None
        assert wanted is not None
        assert grad.dtype == parameter.dtype
        exactly = name.startswith("fine")
        assert torch.allclose(grad, wanted, rtol=1e-12) or not exactly, name
        missing, whole = missing + float((grad - wanted).norm()) ** 2, whole + float(wanted.norm()) ** 2
    assert missing < 0.6 * whole
    assert strategy.finite()
    strategy.close()


@pytest.mark.parametrize(("kind", "times"), [("fp16", 2), ("bf16", 2), ("int8", 3.9), ("top_k", 60), ("power_sgd", 60)])
def test_messages_are_small(kind: str, times: float) -> None:
    among = Among(None, [(0,)], 1, torch.device("cpu"))
    exchange = Exchange(Compression(kind=kind), [(1024, 1024)], among, Kept())
    assert 4 * 1024 * 1024 / exchange.message_bytes >= times


# Momentum, a warm-up, a clip of each replica's own


def small(kept: Kept, **more: Any) -> Exchange:
    """Of four elements in one tensor, a quarter of which is sent, of one replica; and one element behind."""
    among = Among(None, [(0,)], 1, torch.device("cpu"))
    options = Compression(**{"kind": "top_k", "dense_below": 0, "ratio": 0.25, **more})
    return Exchange(options, [(4,)], among, kept, extra=1)


def arrived(
    exchange: Exchange, values: Sequence[float], commit: bool = True, unused: Sequence[int] = ()
) -> list[float]:
    out = torch.empty(5)
    compressed_total(exchange, {0: torch.tensor([*values, 7.0])}, out)
    if commit:
        exchange.commit(unused)
    assert out[4] == 7.0, "what lies behind has no momentum"
    found: list[float] = out[:4].tolist()
    return found


def test_momentum_is_of_what_waits_and_rests_where_it_is_sent() -> None:
    """By hand: speeds u = u / 2 + g and sums v = v + u; the largest v is sent, and its u and v begin anew."""
    kept = Kept()
    exchange = small(kept, momentum=0.5)
    assert arrived(exchange, [4, 2, 1, 0]) == [4, 0, 0, 0]  # u = v = 4 2 1 0
    assert arrived(exchange, [0, 2, 0, 0]) == [0, 5, 0, 0]  # u = 0 3 0.5 0, v = 0 5 1.5 0
    assert arrived(exchange, [0, 0, 0, 1], commit=False) == [0, 0, 1.75, 0]
    assert arrived(exchange, [0, 0, 0, 1]) == [0, 0, 1.75, 0], "it was not committed"  # u = 0 0 0.25 1
    assert kept.own[0]["compression"]["speed"].tolist() == [0, 0, 0, 1]
    assert kept.own[0]["compression"]["left_out"].tolist() == [0, 0, 0, 1]
    assert arrived(exchange, [0, 0, 0, 0], unused=[0]) == [0, 0, 0, 1.5]
    assert kept.own[0]["compression"]["speed"].tolist() == [0, 0, 0, 1], "nothing of it was used"
    assert arrived(small(kept, momentum=0.5), [0, 0, 0, 1]) == [0, 0, 0, 2.5], "made anew, with what was kept"


@pytest.mark.parametrize("more", [{"start_step": 100}, {"dense_below": 100}])
def test_what_is_sent_whole_has_the_momentum_of_sgd(more: dict[str, Any]) -> None:
    """Before `start_step`, and of small tensors always: the updates are torch's."""
    exchange = small(Kept(), momentum=0.9, **more)
    ours, theirs = torch.zeros(4), nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    for step in range(5):
        gradient = torch.randn(4, generator=torch.Generator().manual_seed(step))
        ours -= 0.1 * torch.tensor(arrived(exchange, gradient.tolist()))
        theirs.grad = gradient
        optimizer.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-6)


def test_more_is_sent_in_the_first_steps() -> None:
    found = [share(step, 8, 0.01) for step in range(9)]
    assert found == [0.25, 0.25, 0.0625, 0.0625, 0.015625, 0.015625, 0.01, 0.01, 0.01]
    assert (share(0, 4, 0.5), share(0, 0, 0.1)) == (0.5, 0.1)
    options = Compression(kind="top_k", dense_below=0, ratio=0.01, warm_up=4, start_step=1)
    exchange = Exchange(options, [(100,)], Among(None, [(0,)], 1, torch.device("cpu")), Kept())
    counts = []
    for _ in range(6):
        out = torch.empty(100)
        compressed_total(exchange, {0: torch.arange(1.0, 101.0)}, out)
        exchange.commit()
        counts.append(int((out != 0).sum()))
    assert counts == [100, 25, 7, 2, 1, 1]


def test_each_replica_is_clipped_to_its_share() -> None:
    among = Among(None, [(0, 1, 2, 3)], 4, torch.device("cpu"))
    options = Compression(kind="top_k", dense_below=0, ratio=1.0, local_clip=10.0)
    exchange = Exchange(options, [(2,)], among, Kept(), extra=1)
    out = torch.empty(3)
    values = {r: torch.tensor([6.0, 8.0, 100.0] if r == 0 else [0.0, 1.0, 0.0]) for r in range(4)}
    compressed_total(exchange, values, out)
    assert out.tolist() == pytest.approx([3.0, 4.0 + 3.0, 100.0])
