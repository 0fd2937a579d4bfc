"""Promotion by rungs, held against the algorithm as the paper writes it, over histories that chance thinks of."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from headway.core.rungs import Rungs, steps_of

losses = st.one_of(st.sampled_from([math.nan, 0.0, 1.0, 2.0]), st.floats(-1e6, 1e6))
histories = st.lists(st.tuples(losses, st.booleans(), st.booleans()), max_size=80)
"""Of new trials one after the other: what they come to the first rung with, whether places are given away after it, and
whether one that waits fails."""


def test_rungs_lie_at_evaluations_below_the_end() -> None:
    assert steps_of(1, 4, 64) == (1, 4, 16)
    assert steps_of(10, 3, 100, every=25) == (25, 50)  # 10 and 25, 30 and 50, 90 and the end
    assert steps_of(100, 4, 100) == ()
    assert steps_of(7, 4, 1000, every=1) == (7, 28, 112, 448)


@given(st.integers(1, 50), st.floats(1.1, 10), st.integers(1, 2000), st.integers(1, 60))
def test_rungs_rise(first: int, factor: float, length: int, every: int) -> None:
    steps = steps_of(first, factor, length, every)
    assert list(steps) == sorted(set(steps))
    assert all(step % every == 0 and first <= step < length for step in steps)


def may_go_on(there: dict[int, float], gone: set[int], factor: float) -> list[int]:
    """As algorithm 2 has it: of the best floor(n / factor) that have been at a rung, those that were not promoted."""
    ranked = sorted(there, key=lambda trial: (math.isnan(there[trial]), there[trial], trial))
    return [t for t in ranked[: math.floor(len(ranked) / factor)] if t not in gone and not math.isnan(there[t])]


@given(histories, st.sampled_from([2, 3, 4, 2.5]), st.booleans())
def test_it_promotes_whom_the_paper_promotes(
    history: list[tuple[float, bool, bool]], factor: float, delay: bool
) -> None:
    steps = (1, 4, 16)
    rungs = Rungs(steps, factor, delay)
    there: list[dict[int, float]] = [{} for _ in steps]
    gone: list[set[int]] = [set() for _ in steps]
    left: set[int] = set()
    for number, (loss, gives, fails) in enumerate(history):
        assert rungs.arrive(number, 1, loss)
        there[0][number] = loss
        if fails:
            rungs.leave(number)
            left.add(number)
        while gives and (best := rungs.best()) is not None:
            level = max(level for level in range(3) if best in there[level])
            quotas = [math.floor(len(each) / factor) for each in there]
            able = [
                [] if delay and len(gone[k]) >= quotas[k] else may_go_on(there[k], gone[k] | left, factor)
                for k in range(3)
            ]
            highest = max(k for k in range(3) if able[k])
            assert (level, best) == (highest, able[highest][0])
            rungs.promote(best)
            gone[level].add(best)
            assert not delay or len(gone[level]) <= len(there[level]) / factor
            if level < 2:
                later = there[level][best] / 2
                rungs.arrive(best, steps[level + 1], later)
                there[level + 1][best] = later
        if gives:
            assert not any(
                may_go_on(there[k], gone[k] | left, factor)
                and not (delay and len(gone[k]) >= math.floor(len(there[k]) / factor))
                for k in range(3)
            )
    assert [rung.promoted for rung in rungs.all] == [len(each) for each in gone]
    assert [sorted(rung.came) for rung in rungs.all] == [sorted(each) for each in there]


def test_ties_go_to_the_one_that_began_earlier() -> None:
    rungs = Rungs((1,), 2)
    for trial in (5, 3, 9, 4):
        rungs.arrive(trial, 1, 0.5)
    chosen = []
    while (best := rungs.best()) is not None:
        rungs.promote(best)
        chosen.append(best)
    assert chosen == [3, 4]


def test_nobody_is_twice_at_a_rung() -> None:
    rungs = Rungs((1, 4), 2)
    assert rungs.arrive(1, 1, 0.5)
    assert not rungs.arrive(1, 3, 0.1)
    assert rungs.arrive(1, 4, 0.1)
    assert not rungs.arrive(1, 1, 0.1)
    assert not rungs.arrive(2, 0, 0.1), "below the first"


def test_who_diverged_waits_for_nothing_and_counts() -> None:
    rungs = Rungs((1,), 4)
    for trial in range(3):
        rungs.arrive(trial, 1, math.nan)
    assert rungs.best() is None
    assert rungs.highest() is None
    rungs.arrive(3, 1, 7.0)
    assert rungs.best() == 3, "the best of four"
    assert rungs.standing(3) == (1, 0, 4)
    assert rungs.standing(0)[1] == 1


def test_the_highest_that_waits() -> None:
    rungs = Rungs((1, 4), 4)
    rungs.arrive(1, 1, 0.1)
    rungs.arrive(2, 1, 0.2)
    assert rungs.best() is None
    assert rungs.highest() == 1
    rungs.promote(1)
    rungs.arrive(1, 4, 0.3)
    assert rungs.highest() == 1
    rungs.leave(1)
    assert rungs.highest() == 2
