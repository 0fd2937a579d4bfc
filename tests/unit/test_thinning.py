"""Curves in a few thousand points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.thinning import Point, Stream, kept


def streamed(values: list[float], total: int | None = None, points: int = 8) -> list[Point]:
    stream, out = Stream(points, total), []
    for step, value in enumerate(values):
        out += stream.add(step, value)
    return out + stream.flush()


@given(st.lists(st.floats(allow_infinity=False), max_size=300), st.integers(4, 40))
def test_a_whole_curve_keeps_its_ends_and_extremes(values: list[float], limit: int) -> None:
    index = kept(np.array(values), limit)
    assert len(index) <= limit
    assert (np.diff(index) > 0).all()
    if values:
        assert index[0] == 0
        assert index[-1] == len(values) - 1
        numbers = np.array(values)
        if not np.isnan(numbers).all():
            assert np.nanmin(numbers) == np.nanmin(numbers[index])
            assert np.nanmax(numbers) == np.nanmax(numbers[index])


def test_a_spike_between_is_kept() -> None:
    values = np.ones(1_000_000)
    values[[123_457, 765_431]] = 9.0, -9.0
    index = kept(values, 4000)
    assert {123_457, 765_431} <= set(index.tolist())
    assert len(index) <= 4000


@pytest.mark.parametrize("total", [None, 300_000])
def test_a_stream_of_many_steps_gives_a_few_thousand_points(total: int | None) -> None:
    stream, out = Stream(2000 if total else 256, total), []
    for step in range(300_000):
        out += stream.add(step, 50.0 if step == 254_321 else 1.0 / (step + 1))
    out += stream.flush()
    assert 500 < len(out) <= 4000
    assert (254_321, 50.0) in out
    assert out[0] == (0, 1.0)
    assert out[-1][0] == 299_999


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=200), st.sampled_from([None, 50, 300]))
def test_a_stream_rises_and_keeps_the_extremes(values: list[float], total: int | None) -> None:
    out = streamed(values, total)
    steps = [step for step, _ in out]
    assert steps == sorted(set(steps))
    assert {min(values), max(values)} <= {value for _, value in out}
    assert all(values[step] == value for step, value in out)


@given(
    st.lists(st.integers(0, 1000), min_size=2, max_size=200).map(lambda found: [float(each) for each in found]),
    st.data(),
)
def test_steps_that_come_again_give_one_curve(values: list[float], data: st.DataObject) -> None:
    stream, out, step = Stream(8, 100), [], 0
    turns = sorted(data.draw(st.sets(st.integers(1, len(values)), max_size=4)))
    back = {turn: data.draw(st.integers(0, turn)) for turn in turns}
    while step < len(values):
        out += stream.add(step, values[step])
        step += 1
        if step in back:
            stream.rewind(to := back.pop(step))
            step = to
    out += stream.flush()
    steps = [step for step, _ in out]
    assert steps == sorted(set(steps))
    assert all(values[step] == value for step, value in out)
    assert {min(values), max(values)} <= {value for _, value in out}


def test_a_run_that_is_gone_on_with_writes_no_point_twice() -> None:
    first = Stream(8, 100)
    written = [point for step in range(60) for point in first.add(step, float(step % 7))]
    again = Stream(8, 100, last=written[-1][0])
    more = [point for step in range(40, 100) for point in again.add(step, float(step % 7))] + again.flush()
    assert more[0][0] > written[-1][0]
    assert [step for step, _ in written + more] == sorted({step for step, _ in written + more})


def test_what_is_no_number_stands_only_where_nothing_else_does() -> None:
    assert kept(np.array([1.0, float("nan"), 3.0] * 100), 20)[0] == 0
    assert all(value == value for _, value in streamed([1.0] * 20 + [float("nan"), 5.0] * 20)[1:])
