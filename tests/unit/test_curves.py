"""A run's curves as they are written: few points, every extreme, each step once, and those that stand alone at once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.curves import Curves, Point


def drawn(values: list[float], every: int = 10) -> list[Point]:
    curves, found = Curves(every), []
    for step, value in enumerate(values):
        found += curves.add("loss", step, 100.0 + step, value)
    return found + [point for _, point in curves.rest()]


def test_many_steps_are_some_thousand_points_with_every_extreme() -> None:
    values = [1.0 / (step + 1) for step in range(100_000)]
    values[54_321], values[77_777] = 9.0, -9.0
    found = drawn(values)
    assert 2000 < len(found) <= 4000
    assert {(54_321, 54_421.0, 9.0), (77_777, 77_877.0, -9.0)} <= set(found)
    assert found[0] == (0, 100.0, 1.0)
    assert found[-1] == (99_999, 100_099.0, values[-1])


def test_ten_times_the_steps_are_a_constant_more_points() -> None:
    curves, counts = Curves(1), []
    for step in range(0, 10_000_000, 100):  # one in a hundred, as of evaluations
        given = curves.add("loss", step, 1.0, math.sin(step))
        counts.append(len(given))
    assert sum(counts) <= 8000
    assert sum(counts[-90_000:]) <= 3.5 * 512


def test_short_ones_have_a_stretch_of_so_many_steps() -> None:
    found = drawn([float(step % 10 == 5) for step in range(100)])
    assert [step for step, _, value in found if value] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    assert len(found) <= 22


def test_what_is_measured_now_and_then_is_drawn_at_once() -> None:
    curves = Curves(10)
    for step in range(200, 4000, 200):
        assert curves.add("validation/loss", step, 1.0, 0.5) == [(step, 1.0, 0.5)]
    assert list(curves.rest()) == []


def test_the_first_that_is_no_number_is_told_and_no_other() -> None:
    curves = Curves(10)
    told = [curves.add("loss", step, 1.0, math.nan if step % 3 else 1.0) for step in range(60)]
    assert [step for each in told for step, _, value in each if math.isnan(value)] == [1]


def test_a_start_after_another_gives_no_step_twice() -> None:
    before = drawn([float(step % 7) for step in range(60)])
    curves = Curves(10, {"loss": before[-1][0]})
    after = [point for step in range(40, 100) for point in curves.add("loss", step, 1.0, float(step % 7))]
    assert after
    assert min(step for step, _, _ in after) > before[-1][0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=200), st.data())
def test_who_is_given_what_another_held_goes_on_as_that_would(values: list[float], data: st.DataObject) -> None:
    one, turn = Curves(10), data.draw(st.integers(1, len(values) - 1))
    before = [point for step in range(turn) for point in one.add("loss", step, 1.0, values[step])]
    other = Curves(10, {"loss": before[-1][0]})
    for point in one.held().get("loss", []):
        other.add("loss", *point)
    rest = [
        [point for step in range(turn, len(values)) for point in each.add("loss", step, 1.0, values[step])]
        + [point for _, point in each.rest()]
        for each in (one, other)
    ]
    assert rest[0] == rest[1]


@pytest.mark.parametrize("every", [1, 10])
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=300), st.data())
def test_a_rewind_leaves_one_curve_with_its_extremes(every: int, values: list[float], data: st.DataObject) -> None:
    curves, found, step = Curves(every), [], 0
    turns = sorted(data.draw(st.sets(st.integers(1, len(values)), max_size=4)))
    back = {turn: data.draw(st.integers(0, turn - 1)) for turn in turns}
    while step < len(values):
        found += curves.add("loss", step, float(step), values[step])
        step += 1
        if step in back:
            step = back.pop(step)
    found += [point for _, point in curves.rest()]
    steps = [step for step, _, _ in found]
    assert steps == sorted(set(steps))
    assert all(values[step] == value and at == step for step, at, value in found)
    assert {min(values), max(values), values[-1]} <= {value for _, _, value in found}
