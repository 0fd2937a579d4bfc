"""Deadlines: what is believed of spot machines, what being in time is expected to cost, and what is decided."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiers import examples

from headway.core import late
from headway.core.habits import learned
from headway.core.late import Late, Prices, Situation
from headway.core.phases import Phases, Seen, of_json, unseen
from headway.core.slack import NOTHING, ON_DEMAND, SPOT, Programme, Terms
from headway.core.spot_habits import LEARNED

HOUR = 3600.0
COIN = Phases(600.0, (False, True), ((0.75, 0.25), (0.1, 0.9)), (0.5, 0.5))
"""Spells whose ends do not depend on how long they have lasted."""

NOW = Situation(
    work_s=8 * HOUR,
    left_s=12 * HOUR,
    running=NOTHING,
    owed_s=0.0,
    spot=True,
    prices=Prices(1.0, 3.0),
    restart_s=60.0,
    every_s=600.0,
)


def test_moves_by_whole_ticks_and_by_parts():
    moves = np.array(LEARNED.moves)
    assert LEARNED.after(600.0) == pytest.approx(moves, abs=1e-5)
    assert LEARNED.after(1800.0) == pytest.approx(np.linalg.matrix_power(moves, 3), abs=1e-5)
    assert LEARNED.after(0.0) == pytest.approx(np.eye(len(moves)))
    for seconds in (1.0, 150.0, 7777.0):
        assert LEARNED.after(seconds).sum(1) == pytest.approx(1.0, abs=1e-4)
        assert LEARNED.after(seconds).min() >= 0.0
    assert COIN.after(300.0)[0, 1] == pytest.approx(0.125)
    assert COIN.scaled(0.5).after(300.0) == pytest.approx(COIN.after(600.0))


def test_belief_is_bayes_rule():
    """Against the sum over all ways through the phases."""
    phases = Phases(
        600.0,
        (False, True, True),
        ((0.6, 0.3, 0.1), (0.4, 0.5, 0.1), (0.05, 0.05, 0.9)),
        (0.2, 0.3, 0.5),
    )
    looks = [True, True, False, True]
    seen = unseen(phases)
    for tick, there in enumerate(looks):
        seen = seen.looked(phases, there, 600.0 * tick)
    chances = np.zeros(3)
    for path in np.ndindex(3, 3, 3, 3):
        if all(phases.there[phase] == there for phase, there in zip(path, looks, strict=True)):
            chance = phases.start[path[0]]
            for before, after in pairwise(path):
                chance *= phases.moves[before][after]
            chances[path[-1]] += chance
    assert seen.belief == pytest.approx(chances / chances.sum())


def test_a_long_spell_is_taken_to_last():
    """What was learned tells a pool that is there for hours from one that flaps."""

    def there_next(looks: list[bool]) -> float:
        seen = unseen(LEARNED)
        for tick, there in enumerate(looks):
            seen = seen.looked(LEARNED, there, 600.0 * tick)
        return float((np.array(seen.belief) @ LEARNED.after(3 * HOUR))[np.array(LEARNED.there)].sum())

    assert there_next([True] * 100) > 0.9
    assert there_next([False, True] * 50) < 0.75
    assert there_next([False] * 30) < there_next([True] * 30 + [False]) < 0.9


def test_a_clock_put_back_and_a_look_that_was_held_impossible():
    seen = unseen(COIN).looked(COIN, True, 1000.0).looked(COIN, True, 400.0)
    assert seen.belief == (0.0, 1.0)
    stuck = replace(COIN, moves=((1.0, 0.0), (0.0, 1.0)))
    assert Seen((1.0, 0.0), 0.0).looked(stuck, True, 600.0).belief == (0.0, 1.0)


def test_what_was_seen_survives_its_policy():
    first = Late()
    for tick in range(5):
        first.decide(replace(NOW, spot=tick % 2 == 0, left_s=12 * HOUR - 600.0 * tick), 600.0 * tick)
    second = Late.of_json(json.loads(json.dumps(first.as_json())))
    assert second.seen == first.seen
    later = replace(NOW, spot=False, left_s=9 * HOUR)
    assert second.decide(later, 3600.0) == first.decide(later, 3600.0)


@pytest.mark.parametrize(
    "tree",
    [None, {}, [], {"belief": [1.0], "at": 0.0}, {"belief": ["x"] * 8, "at": 0.0}, {"belief": [-1.0, 2.0], "at": 1.0}],
)
def test_what_is_no_memory_of_these_phases_is_none(tree: object):
    assert of_json(tree, COIN) == unseen(COIN)


def test_habits_are_learned_from_what_comes_of_them():
    """Spells drawn with one chance each of ending: the learned phases expect the same."""
    chance = np.random.default_rng(3)
    spells = []
    for _ in range(6):
        there = [True]
        while len(there) < 600:
            there.append(bool(chance.random() < COIN.moves[int(there[-1])][1]))
        spells.append(there)
    found = learned(spells, 600.0)
    assert found.tick_s == 600.0
    assert np.array(found.moves).sum(1) == pytest.approx(1.0)
    for first in (False, True):
        seen = unseen(found)
        for tick in range(5):
            seen = seen.looked(found, first, 600.0 * tick)
        soon = float((np.array(seen.belief) @ found.after(600.0))[np.array(found.there)].sum())
        assert soon == pytest.approx(COIN.moves[int(first)][1], abs=0.05)


def test_the_programme_is_the_least_expected_cost():
    """Against every decision tried in turn, on slack of whole steps; the phases are seen: nothing is left out."""
    terms = Terms(tick_s=600.0, ticks=6, slack_s=2400.0, restart_s=240.0, price=0.3)
    programme = Programme(terms, COIN)

    @cache
    def least(ticks: int, running: str, slack_s: float, there: bool) -> float:
        if slack_s >= ticks * 600.0:
            return 0.0
        return min(ways(ticks, running, slack_s, there).values())

    def ways(ticks: int, running: str, slack_s: float, there: bool) -> dict[str, float]:
        def then(way: str, slack_s: float) -> float:
            chances = COIN.moves[int(there)]
            stays = [NOTHING if way == SPOT and not soon else way for soon in (False, True)]
            return sum(
                chance * least(ticks - 1, stay, max(slack_s, 0.0), soon)
                for chance, stay, soon in zip(chances, stays, (False, True), strict=True)
            )

        found = {ON_DEMAND: 1 / 6 + then(ON_DEMAND, slack_s - (0.0 if running == ON_DEMAND else 240.0))}
        if slack_s - 600.0 >= 240.0:
            found[NOTHING] = then(NOTHING, slack_s - 600.0)
        start_s = 0.0 if running == SPOT else 240.0
        if there and slack_s - start_s >= 240.0:
            found[SPOT] = 0.3 / 6 + then(SPOT, slack_s - start_s)
        return found

    for ticks in range(1, 7):
        for running, slack_s, there in product((NOTHING, SPOT, ON_DEMAND), range(0, 2401, 120), (False, True)):
            if (running == SPOT and not there) or slack_s >= ticks * 600:
                continue
            got = programme.ahead(running, np.eye(2)[int(there)], 600.0 * ticks, slack_s)
            for way, cost in ways(ticks, running, slack_s, there).items():
                assert got[way] == pytest.approx(cost, abs=1e-4), (ticks, running, slack_s, there, way)


def test_spot_while_there_is_slack_and_the_reason_is_said():
    found = Late().decide(NOW, 0.0)
    assert found.run == SPOT
    assert "spot machines are to be had, 4 hours to spare" in found.reason
    assert found.expected[SPOT] < found.expected[ON_DEMAND] == pytest.approx(min(24.5, found.expected[ON_DEMAND]))


def test_on_demand_when_a_restart_is_all_that_is_to_spare():
    found = Late().decide(replace(NOW, left_s=8 * HOUR + 90.0), 0.0)
    assert found.run == ON_DEMAND
    assert found.reason == "1.5 minutes to spare are needed for a restart on demand should spot machines go"


def test_a_deadline_that_cannot_be_met_is_said():
    now = replace(NOW, left_s=7.5 * HOUR)
    assert now.short_s == pytest.approx(0.5 * HOUR + 60.0)
    assert Late().decide(now, 0.0) == late.Decision(
        ON_DEMAND, "even on demand it ends 31 minutes late: 8.02 hours needed, 7.5 hours left"
    )


def test_what_runs_on_spot_and_can_only_so_be_in_time_stays():
    now = replace(NOW, running=SPOT, left_s=8 * HOUR + 30.0)
    assert now.short_s == 30.0
    assert Late().decide(now, 0.0).run == SPOT


def test_nothing_runs_when_all_is_computed():
    assert Late().decide(replace(NOW, work_s=0.0), 0.0).run == NOTHING


def test_spot_that_is_no_cheaper_is_not_waited_for():
    for spot in (3.0, 4.0):
        assert Late().decide(replace(NOW, prices=Prices(spot, 3.0)), 0.0).run == ON_DEMAND


def test_machines_for_nothing_are_not_waited_for():
    assert Late().decide(replace(NOW, prices=Prices(0.0, 0.0), spot=False), 0.0).run == ON_DEMAND
    assert Late().decide(replace(NOW, prices=Prices(0.0, 3.0)), 0.0).run == SPOT


def test_cheap_spot_is_waited_for_while_there_is_slack():
    """Away for a moment, with hours to spare; and no longer when a wait has cost most of them."""
    policy = Late()
    policy.decide(replace(NOW, left_s=30 * HOUR), 0.0)
    found = policy.decide(replace(NOW, left_s=30 * HOUR, spot=False), 600.0)
    assert found.run == NOTHING
    assert "worth waiting for" in found.reason
    assert SPOT not in found.expected
    assert policy.decide(replace(NOW, left_s=8 * HOUR + 800.0, spot=False), 1200.0).run == ON_DEMAND


def test_money_spent_for_little_closes_the_way_to_spot():
    """A tenth over on demand alone is the most that it may come to."""
    now = replace(NOW, done_s=2 * HOUR, work_s=8 * HOUR)
    alone = 3.0 * (10 * HOUR + 60.0) / HOUR
    most = 1.1 * alone - 3.0 * (8 * HOUR + 60.0) / HOUR - 1.0 / 6
    assert SPOT in late.allowed(replace(now, paid=most - 0.01), True, 0.1)[0]
    open_, closed = late.allowed(replace(now, paid=most + 0.01), True, 0.1)
    assert SPOT not in open_
    assert closed == f"{most + 0.01:.2f} dollars are spent, and more could end 10 % over on demand alone"


@settings(max_examples=examples(200, 5000), deadline=None)
@given(
    work_s=st.floats(1.0, 50 * HOUR),
    slack_s=st.floats(0.0, 30 * HOUR),
    running=st.sampled_from([NOTHING, SPOT, ON_DEMAND]),
    spot=st.booleans(),
    owed=st.floats(0.0, 1.0),
    restart_s=st.floats(0.0, 2000.0),
    every_s=st.floats(1.0, 2000.0),
    sure=st.floats(0.0, 1.0),
)
def test_whatever_is_open_leaves_a_way_back(
    work_s: float, slack_s: float, running: str, spot: bool, owed: float, restart_s: float, every_s: float, sure: float
):
    """From where on demand makes it, after any open way and the worst that spot can do, it still makes it."""
    owed_s = 0.0 if running == NOTHING else owed * restart_s
    first = Situation(work_s, 0.0, running, owed_s, spot, Prices(1.0, 3.0), restart_s, every_s, sure * every_s)
    now = replace(first, left_s=first.need_s + slack_s)
    for way in late.allowed(now, spot or running == SPOT, 0.1)[0]:
        start_s = owed_s if way == running else restart_s
        passes_s = {NOTHING: 0.0, SPOT: sure * every_s, ON_DEMAND: every_s}[way]
        computed_s = 0.0 if way == NOTHING else max(0.0, passes_s - start_s)
        still_s = max(0.0, start_s - every_s) if way == ON_DEMAND else restart_s
        rest_s = work_s - computed_s
        if rest_s > 1e-6:
            assert now.left_s - every_s >= rest_s + still_s - 1e-3


def test_one_programme_does_for_a_run():
    policy = Late()
    policy.decide(NOW, 0.0)
    made = policy._programme
    for tick in range(1, 40):
        now = replace(NOW, left_s=12 * HOUR - 600.0 * tick, spot=tick % 3 > 0, restart_s=62.0, prices=Prices(1.01, 3.0))
        policy.decide(now, 600.0 * tick)
    assert policy._programme is made
    policy.decide(replace(NOW, prices=Prices(2.0, 3.0)), 30000.0)
    assert policy._programme is not made, "of another price"


def test_a_decision_takes_less_than_a_millisecond():
    policy = Late()
    policy.decide(NOW, 0.0)
    began = time.process_time()
    for tick in range(1, 301):
        policy.decide(replace(NOW, spot=tick % 3 > 0), 100.0 * tick)
    assert (time.process_time() - began) / 300 < 1e-3


def test_a_week_and_a_minute_are_planned_alike():
    """The programme's size is bounded whatever the deadline."""
    for scale in (1 / 480, 1.0, 20.0):
        policy = Late()
        now = replace(NOW, work_s=NOW.work_s * scale, left_s=NOW.left_s * scale, every_s=5.0, restart_s=2.0)
        assert policy.decide(now, 0.0).run == SPOT
        assert policy._programme is not None
        assert policy._programme.costs.size <= 601 * 3 * 402 * 8
