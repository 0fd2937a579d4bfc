"""What leaders and those who watch a lease may conclude, each from a clock of its own."""

from __future__ import annotations

import random

import pytest

from headway.core.lease import LENGTH_S, SURE, Tenure, Watch


def test_a_lease_that_does_not_change_for_its_length_has_lapsed() -> None:
    watch = Watch()
    watch.saw(100.0, "a")
    assert not watch.lapsed(100.0 + LENGTH_S - 0.1, LENGTH_S)
    assert watch.lapsed(100.0 + LENGTH_S, LENGTH_S)
    assert not watch.moved


def test_a_change_begins_it_anew_and_shows_that_somebody_lives() -> None:
    watch = Watch()
    watch.saw(100.0, "a")
    watch.saw(129.0, "b")
    assert watch.moved
    assert not watch.lapsed(131.0, LENGTH_S)


def test_nobody_has_a_lease_lapse_that_was_never_seen() -> None:
    assert not Watch().lapsed(1e9, LENGTH_S)


def test_the_moment_counts_at_which_the_version_was_asked_for() -> None:
    """An answer that took long tells of the time before it."""
    watch = Watch()
    watch.saw(100.0, "a")
    watch.saw(131.0, "a")  # asked for at 110
    assert not watch.lapsed(110.0, LENGTH_S)


def test_a_leader_renews_three_times_within_the_length_and_knows_how_long_it_is_sure() -> None:
    tenure = Tenure(30.0, asked=5.0)
    assert not tenure.due(14.9)
    assert tenure.due(15.0)
    assert tenure.sure(5.0 + 30.0 * SURE - 0.1)
    assert not tenure.sure(5.0 + 30.0 * SURE)
    tenure.renewed(20.0)
    tenure.renewed(12.0)  # an answer that came late
    assert not tenure.due(29.9)
    assert tenure.sure(43.9)


@pytest.mark.parametrize("seed", range(40))
def test_who_is_sure_of_its_lease_is_never_taken_for_dead(seed: int) -> None:
    """Clocks that go up to a tenth wrong, writes that land at some time between the asking and the answer, observers
    that look when they like: while the leader is sure, no lease has lapsed for anybody."""
    draw = random.Random(seed)
    slow, fast = draw.uniform(0.9, 1.1), draw.uniform(0.9, 1.1)
    if seed % 4 == 0:
        slow, fast = 0.9, 1.1
    now, tenure, watch, version = 0.0, Tenure(LENGTH_S, 0.0), Watch(), 0
    lapsed_while_sure = looks = lapses = 0
    for _ in range(400):
        now += draw.expovariate(1 / 3.0)
        if draw.random() < 0.25:  # the leader writes; some writes take long, or do not arrive
            asked = now * slow
            landed = now + draw.expovariate(1 / 2.0)
            while now < landed:
                now = min(landed, now + draw.uniform(0.5, 2.0))
                watch.saw(now * fast, str(version))
            if draw.random() < 0.3:
                version += 1
                now += draw.expovariate(1 / 2.0)
                tenure.renewed(asked)
        else:
            asked = now * fast
            seen = version
            sure = tenure.sure(now * slow)
            watch.saw(now * fast, str(seen))
            looks += 1
            if watch.lapsed(asked, LENGTH_S):
                lapses += 1
                lapsed_while_sure += sure
    assert lapsed_while_sure == 0
    assert looks > 100


def test_the_margin_is_needed() -> None:
    """A leader that were sure for the whole length would be wrong beside a clock that is a fifth faster."""
    slow, fast = 0.9, 1.1
    watch = Watch()
    watch.saw(0.0, "a")
    now = LENGTH_S / fast + 0.01
    assert watch.lapsed(now * fast, LENGTH_S)
    assert now * slow < LENGTH_S
    assert not Tenure(LENGTH_S, 0.0).sure(now * slow)
