"""The best of a metric: by its mode, kept over starts, and taken back by a rewind."""

from __future__ import annotations

import math

from headway.core.best import KEPT, Best


def test_less_or_more_is_better() -> None:
    least, most = Best("loss", "min"), Best("accuracy", "max")
    values = [0.5, 0.7, 0.2, math.nan, 0.2, 0.9]
    assert [least.take(step, value) for step, value in enumerate(values)] == [True, False, True, False, False, False]
    assert [most.take(step, value) for step, value in enumerate(values)] == [True, True, False, False, False, True]
    assert (least.newest, most.newest) == ((2, 0.2), (5, 0.9))


def test_a_rewind_takes_back_what_comes_again() -> None:
    best = Best("loss", "min")
    for step, value in ((10, 0.5), (20, 0.4), (30, 0.1)):
        best.take(step, value)
    best.rewind(20)
    assert best.newest == (20, 0.4)
    assert best.take(30, 0.3)
    best.rewind(5)
    assert best.newest is None


def test_a_start_after_another_goes_on_and_another_metric_does_not() -> None:
    before = Best("loss", "min")
    for step in range(3 * KEPT):
        before.take(step, -float(step))
    assert len(before.facts()["history"]) == KEPT
    again = Best("loss", "min", before.facts())
    assert again.newest == before.newest
    assert not again.take(999, 0.0)
    assert Best("loss", "max", before.facts()).newest is None
    assert Best("accuracy", "min", before.facts()).newest is None
