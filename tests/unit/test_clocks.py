"""How far replicas may be apart."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.clocks import Clocks, FirstOf, share


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


def test_the_first_complete_a_step_by_hand() -> None:
    first = FirstOf(2)
    assert [first.may_begin(step) for step in (0, 1)] == [True, False]
    first.take(2, 0)
    assert not first.is_new(2, 0), "it sent that already"
    assert first.took(2, 0)
    assert first.completes
    first.take(0, 0)
    assert first.step == 1
    assert first.may_begin(1)
    assert not first.is_new(1, 0), "late"
    assert not first.took(1, 0)
    assert first.took(0, 0), "sent again, and not late"
    assert first.is_new(1, 1), "who is late goes on with the step that is under way"
    with pytest.raises(ValueError, match="complete with 0"):
        FirstOf(0)


@given(replicas=st.integers(1, 5), backups=st.integers(0, 4), slow=st.integers(0, 6), seed=st.integers(0, 1000))
def test_every_step_takes_as_many_and_nobody_waits_for_the_last(
    replicas: int, backups: int, slow: int, seed: int
) -> None:
    """Replicas send in any order, some of it twice; one comes to its turn rarely."""
    needed = max(1, replicas - backups)
    first, choose = FirstOf(needed), random.Random(seed)
    at, taken = [0] * replicas, [0] * 200
    for _ in range(100):
        able = [r for r in range(replicas) if first.may_begin(at[r])]
        assert able, "all wait for one another"
        willing = [r for r in able if r or not slow or choose.randrange(slow) == 0] or able
        replica = choose.choice(willing)
        step = at[replica]
        new = first.is_new(replica, step)
        assert new == (step == first.step)
        if new:
            first.take(replica, step)
            taken[step] += 1
            assert first.took(replica, step)
        assert not first.is_new(replica, step), "sent again"
        at[replica] = max(step + 1, first.step)
    assert taken[: first.step] == [needed] * first.step
    assert first.step >= (100 - replicas) // replicas


def test_old_updates_count_for_less() -> None:
    assert [share(age) for age in (0, 1, 2, 4)] == [1.0, 1.0, 0.5, 0.25]
