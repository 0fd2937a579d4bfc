"""Memberships in few bytes: the same on the other side, small where they are regular, and nothing else gets in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import roll
from headway.core.spots import Spot, spots

NAMES = st.lists(
    st.one_of(st.integers(0, 40).map(lambda n: f"w{n}"), st.sampled_from(["w", "", "w007", "0", "a-1", "b٣", "12"])),
    unique=True,
    max_size=30,
)


@given(NAMES)
def test_names_are_the_same_on_the_other_side(names: list[str]) -> None:
    assert roll.read(roll.written(names)) == tuple(names)


@given(NAMES, NAMES)
def test_a_change_leads_from_one_to_the_other_or_is_none(before: list[str], after: list[str]) -> None:
    found = roll.change(before, after)
    kept = [name for name in before if name in after]
    assert (found is None) == (after[: len(kept)] != kept)
    if found is not None:
        assert roll.changed(before, *found) == tuple(after)


@given(NAMES, NAMES, st.randoms())
def test_who_leaves_and_who_joins_at_the_end_is_a_change(
    before: list[str], come: list[str], draw: random.Random
) -> None:
    stay = [name for name in before if draw.random() < 0.7]
    after = stay + [name for name in come if name not in before]
    found = roll.change(before, after)
    assert found is not None
    assert roll.changed(before, *found) == tuple(after)


def test_ten_thousand_are_a_run_and_a_hundred_losses_a_hundred() -> None:
    members = [f"w{i}" for i in range(10_000)]
    assert roll.written(members) == ("w0*10000",)
    lost = set(random.Random(0).sample(members, 100))
    after = [m for m in members if m not in lost] + [f"w{10_000 + i}" for i in range(1000)]
    found = roll.change(members, after)
    assert found is not None
    gone, came = found
    assert len(gone) <= 100
    assert came == ("w10000*1000",)


@pytest.mark.parametrize(
    "items",
    [("w*3",), ("*",), ("w1*",), ("w1*-2",), ("w1*1e3",), ("w0*99999999",), ("w1*²",), ("w" + "9" * 5000 + "*2",)],
)
def test_what_is_no_run_is_refused(items: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"no run of names|more than"):
        roll.read(items)


def test_more_members_than_can_be_are_refused_before_they_are_made() -> None:
    with pytest.raises(ValueError, match="more than"):
        roll.read(["w0*1000000", "w0*1000000"])


@pytest.mark.parametrize("gone", [((3, 1),), ((-1, 1),), ((0, 0),), ((1, 2), (2, 1)), ((2, 5),)])
def test_ranks_that_are_not_there_cannot_go(gone: roll.Runs) -> None:
    with pytest.raises(ValueError, match="cannot be gone"):
        roll.changed(("w0", "w1", "w2"), gone, ())


def test_a_star_is_in_no_name() -> None:
    with pytest.raises(ValueError, match="no name"):
        roll.written(["w1*2"])


def test_spots_count_ranks_on_their_nodes() -> None:
    assert spots(["a", "b", "a", "a"]) == [
        Spot(0, 4, 0, 3, 0, 2),
        Spot(1, 4, 0, 1, 1, 2),
        Spot(2, 4, 1, 3, 0, 2),
        Spot(3, 4, 2, 3, 0, 2),
    ]
