"""How often something may be done at once."""

from __future__ import annotations

import pytest

from headway.core.allowance import Allowance


def test_some_in_a_row_and_then_as_time_earns_them() -> None:
    allowance = Allowance(every_s=3.0, most=2)
    assert allowance.wait_s(100.0) == 0.0
    allowance.took(100.0)
    assert allowance.wait_s(100.0) == 0.0
    allowance.took(100.0)
    assert allowance.wait_s(100.0) == pytest.approx(3.0)
    assert allowance.wait_s(102.0) == pytest.approx(1.0)
    assert allowance.wait_s(103.0) == pytest.approx(0.0)


def test_no_more_is_saved_than_there_were_at_first_and_none_is_owed() -> None:
    allowance = Allowance(every_s=3.0, most=2)
    for _ in range(5):
        allowance.took(100.0)
    assert allowance.wait_s(103.0) == pytest.approx(0.0)
    for _ in range(2):
        allowance.took(1000.0)
    assert allowance.wait_s(1000.0) == pytest.approx(3.0)
