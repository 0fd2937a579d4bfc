"""Digests of states at the size of models: in parts, one after the other, and on a device by sums."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.core import digest
from headway.elastic.worker import digests
from headway.elastic.worker.vote import Equal


@given(st.integers(1, 300), st.integers(0, 20 * digest.PART_BYTES), st.integers(0, 10**6))
def test_each_part_is_due_once_in_every_so_many_steps(every: int, size: int, first: int) -> None:
    number = digest.parts(size, every)
    assert 1 <= number <= every
    found = [digest.due(step, every, number) for step in range(first, first + every)]
    assert sorted(part for part in found if part is not None) == list(range(number))
    assert digest.due(first * every, every, number) == 0


def test_a_small_state_is_compared_whole_and_a_large_one_a_little_at_a_time() -> None:
    assert [digest.parts(size, 100) for size in (0, 1, digest.PART_BYTES, digest.PART_BYTES + 1)] == [1, 1, 1, 2]
    assert digest.parts(10**10, 100) == 100
    assert digest.parts(10**10, 1) == 1, "all of it before each step"
    with pytest.raises(ValueError, match="every 0 steps"):
        digest.parts(1, 0)


def state() -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [
        torch.randn(7, 5),
        torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
        torch.tensor(17),
        torch.randn(6, 6).t()[1:],
        torch.randn(9).bfloat16(),
        torch.zeros(0),
        torch.rand(11) > 0.5,
        torch.randn(5, dtype=torch.complex64),
        torch.randn(301).double(),
    ]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 50, 5000])
def test_parts_are_all_of_it_once_and_alike_in_size(of: int) -> None:
    found = [[each.clone() for each in digests.part(state(), number, of)] for number in range(of)]
    told = b"".join(each.view(torch.uint8).numpy().tobytes() for part in found for each in part)
    assert told == b"".join(digests.flat(t).view(torch.uint8).numpy().tobytes() for t in state())
    sizes = [sum(each.nbytes for each in part) for part in found]
    assert max(sizes) - min(sizes) <= 17, "but for elements on the borders"


def changed(tensors: list[torch.Tensor], draw: random.Random) -> None:
    """One bit is another."""
    tensor = draw.choice([t for t in tensors if t.numel()])
    index = tuple(draw.randrange(size) for size in tensor.shape)
    raw = tensor[index].reshape(1).view(torch.uint8).numpy()
    raw[draw.randrange(len(raw))] ^= 1 if tensor.dtype is torch.bool else 1 << draw.randrange(8)
    tensor[index] = torch.from_numpy(raw).view(tensor.dtype)[0]


def by_sums(tensors: list[torch.Tensor]) -> list[int]:
    return [int(found) for each in tensors for found in digests.sums(digests.flat(each), {})]


def by_bytes(tensors: list[torch.Tensor]) -> bytes:
    found = digests.Digest({})
    for each in tensors:
        found.add(digests.flat(each))
    return found.read()


@pytest.mark.parametrize("way", [by_sums, by_bytes])
def test_no_changed_bit_goes_unseen(way: Any) -> None:
    whole = way(state())
    assert way(state()) == whole
    for seed in range(300):
        tensors = state()
        changed(tensors, random.Random(seed))
        assert way(tensors) != whole, seed


def test_sums_see_what_is_exchanged_and_what_is_moved() -> None:
    integers = torch.arange(5000, dtype=torch.int32)
    whole = [int(found) for found in digests.sums(integers, {})]
    for first, second in ((0, 1), (17, 4999)):
        other = integers.clone()
        other[[first, second]] = integers[[second, first]]
        assert [int(found) for found in digests.sums(other, {})] != whole
    assert [int(found) for found in digests.sums(integers.roll(1), {})] != whole


def test_sums_are_those_of_python_whatever_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "PIECE", 1000)
    integers = torch.from_numpy(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 2500))
    weights = digests._odd().tolist()
    expected = [
        sum(int(x) * w for x, w in zip(piece.tolist(), weights, strict=False)) % 2**64 for piece in integers.split(1000)
    ]
    assert [int(found) % 2**64 for found in digests.sums(integers, {})] == expected
    assert all(w % 2 for w in weights)
    assert len(set(weights)) == 1000


def test_a_round_is_over_when_all_parts_were_equal_since_the_state_was_anothers() -> None:
    equal = Equal()
    assert equal.add(0, 1, b"a" * 8)
    assert equal.told() == (b"a" * 8).hex(), "of one part its own"
    assert equal.add(0, 1, b"b" * 8)
    assert [equal.add(part, 3, bytes([part]) * 8) for part in (2, 0, 1)] == [False, False, True]
    first = equal.told()
    assert [equal.add(part, 3, bytes([part]) * 8) for part in (0, 1, 2)] == [False, False, True]
    assert equal.told() == first, "whichever came first"
    assert not equal.add(0, 3, b"c" * 8)
    equal.clear()
    assert [equal.add(part, 3, b"c" * 8) for part in (1, 2, 0)] == [False, False, True]
