"""A budget and a deadline, replayed with spot machines that come and go: never late, never overdrawn, no flapping."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.policy import Means, Policy
from headway.core.purses import Purse
from headway.core.rates import Rates
from headway.sim.thrift import LOOK_S, Outcome, Place, run

HOUR = 3600.0
PLACE = Place(lanes=1, steps=18_000)  # five hours on one worker
TICK_S = 600.0


def played(place: Place, trace: list[bool], most: int = 1, **allowed: object) -> Outcome:
    means = {"every_steps": place.save_every, **allowed}
    return run(Policy(Means(**means), place.lanes, 1, most, Rates(place.lanes)), place, trace, TICK_S)  # type: ignore[arg-type]


def trace(seed: int, hours: float, there: float) -> list[bool]:
    """Spells of some length, there for so much of the time."""
    draw, found = random.Random(seed), []
    while len(found) * TICK_S < hours * HOUR:
        for state, mean in ((True, 24 * there), (False, 24 * (1 - there))):
            found += [state] * max(0, round(draw.expovariate(1 / max(0.5, mean))))
    return found or [False]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 1.0), st.floats(1.1, 2.0))
def test_it_is_never_late_whatever_spot_machines_do(seed: int, there: float, slack: float) -> None:
    deadline = slack * (PLACE.steps * PLACE.lane_s + 2 * PLACE.come_s)
    outcome = played(PLACE, trace(seed, 30, there), deadline=deadline)
    assert outcome.steps == PLACE.steps
    assert outcome.seconds <= deadline


def test_spot_machines_that_stay_are_all_that_is_bought() -> None:
    outcome = played(PLACE, [True], deadline=10 * HOUR)
    assert {on_demand for _, _, on_demand in outcome.decisions} == {0}
    assert outcome.dollars == pytest.approx(5.07, rel=0.02)


def test_it_costs_less_than_on_demand_alone_where_there_is_slack() -> None:
    alone = PLACE.on_demand * (PLACE.steps * PLACE.lane_s + PLACE.come_s) / HOUR
    costs = [played(PLACE, trace(seed, 40, 0.6), deadline=8 * HOUR).dollars for seed in range(6)]
    assert sum(costs) / len(costs) < 0.75 * alone


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 1.0), st.floats(0.5, 20.0))
def test_money_is_never_overdrawn(seed: int, there: float, usd: float) -> None:
    outcome = played(PLACE, trace(seed, 60, there), purse=Purse(usd=usd), deadline=30 * HOUR)
    late = PLACE.on_demand * (PLACE.idle_s + 2 * LOOK_S) / HOUR  # a machine that was bought at the last moment
    assert outcome.dollars <= usd + late
    assert outcome.stopped == (outcome.steps < PLACE.steps)


def test_dollars_an_hour_are_kept_to_and_more_workers_are_taken_as_far_as_they_go() -> None:
    place = Place(steps=20_000)
    outcome = played(place, [True], most=8, purse=Purse(usd_per_hour=4.5))
    assert max(workers for _, workers, _ in outcome.decisions) == 4
    wide = played(place, [True], most=8)
    assert max(workers for _, workers, _ in wide.decisions) == 8
    assert wide.seconds < outcome.seconds


def test_a_floor_stays_on_demand_through_all() -> None:
    place = Place(steps=20_000)
    outcome = played(place, trace(3, 40, 0.5), most=4, on_demand_min=1, purse=Purse(usd=1e6))
    assert {on_demand for _, _, on_demand in outcome.decisions} == {1}
    assert outcome.steps == place.steps


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6))
def test_markets_do_not_flap(seed: int) -> None:
    outcome = played(PLACE, trace(seed, 40, 0.5), deadline=7 * HOUR)
    turns = sum(one[2] != other[2] for one, other in itertools.pairwise(outcome.decisions))
    assert turns <= 12
