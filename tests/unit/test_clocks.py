"""How far replicas may be apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.clocks import Clocks, share


def test_by_hand() -> None:
    clocks = Clocks(2, [0, 1])
    assert [clocks.may_begin(step) for step in range(4)] == [True, True, True, False]
    clocks.take(0, 0)
    assert clocks.slowest == 0
    clocks.take(1, 0)
    assert clocks.slowest == 1
    assert clocks.may_begin(3)
    assert not clocks.may_begin(4)
    clocks.consist_of([0])
    assert clocks.slowest == 1
    clocks.take(0, 4)
    assert clocks.may_begin(7), "who left holds nobody up"


def test_a_step_is_taken_once() -> None:
    clocks = Clocks(None)
    assert clocks.is_new(3, 0)
    clocks.take(3, 0)
    assert not clocks.is_new(3, 0)
    assert clocks.is_new(3, 1)
    clocks.take(3, 0)
    assert clocks.of(3) == 1


def test_less_than_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 steps ahead"):
        Clocks(-1)


@given(ahead=st.integers(0, 4), members=st.integers(1, 5), seed=st.integers(0, 1000))
def test_nobody_is_further_ahead_and_nobody_stands_still(ahead: int, members: int, seed: int) -> None:
    """Whoever may goes on, in any order: the fastest works on a step at most so far ahead of what all have done."""
    clocks, choose = Clocks(ahead, range(members)), random.Random(seed)
    for _ in range(60):
        able = [replica for replica in range(members) if clocks.may_begin(clocks.of(replica))]
        assert able, "all wait for one another"
        replica = choose.choice(able)
        assert clocks.of(replica) - clocks.slowest <= ahead
        clocks.take(replica, clocks.of(replica))
    assert max(map(clocks.of, range(members))) - clocks.slowest <= ahead + 1


@given(members=st.integers(1, 5))
def test_nought_is_bulk_synchronous(members: int) -> None:
    clocks = Clocks(0, range(members))
    for replica in range(members):
        assert not clocks.may_begin(1)
        clocks.take(replica, 0)
    assert clocks.may_begin(1)


def test_old_updates_count_for_less() -> None:
    assert [share(age) for age in (0, 1, 2, 4)] == [1.0, 1.0, 0.5, 0.25]
