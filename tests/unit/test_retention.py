"""When a checkpoint is due and which ones stay."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.retention import Kept, due, surplus


@pytest.mark.parametrize(
    ("step", "last_step", "every", "reason"),
    [
        (9, 0, 10, None),
        (10, 0, 10, "10 steps"),
        (11, 10, 10, None),
        (20, 11, 10, "10 steps"),  # taken late, by time: the rhythm stays on multiples
        (35, 10, 10, "10 steps"),
        (10, 10, 10, None),
        (10, 0, None, None),
    ],
)
def test_due_by_steps(step: int, last_step: int, every: int | None, reason: str | None) -> None:
    assert due(step, 0.0, last_step, 0.0, every, None) == reason


def test_due_by_time() -> None:
    assert due(5, 59.9, 0, 0.0, None, 60.0) is None
    assert due(5, 60.0, 0, 0.0, None, 60.0) == "60 s"
    assert due(5, 99.0, 5, 0.0, None, 60.0) is None, "nothing is new since the last one"


def test_steps_are_named_before_time() -> None:
    assert due(10, 99.0, 0, 0.0, 10, 60.0) == "10 steps"


def kept(**metrics: float | None) -> list[Kept]:
    return [Kept(int(name[1:]), metric) for name, metric in metrics.items()]


def test_the_newest_and_the_best_stay() -> None:
    there = kept(s1=0.5, s2=0.9, s3=0.7, s4=None, s5=0.6)
    assert surplus(there, 2, 0, "max") == [1, 2, 3]
    assert surplus(there, 2, 1, "max") == [1, 3]
    assert surplus(there, 1, 2, "min") == [2, 3, 4]  # the best two by min are 1 (0.5) and 5 (0.6)
    assert surplus(there, 9, 0, "max") == []


def test_of_equal_metrics_the_newer_stays() -> None:
    assert surplus(kept(s1=0.5, s2=0.5, s3=0.1, s4=0.1), 1, 1, "max") == [1, 3]
    assert surplus(kept(s1=0.5, s2=0.5, s3=0.9, s4=0.9), 1, 1, "min") == [1, 3]


def test_a_metric_that_is_not_a_number_is_never_best() -> None:
    nan = float("nan")
    for mode in ("min", "max"):
        assert surplus(kept(s1=nan, s2=0.5, s3=None, s4=None), 1, 1, mode) == [1, 3]  # type: ignore[arg-type]


KEPT = st.lists(
    st.builds(Kept, st.integers(0, 10**6), st.one_of(st.none(), st.floats())), max_size=20, unique_by=lambda c: c.step
)


@given(KEPT, st.integers(0, 6), st.integers(0, 6), st.sampled_from(["min", "max"]))
def test_the_newest_is_never_deleted_and_no_more_than_asked_stay(
    there: list[Kept], last: int, best: int, mode: Literal["min", "max"]
) -> None:
    gone = surplus(there, last, best, mode)
    assert len(gone) == len(set(gone))
    assert set(gone) <= {c.step for c in there}
    if there:
        assert max(c.step for c in there) not in gone
    stay = len(there) - len(gone)
    assert min(len(there), max(1, last)) <= stay <= max(1, last) + best
