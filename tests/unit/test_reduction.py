"""The tree of lanes: each added once, in one order, whoever carries them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.reduction import Node, fold, plan

Value = str | None


@st.composite
def assignments(draw: st.DrawFn) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Number of lanes, and the lanes of each worker; None carries what is empty."""
    lanes = draw(st.integers(1, 33))
    workers = draw(st.integers(1, 7))
    carriers = draw(st.lists(st.none() | st.integers(0, workers - 1), min_size=lanes, max_size=lanes))
    return lanes, tuple(tuple(n for n, c in enumerate(carriers) if c == rank) for rank in range(workers))


def written_out(lanes: int, present: set[int]) -> Value:
    """The tree as text, by definition: halves of the lanes, padded to a power of two."""

    def node(first: int, width: int) -> Value:
        if width == 1:
            return str(first) if first in present else None
        left, right = node(first, width // 2), node(first + width // 2, width // 2)
        return f"({left}+{right})" if left and right else left or right

    width = 1
    while width < lanes:
        width *= 2
    return node(0, width)


def fold_text(values: list[str], merges: tuple[int, ...]) -> list[str]:
    """What the strategy does with tensors."""
    stack: list[str] = []
    for value, merged in zip(values, merges, strict=True):
        for _ in range(merged):
            value = f"({stack.pop()}+{value})"
        stack.append(value)
    return stack


@given(assignments())
def test_the_sum_is_the_tree_whoever_carries_the_lanes(case: tuple[int, tuple[tuple[int, ...], ...]]) -> None:
    lanes, carried = case
    found = plan(carried, lanes)
    sums = {}
    for rank, (mine, folded) in enumerate(zip(carried, found.own, strict=True)):
        partial = fold_text([str(lane) for lane in mine], folded.merges)
        assert len(partial) == len(folded.left)
        sums.update({(rank, number): value for number, value in enumerate(partial)})
    assert sorted(sums) == sorted(found.order), "each partial sum once"
    whole = fold_text([sums[key] for key in found.order], found.merges)
    wanted = written_out(lanes, {lane for mine in carried for lane in mine})
    assert whole == ([wanted] if wanted else [])


@given(assignments())
def test_partial_sums_are_as_few_as_the_tree_allows(case: tuple[int, tuple[tuple[int, ...], ...]]) -> None:
    lanes, carried = case
    found = plan(carried, lanes)
    present = {lane for mine in carried for lane in mine}

    def largest(mine: set[int], first: int, width: int) -> int:
        inside = present & set(range(first, first + width))
        if not inside & mine:
            return 0
        if inside <= mine:
            return 1
        return largest(mine, first, width // 2) + largest(mine, first + width // 2, width // 2)

    for mine, folded in zip(carried, found.own, strict=True):
        assert len(folded.left) == largest(set(mine), 0, 64)


@given(st.integers(1, 2000))
def test_a_worker_alone_needs_room_for_few_sums(lanes: int) -> None:
    depth = most = 0
    for merged in plan((tuple(range(lanes)),), lanes).own[0].merges:
        depth += 1 - merged
        most = max(most, depth)
    assert depth == 1
    assert most <= lanes.bit_length()


@pytest.mark.parametrize(
    ("carried", "lanes", "one_each"),
    [
        (((0, 1, 2, 3), (4, 5, 6, 7)), 8, True),
        (((0, 1, 2), (3, 4, 5)), 6, False),
        (((0, 1, 2, 3), (5,)), 8, True),
        (((0,), (1,), ()), 2, False),  # a third worker's zeros are not nothing: 0 + -0 is 0
        (((0, 1), ()), 2, False),
    ],
)
def test_one_partial_sum_each(carried: tuple[tuple[int, ...], ...], lanes: int, one_each: bool) -> None:
    assert plan(carried, lanes).one_each is one_each


def test_absent_lanes_let_sums_rise() -> None:
    assert fold([Node(0, 0), Node(0, 2)], [0, 2], 4).left == (Node(2, 0),)
    assert fold([Node(0, 0), Node(0, 2)], [0, 1, 2], 4).left == (Node(0, 0), Node(1, 1))


@pytest.mark.parametrize(
    ("carried", "reason"),
    [
        (((0, 1), (1,)), "not each one of 4, once"),
        (((4,),), "not each one of 4, once"),
        (((-1,),), "not each one of 4, once"),
        (((1, 0),), "do not ascend"),
    ],
)
def test_impossible_assignments(carried: tuple[tuple[int, ...], ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        plan(carried, 4)
