"""The account of money: equal to an independent replay, second by second, and to its own events."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiers import examples

from headway.core.bill import SPENT_ON, Bill, Bought, cents, outlay, replayed, told
from headway.core.ledger import CAUSES

LONG = 400
"""Seconds of a drawn history."""
AT = st.integers(0, LONG)


@st.composite
def machines(draw: st.DrawFn) -> list[dict[str, Any]]:
    """What happened to each machine, in whole seconds and cents."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        since = draw(AT)
        steps = sorted(draw(st.sets(st.integers(since + 1, LONG + 1), max_size=3)))
        found.append(
            {
                "id": f"i-{number}",
                "head": number == 0,
                "spot": draw(st.booleans()),
                "since": since,
                "until": draw(st.one_of(st.none(), st.integers(since, LONG))),
                "prices": [(since, draw(st.integers(0, 500))), *((at, draw(st.integers(0, 500))) for at in steps)],
                "shares": [
                    (since, draw(st.sampled_from([0, 50, 100]))),
                    *((at, draw(st.integers(0, 100))) for at in sorted(draw(st.sets(AT, max_size=2))) if at > since),
                ],
                "carries": [(at, draw(st.integers(0, 2))) for at in sorted(draw(st.sets(AT, max_size=3)))],
            }
        )
    return found


def fed(began: int, ended: int | None, history: list[dict[str, Any]]) -> Bill:
    bill = Bill(began)
    for machine in history:
        id, (_, price), (_, share) = machine["id"], machine["prices"][0], machine["shares"][0]
        kind = "head" if machine["head"] else "node"
        since, cost = machine["since"], ((machine["since"], price / 100),)
        bill.bought(Bought(id, "c", since, cost, kind, "a", machine["spot"]), share / 100)
        for at, percent in machine["shares"][1:]:
            bill.shared(id, at, percent / 100)
        for at, workers in machine["carries"]:
            bill.carries(id, at, workers)
        for at, price in machine["prices"][1:]:
            bill.priced(id, at, price / 100)
        if machine["until"] is not None:
            bill.gone(id, machine["until"])
    if ended is not None:
        bill.end(ended)
    return bill


def newest(steps: list[tuple[int, int]], second: int) -> int:
    return next((value for at, value in reversed(steps) if at <= second), steps[0][1])


def by_seconds(began: int, ended: int | None, history: list[dict[str, Any]], now: int) -> Fraction:
    """The same in exact numbers, second by second."""
    whole = Fraction(0)
    over = now if ended is None else min(now, ended)
    for machine in history:
        met = machine["since"] <= over and (machine["until"] is None or machine["until"] > began)
        end = over if machine["until"] is None else min(over, machine["until"])
        for second in range(max(began, machine["since"]), max(end, machine["since"] + 60)) if met else ():
            percent = newest(machine["shares"], second)
            whole += Fraction(newest(machine["prices"], second) * percent, 100 * 100 * 3600)
    return whole


@settings(max_examples=examples(60, 2000))
@given(began=AT, lasts=st.one_of(st.none(), AT), history=machines(), now=st.integers(0, 2 * LONG))
def test_a_bill_is_what_the_seconds_cost(
    began: int, lasts: int | None, history: list[dict[str, Any]], now: int
) -> None:
    ended = None if lasts is None else began + lasts
    bill, exact = fed(began, ended, history), by_seconds(began, ended, history, now)
    assert bill.dollars(now) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)
    parts = bill.parts(now)
    assert sum(bill.by_market(now).values()) == pytest.approx(bill.dollars(now))
    for part in parts:
        assert min(part.booting, part.carrying, part.left) >= 0.0
    account = {cause: float(number) for number, cause in enumerate(CAUSES)}
    causes = bill.by_cause(now, account)
    assert math.fsum(causes.values()) == pytest.approx(bill.dollars(now), rel=1e-9, abs=1e-12)


@settings(max_examples=examples(30, 1000))
@given(history=machines(), one=st.integers(0, LONG), other=st.integers(0, LONG))
def test_a_bill_never_falls_and_grows_by_its_rate(history: list[dict[str, Any]], one: int, other: int) -> None:
    bill = fed(0, None, history)
    before, after = sorted((one, other))
    assert bill.dollars(before) <= bill.dollars(after) + 1e-12
    changes = {at for each in history for key in ("prices", "shares") for at, _ in each[key]}
    changes |= {each[key] or 0 for each in history for key in ("since", "until")} | {e["since"] + 60 for e in history}
    young = any(each["since"] <= after < each["since"] + 60 for each in history)
    if not young and not changes & {after, after + 1}:
        grown = bill.dollars(after + 1) - bill.dollars(after)
        assert grown == pytest.approx(bill.per_hour(after) / 3600, rel=1e-6, abs=1e-12)


@settings(max_examples=examples(30, 1000))
@given(dollars=st.dictionaries(st.sampled_from(SPENT_ON), st.floats(0, 1e4), min_size=1))
def test_what_is_shown_adds_up_to_the_cent(dollars: dict[str, float]) -> None:
    shown = cents(dollars)
    assert round(sum(shown.values()), 2) == pytest.approx(round(sum(dollars.values()), 2), abs=1e-6)
    for cause, each in dollars.items():
        assert abs(shown[cause] - each) <= 0.01 + 1e-9


def test_a_machine_costs_a_minute_at_least_and_its_price_when_it_was_so() -> None:
    bill = Bill(began=0.0)
    bill.bought(Bought("i-1", "c", 0.0, ((0.0, 3.6),), spot=True))
    assert bill.dollars(1.0) == pytest.approx(0.06)
    bill.gone("i-1", 10.0)
    assert bill.dollars(1000.0) == pytest.approx(0.06)
    assert bill.per_hour(5.0) == 3.6
    assert bill.per_hour(10.0) == 0.0
    bill.bought(Bought("i-2", "c", 100.0, ((100.0, 3.6),)))
    bill.priced("i-2", 200.0, 7.2)
    assert bill.dollars(300.0) == pytest.approx(0.06 + 0.1 + 0.2)
    assert bill.by_market(300.0) == pytest.approx({"c, spot": 0.06, "c": 0.3})


def test_before_a_worker_it_starts_and_after_the_last_it_idles() -> None:
    bill = Bill(began=0.0)
    bill.bought(Bought("h", "m", 0.0, ((0.0, 3.6),), "head"))
    bill.bought(Bought("i-1", "c", 0.0, ((0.0, 36.0),)))
    bill.carries("i-1", 30.0, 1)
    bill.carries("i-1", 90.0, 0)
    bill.gone("i-1", 100.0)
    bill.end(200.0)
    found = bill.by_cause(500.0, {"compute": 3.0, "data": 1.0})
    told = {cause: dollars for cause, dollars in found.items() if dollars}
    assert told == pytest.approx({"start": 0.3, "compute": 0.45, "data": 0.15, "idle": 0.1, "head": 0.2})
    own = bill.by_cause(500.0, {"compute": 1.0}, {"i-1": {"checkpoint": 2.0}})
    assert own["checkpoint"] == pytest.approx(0.6)
    assert own["compute"] == 0.0


def test_what_is_stored_costs_by_the_month() -> None:
    bill = Bill(began=0.0, storage=0.73)
    bill.stores(0.0, 10.0)
    bill.stores(3600.0, 20.0)
    assert bill.dollars(7200.0) == pytest.approx(0.01 + 0.02)
    assert bill.per_hour(7200.0) == pytest.approx(0.02)
    bill.end(7200.0)
    assert bill.dollars(1e6) == pytest.approx(0.03)
    assert bill.by_cause(1e6, {})["storage"] == pytest.approx(0.03)


LINES: list[dict[str, Any]] = [
    {"kind": "start", "time": 0.0},
    {"kind": "purchase", "time": 1.0, "machine": "h", "type": "m", "head": True, "since": -50.0, "per_hour": 3.6},
    {"kind": "purchase", "time": 5.0, "machine": "i", "type": "c", "spot": True, "since": 5.0, "per_hour": 36.0},
    {"kind": "purchase", "time": 20.0, "machine": "i", "workers": 1},
    {"kind": "purchase", "time": 105.0, "machine": "i", "at": 100.0, "per_hour": 72.0},
    {"kind": "purchase", "time": 110.0, "machine": "h", "share": 0.5},
    {"kind": "purchase", "time": 150.0, "machine": "i", "until": 140.0},
    {"kind": "ledger", "time": 160.0},
    {"kind": "start", "time": 500.0},
    {"kind": "purchase", "time": 500.0, "machine": "h", "type": "m", "head": True, "since": -50.0, "per_hour": 3.6},
    {"kind": "purchase", "time": 501.0, "machine": "strange", "share": 0.5},
    {"kind": "end", "time": 600.0},
]


def test_a_runs_events_tell_its_bill_and_a_start_that_was_killed_ends_with_its_last_word() -> None:
    first, second = replayed(LINES)
    assert first.ended == 160.0
    assert first.by_market(1e9) == pytest.approx({"m": 0.11 + 0.025, "c, spot": 0.95 + 0.8})
    assert second.dollars(1e9) == pytest.approx(0.1)
    stands = outlay([first, second], 550.0)
    assert stands.dollars == pytest.approx(first.dollars(550.0) + 0.05)
    assert stands.per_hour == 3.6


@settings(max_examples=examples(30, 1000))
@given(history=machines(), order=st.randoms(use_true_random=False), now=AT)
def test_the_order_in_which_it_is_heard_does_not_matter(history: list[dict[str, Any]], order: Any, now: int) -> None:
    bill, rest = Bill(0.0), []
    for machine in history:
        id, (_, price), (_, share) = machine["id"], machine["prices"][0], machine["shares"][0]
        first = {"machine": id, "type": "c", "zone": "a", "spot": machine["spot"], "head": machine["head"]}
        told(bill, {**first, "time": 0, "since": machine["since"], "per_hour": price / 100, "share": share / 100})
        rest += [{"machine": id, "time": 999, "at": at, "share": percent / 100} for at, percent in machine["shares"]]
        rest += [{"machine": id, "time": 999, "at": at, "per_hour": cent / 100} for at, cent in machine["prices"]]
        rest += [{"machine": id, "time": 999, "at": at, "workers": workers} for at, workers in machine["carries"]]
        rest += [{"machine": id, "time": 999, "until": machine["until"]}]
    order.shuffle(rest)
    for line in rest:
        told(bill, line)
    assert bill.parts(now) == fed(0, None, history).parts(now)


def test_damaged_lines_cost_nothing_and_hide_nothing() -> None:
    damaged = [
        {"kind": "purchase", "time": 2.0, "machine": "x", "since": "never", "per_hour": 9.0, "type": "c"},
        {"kind": "purchase", "time": 2.0, "machine": "y", "since": 1.0, "per_hour": 9.0},
        {"kind": "stake", "time": 2.0, "machine": "z", "stored_gb": []},
    ]
    at = next(place for place, line in enumerate(LINES) if line["kind"] == "start") + 1
    whole = [bill.dollars(600.0) for bill in replayed(LINES)]
    assert [bill.dollars(600.0) for bill in replayed([*LINES[:at], *damaged, *LINES[at:]])] == whole


def test_a_start_that_was_killed_ends_by_the_clock_of_its_own_host() -> None:
    lines = [("start", 1000.0), ("end", 1200.0), ("start", 800.0), ("alive", 900.0), ("start", 1300.0)]
    found = replayed([{"kind": kind, "time": at} for kind, at in lines])
    assert [bill.ended for bill in found] == [1200.0, 900.0, None]
