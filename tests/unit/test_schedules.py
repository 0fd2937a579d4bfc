"""Learning-rate factors by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.schedules import SCHEDULES, constant, cosine, linear, staircase, warmed_up


def test_values_by_hand() -> None:
    assert constant(7, 10) == 1.0
    assert [cosine(s, 4) for s in range(5)] == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)
    assert cosine(2, 4, final=0.2) == pytest.approx(0.6)
    assert [linear(s, 4, final=0.5) for s in (0, 2, 4)] == [1.0, 0.75, 0.5]
    assert [staircase(s, 0, every=10, factor=0.5) for s in (0, 9, 10, 25)] == [1.0, 1.0, 0.5, 0.25]


def test_after_its_end_a_schedule_stays_where_it_is() -> None:
    assert cosine(99, 4, final=0.1) == pytest.approx(0.1)
    assert linear(99, 4, final=0.1) == pytest.approx(0.1)


def test_warm_up_climbs_to_the_factor_and_never_begins_at_zero() -> None:
    assert [warmed_up(0.8, s, 4) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert warmed_up(0.8, 0, 0) == 0.8


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_schedule_stays_between_nought_and_one(name: str, step: int, steps: int) -> None:
    assert 0.0 <= SCHEDULES[name](step, steps) <= 1.0  # type: ignore[operator]


@given(st.sampled_from(["cosine", "linear", "step"]), st.integers(0, 1000), st.integers(1, 1000))
def test_they_never_rise(name: str, step: int, steps: int) -> None:
    schedule = SCHEDULES[name]
    assert schedule(step + 1, steps) <= schedule(step, steps) + 1e-12  # type: ignore[operator]
