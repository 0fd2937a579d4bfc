"""Every second of a worker has one cause, and they add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.ledger import CAUSES, PRODUCTIVE, Ledger, closed, goodput, total

# Whole numbers of 1/1024 s, whose sums are exact: the account must be exact then, too.
TICKS = st.integers(0, 5000)
ACTS = st.lists(st.tuples(TICKS, st.sampled_from([*CAUSES, "begin_step", "commit", "abandon"])), max_size=40)


def played(acts: list[tuple[int, str]], begun: float) -> tuple[Ledger, float]:
    ledger, at = Ledger(begun), begun
    for ticks, act in acts:
        at += ticks / 1024
        if act in CAUSES:
            ledger.switch(act, at)
        else:
            getattr(ledger, act)(at)
    return ledger, at


@given(ACTS, TICKS, st.integers(0, 10**6))
def test_the_causes_add_up_to_the_wall_clock(acts: list[tuple[int, str]], more: int, begun: int) -> None:
    ledger, at = played(acts, float(begun))
    at += more / 1024
    account = ledger.snapshot(at)
    assert sum(account[cause] for cause in CAUSES) == ledger.age(at) == at - begun
    assert all(seconds >= 0 for seconds in account.values())
    assert account["open"] <= sum(account[cause] for cause in PRODUCTIVE)
    assert ledger.snapshot(at) == account, "looking changes nothing"


@given(ACTS, TICKS, TICKS, st.booleans())
def test_a_closed_account_adds_up_to_the_lifetime(
    acts: list[tuple[int, str]], before: int, after: int, lost: bool
) -> None:
    ledger, at = played(acts, 0.0)
    snapshot = ledger.snapshot(at)
    snapshot["start"] += before / 1024
    lifetime = before / 1024 + at + after / 1024
    account = closed(snapshot, lifetime, lost)
    assert sum(account.values()) == lifetime
    assert all(seconds >= 0 for seconds in account.values())
    waste = "repeated" if lost else "idle"
    assert account[waste] >= after / 1024


def step(ledger: Ledger, at: float, end: str) -> float:
    """Two seconds of data, three of work, one of exchange."""
    ledger.begin_step(at)
    for cause, seconds in (("data", 2.0), ("compute", 3.0), ("communication", 1.0)):
        ledger.switch(cause, at)
        at += seconds
    getattr(ledger, end)(at)
    return at


def test_a_committed_step_counts_as_what_it_was_spent_on() -> None:
    ledger = Ledger(0.0)
    at = step(ledger, 0.0, "commit")
    account = ledger.snapshot(at)
    assert (account["data"], account["compute"], account["communication"]) == (2.0, 3.0, 1.0)
    assert (account["repeated"], account["open"]) == (0.0, 0.0)


def test_an_abandoned_step_is_repeated_work() -> None:
    ledger = Ledger(0.0)
    at = step(ledger, 0.0, "abandon")
    ledger.switch("regroup", at)
    at = step(ledger, at + 4.0, "commit")
    account = ledger.snapshot(at)
    assert account["repeated"] == 6.0
    assert account["regroup"] == 4.0
    assert sum(account[cause] for cause in PRODUCTIVE) == 6.0
    assert goodput(account) == 6.0 / 16.0


def test_waiting_in_a_step_is_lost_once_only() -> None:
    """A regroup in the middle of a step is regroup, whatever becomes of the step."""
    ledger = Ledger(0.0)
    ledger.begin_step(0.0)
    ledger.switch("compute", 0.0)
    ledger.switch("regroup", 2.0)
    ledger.abandon(5.0)
    account = ledger.snapshot(5.0)
    assert (account["repeated"], account["regroup"]) == (2.0, 3.0)


def test_what_a_dead_worker_had_under_way_is_lost() -> None:
    ledger = Ledger(0.0)
    at = step(ledger, 0.0, "commit")
    ledger.begin_step(at)
    ledger.switch("compute", at)
    snapshot = ledger.snapshot(at + 5.0)
    assert snapshot["open"] == 5.0
    account = closed(snapshot, at + 7.0, lost=True)
    assert account["repeated"] == 7.0, "the open step, and the two seconds since it was last heard"
    assert sum(account[cause] for cause in PRODUCTIVE) == 6.0
    assert closed(snapshot, at + 7.0, lost=False)["idle"] == 2.0


def test_one_that_never_said_anything_was_starting() -> None:
    assert closed({}, 9.0, lost=True) == {**dict.fromkeys(CAUSES, 0.0), "start": 9.0}


def test_totals_and_goodput() -> None:
    one, other = {"compute": 3.0, "idle": 1.0, "open": 9.0}, {"compute": 1.0, "start": 3.0}
    account = total([one, other])
    assert account == {**dict.fromkeys(CAUSES, 0.0), "compute": 4.0, "idle": 1.0, "start": 3.0}
    assert goodput(account) == 0.5
    assert goodput({}) == 0.0


def test_an_unknown_cause_is_refused() -> None:
    ledger = Ledger(0.0)
    ledger.switch("holidays", 1.0)
    with pytest.raises(KeyError):
        ledger.snapshot(2.0)
