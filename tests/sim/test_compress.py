"""A recorded trace made small: less time, fewer machines, and the same weather."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.errors import BadInput
from headway.sim import trace
from headway.sim.compress import compress, mean_nodes
from headway.sim.trace import Change, Trace

P3 = Path(__file__).parents[2].parent / "shared/traces/spot_aws_p3.csv"


def small_steps(small: Trace) -> list[int]:
    """How many nodes are there after each change."""
    found, there = [], set()
    for change in small.changes:
        there ^= {change.node}
        found.append(len(there))
    return found


def test_time_is_scaled_and_a_node_keeps_its_own_life() -> None:
    whole = Trace("t", (Change(0.0, "a", True), Change(50.0, "b", True), Change(80.0, "a", False)), 100.0)
    assert compress(whole, 10.0, 2).changes == (
        Change(0.0, "a", True),
        Change(5.0, "b", True),
        Change(8.0, "a", False),
    )
    assert compress(whole, 10.0, 2).until == 10.0


def test_half_of_a_fleet_comes_and_goes_as_the_whole_does() -> None:
    changes = [Change(float(i), f"n{i}", True) for i in range(8)]
    changes += [Change(20.0 + i, f"n{i}", False) for i in range(8)]
    changes += [Change(40.0 + i, f"m{i}", True) for i in range(8)]
    small = compress(Trace("t", tuple(changes), 60.0), 60.0, 4)
    assert small_steps(small) == [1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4]


def test_a_node_that_is_replaced_at_once_is_so_in_the_small_one() -> None:
    """The number alone would hide it: it is the changes that cost."""
    changes = [Change(0.0, "a", True), Change(0.0, "b", True)]
    changes += [Change(float(i), f"{'ab'[i % 2]}{i}", True) for i in range(2, 10)]
    gone = [Change(float(i) - 0.1, "ab"[i % 2] + (str(i - 2) if i > 3 else ""), False) for i in range(2, 10)]
    whole = Trace("t", tuple(sorted([*changes, *gone], key=lambda c: c.at)), 10.0)
    small = compress(whole, 10.0, 1)
    assert small.peak == 1
    assert small.losses >= 3


@given(st.integers(0, 50), st.integers(1, 12), st.floats(1.0, 1000.0))
def test_the_books_balance(seed: int, nodes: int, seconds: float) -> None:
    whole = trace.generate("churn", 12, seed, hours=2.0)
    small = compress(whole, seconds, min(nodes, whole.peak))
    assert small.peak <= nodes
    assert all(0.0 <= change.at <= seconds * (1 + 1e-9) for change in small.changes)
    assert [change.at for change in small.changes] == sorted(change.at for change in small.changes)
    there: set[str] = set()
    for change in small.changes:
        assert change.up == (change.node not in there)
        there ^= {change.node}
    assert small == compress(whole, seconds, min(nodes, whole.peak))


def test_what_cannot_be_compressed_is_refused() -> None:
    whole = Trace("t", (Change(0.0, "a", True),), 100.0)
    with pytest.raises(BadInput, match="at most 1 at a time"):
        compress(whole, 10.0, 2)
    with pytest.raises(BadInput, match="0 s"):
        compress(whole, 0.0, 1)


def test_the_mean_counts_the_time_before_the_first_and_after_the_last() -> None:
    whole = Trace("t", (Change(2.0, "a", True), Change(4.0, "b", True), Change(8.0, "a", False)), 10.0)
    assert mean_nodes(whole) == pytest.approx((0 * 2 + 1 * 2 + 2 * 4 + 1 * 2) / 10)


@pytest.mark.skipif(not P3.exists(), reason="the recorded traces lie beside the repository")
def test_a_spot_fleet_in_ten_minutes() -> None:
    whole = trace.read(P3)
    small = compress(whole, 600.0, 4)
    assert (small.peak, len(small.changes)) == (4, 43)
    assert mean_nodes(small) / 4 == pytest.approx(mean_nodes(whole) / whole.peak, abs=0.02)
