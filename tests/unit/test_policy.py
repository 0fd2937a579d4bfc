"""How many workers, and on machines of which market: by what they bring and what they cost."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import demand
from headway.core.foresight import LASTS_S, LATE, MONEY, Foresight
from headway.core.kinds import Kinds, by_worth
from headway.core.offers import Offer, Stock, fit
from headway.core.policy import Means, Order, Policy, Prices, View
from headway.core.purses import HOUR_S, Purse
from headway.core.rates import LATEST, Rates
from headway.core.steady import HOLD_S, Steady
from headway.core.wishes import LASTS_S as WISH_LASTS_S
from headway.core.wishes import Wish, market

HOUR = 3600.0
PRICES = Prices(on_demand=1.0, spot=0.3)


def rates(lanes: int = 8, **per_s: float) -> Rates:
    """Measured: w1=1.0 for one worker."""
    found = Rates(lanes)
    for size, pace in per_s.items():
        for _ in range(LATEST):
            found.note(int(size[1:]), pace)
    return found


def view(now: float = 0.0, steps: int | None = 3600, there: int = 1, **more: float) -> View:
    base = View(now, steps, there, there, 0, there, 0.0, come_s=60.0, worth=8)
    return replace(base, **more)


NO_MEANS = Means()


def policy(means: Means = NO_MEANS, known: Rates | None = None, least: int = 1, most: int = 8) -> Policy:
    return Policy(means, 8, least, most, known or rates(w1=1.0))


# What more workers bring


def test_a_pace_is_known_after_some_steps_at_one_size() -> None:
    found = Rates(8)
    for second in range(10):
        found.look(2, step=2 * second, now=float(second))
    assert found.seen() == {2: pytest.approx(2.0)}
    found.look(4, step=20, now=10.0)
    assert set(found.seen()) == {2}, "of a new size nothing is known at once"


def test_a_size_that_was_not_tried_is_foretold_by_the_lanes_of_the_slowest() -> None:
    found = rates(w2=2.0)
    assert found.at(4) == pytest.approx(4.0)
    assert found.at(5) == pytest.approx(4.0)  # ceil(8 / 5) lanes, as with 4
    assert found.at(1) == pytest.approx(1.0)


def test_what_the_last_one_brought_is_expected_of_the_next() -> None:
    found = rates(w1=1.0, w2=1.5)  # half of what it should have brought
    assert found.kept() == pytest.approx(0.5)
    assert found.at(4) == pytest.approx(1.5 + 0.5 * 1.5)


def test_one_stretch_that_was_disturbed_does_not_count() -> None:
    found = rates(w2=2.0)
    found.note(2, 0.01)
    assert found.at(2) == pytest.approx(2.0)


def test_sizes_are_taken_while_the_last_worker_is_worth_its_price() -> None:
    assert policy().look(view(), PRICES).workers == 8, "each brings what it costs"
    poor = policy(known=rates(w1=1.0, w2=1.1))
    assert poor.look(view(), PRICES).workers == 1, "the second brings a tenth of the first"


def test_what_costs_beside_workers_makes_more_of_them_worth_it() -> None:
    known = rates(w1=1.0, w2=1.45)
    assert policy(known=known).look(view(), PRICES).workers == 1
    beside = replace(PRICES, beside=1.0)
    assert policy(known=known).look(view(), beside).workers >= 2


@given(st.integers(1, 64), st.integers(1, 64), st.floats(0.05, 1.0))
def test_the_rule_for_one_price_is_the_one_of_demand(lanes: int, most: int, share: float) -> None:
    """With all prices alike, and machines that come at once, `core.demand` asks for as many."""
    most = min(lanes, most)
    outlook = demand.Outlook(lanes, 1, most, 1, 1, 1, rest_s=1e7, come_s=0.0)
    known = Rates(lanes)
    known.note(1, 1.0)
    found = Policy(Means(), lanes, 1, most, known).look(View(0.0, 10**7, 1, 1, 0, 1, 0.0, 0.0, lanes), PRICES)
    assert found.workers >= 1
    reached = [size for size in demand.sizes(lanes, most) if size <= found.workers]
    assert found.workers == reached[-1], "never one that is no faster"
    assert found.workers <= max(1, demand.worth(outlook).workers) or found.workers <= most


# Money


def test_no_more_dollars_an_hour_than_may_be_spent() -> None:
    tight = policy(Means(Purse(usd_per_hour=1.25)))
    assert tight.look(view(), PRICES).workers == 4
    assert "pay for no more" in tight.look(view(), PRICES).reason


def test_a_size_that_can_be_paid_to_the_end_goes_before_a_faster_one() -> None:
    known = rates(w1=1.0, w2=1.6, w4=2.4, w8=3.2)  # more workers: dearer steps
    free = policy(known=known).look(view(), PRICES)
    poor = policy(Means(Purse(usd=0.40)), known).look(view(), PRICES)
    assert free.workers == 2
    assert poor.workers == 2
    assert policy(Means(Purse(usd=0.32)), known).look(view(), PRICES).workers == 1


def test_what_is_missing_to_the_end_is_foreseen() -> None:
    order = policy(Means(Purse(usd=0.2))).look(view(), PRICES)
    assert order.short == pytest.approx(0.1, rel=0.01)
    assert policy(Means(Purse(usd=2.0))).look(view(), PRICES).short == 0.0


def test_a_purse_lasts_until_a_checkpoint_and_the_machines_end_are_paid() -> None:
    purse = Purse(usd=10.0)
    assert purse.lasts_s(4.0, 2.0, 0.0) == pytest.approx(3 * HOUR)
    assert purse.lasts_s(4.0, 2.0, 300.0) == pytest.approx(3 * HOUR - 300.0)
    assert purse.lasts_s(10.0, 0.0, 0.0) == 0.0
    assert purse.lasts_s(9.0, 0.0, 0.0) is None
    assert Purse().lasts_s(4.0, 2.0, 0.0) is None
    assert purse.left(4.0) == 6.0


# Markets


def test_a_floor_is_on_demand_in_any_case() -> None:
    order = policy(Means(on_demand_min=2)).look(view(), PRICES)
    assert order.on_demand == 2
    assert order.workers > 2


def test_without_a_deadline_spot_machines_are_waited_for() -> None:
    order = policy(Means(Purse(usd=100.0))).look(view(), replace(PRICES, spot_to_be_had=False))
    assert order.on_demand == 0


def test_a_size_is_forced_by_a_deadline_though_it_is_not_worth_it() -> None:
    known = rates(w1=1.0, w2=1.2)
    assert policy(known=known).look(view(), PRICES).workers == 1
    held = policy(Means(deadline=0.9 * HOUR + 60.0), known).look(view(), PRICES)
    assert held.workers >= 2


def test_money_goes_before_time() -> None:
    it = Policy(Means(Purse(usd_per_hour=0.5), deadline=1.2 * HOUR), 8, 1, 1, rates(w1=1.0))
    order = it.look(view(spot=0, there=0, training=0), replace(PRICES, spot_to_be_had=False))
    assert order.on_demand == 0
    assert "do not pay for machines on demand" in order.reason


def test_with_a_deadline_it_is_on_spot_machines_while_there_is_slack_and_on_demand_then() -> None:
    def order(left_s: float, spot_to_be_had: bool = True, **more: float) -> Order:
        it = Policy(Means(deadline=left_s), 8, 1, 1, rates(w1=1.0))
        return it.look(view(**more), replace(PRICES, spot_to_be_had=spot_to_be_had))

    assert order(10 * HOUR).on_demand == 0
    assert order(10 * HOUR, False, training=0, there=0, spot=0).on_demand == 0, "it waits"
    assert order(1.02 * HOUR, False, training=0, there=0, spot=0).on_demand == 1
    assert order(1.02 * HOUR).on_demand == 1, "spot machines may go at any time"
    assert Policy(Means(), 8, 1, 1, rates(w1=1.0)).look(view(), Prices(on_demand=1.0)).on_demand == 1


def test_money_is_counted_by_whole_machines() -> None:
    wide = replace(PRICES, spot=0.25, rooms=(1, 4))  # a dollar a machine
    assert policy(Means(Purse(usd_per_hour=1.5))).look(view(worth=8), wide).workers == 4
    assert policy(Means(Purse(usd_per_hour=2.0))).look(view(worth=8), wide).workers == 8
    order = policy(Means(Purse(usd=0.5)), most=1).look(view(), wide)
    assert order.short == pytest.approx(0.5), "one worker alone pays all of it"


def test_what_is_sold_without_a_price_is_sold() -> None:
    bare = Prices(on_demand=1.0, sold=(True, True))
    assert Policy(Means(Purse(usd=100.0)), 8, 1, 1, rates(w1=1.0)).look(view(), bare).on_demand == 0
    late = Means(deadline=1000.0)
    for prices in (Prices(spot=0.3, sold=(True, True)), Prices(sold=(True, True))):
        order = Policy(late, 8, 1, 1, rates(w1=1.0)).look(view(now=500.0, steps=430), prices)
        assert order.on_demand == 1, "the deadline is held all the same"


def test_what_nobody_holds_is_still_to_be_done_and_may_be_lost_once_more() -> None:
    """A quarter of an hour of steps since the newest checkpoint is lost: were it not reckoned, a spot machine that is
    taken then, and is taken away before the next checkpoint, would leave too little time on demand."""
    hours = 1.4

    def order(unheld: int) -> Order:
        means = Means(deadline=hours * HOUR, every_s=0.25 * HOUR)
        return Policy(means, 8, 1, 1, rates(w1=1.0)).look(view(training=0, there=0, spot=0, unheld=unheld), PRICES)

    assert order(0).on_demand == 0
    assert order(900).on_demand == 1
    assert order(9).on_demand == 0, "no more is done again than was done"


# Flapping


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=400),
    st.floats(1.0, 120.0),
)
def test_however_wishes_change_sizes_do_not_flap(wishes: list[int], every_s: float) -> None:
    it = Steady(4)
    values = [it.settle(wished, number * every_s) for number, wished in enumerate(wishes)]
    changes = sum(one != other for one, other in zip([4, *values], values, strict=False))
    seconds = every_s * len(wishes)
    assert changes <= 8 * (2 + math.log2(1 + seconds / HOLD_S))


@given(st.integers(0, 10**6), st.floats(0.05, 0.6))
def test_noisy_measurements_do_not_make_sizes_flap(seed: int, noise: float) -> None:
    """Ten hours of paces that are wrong by up to 60 %, looked at each minute."""
    draw, known = random.Random(seed), Rates(8)
    it = Policy(Means(Purse(usd_per_hour=10.0)), 8, 1, 8, known)
    size, changes = 1, 0
    for minute in range(600):
        true = {1: 1.0, 2: 1.48, 4: 1.95, 8: 2.4}[max(each for each in (1, 2, 4, 8) if each <= size)]
        known.note(size, true * draw.uniform(1 - noise, 1 + noise))
        order = it.look(view(60.0 * minute, 10**6, size, training=size), PRICES)
        changes += order.workers != size
        size = order.workers
    assert changes <= 16


def test_what_money_forces_is_taken_at_once() -> None:
    it = policy(Means(Purse(usd_per_hour=1.25)))
    assert it.look(view(), PRICES).workers == 4
    assert it.look(view(1.0), replace(PRICES, spot=0.6)).workers == 2


# What is foreseen


def test_what_is_foreseen_is_told_once_and_when_it_is_over() -> None:
    it = Foresight()
    assert it.look(LATE, "late by 2 h", 0.0) == []
    (told,) = it.look(LATE, "late by 2 h", LASTS_S)
    assert (told.about, told.text, told.over) == (LATE, "late by 2 h", False)
    assert it.look(LATE, "late by 3 h", 2 * LASTS_S) == []
    (told,) = it.look(LATE, "", 3 * LASTS_S)
    assert told.over
    assert it.look(MONEY, "", 0.0) == []


def test_a_deadline_that_nothing_holds_is_told_with_what_could() -> None:
    it = Policy(Means(deadline=0.5 * HOUR), 8, 1, 1, rates(w1=1.0))
    order = it.look(view(), PRICES)
    assert order.late_s == pytest.approx(0.5 * HOUR)
    assert it.could(view()) == "workers.max=3 would hold it"
    hopeless = Policy(Means(deadline=60.0), 8, 1, 1, rates(w1=1.0))
    assert "later would hold" in hopeless.could(view())


# What is sold, and what is wished of it

EACH = {"CPU": 1.0}
STOCK = Stock(
    (
        Offer("worker", "c", "a", True, 0.3),
        Offer("worker", "c", "a", False, 1.0),
        Offer("big", "d", "a", False, 3.2),
        Offer("none", "e"),
    ),
    {"worker": {"CPU": 1}, "big": {"CPU": 4}, "none": {}},
)


def test_a_worker_costs_its_share_of_the_cheapest_machine() -> None:
    assert STOCK.price(EACH, False) == pytest.approx(0.8)
    assert STOCK.price(EACH, True) == pytest.approx(0.3)
    assert STOCK.price({"CPU": 4.0}, None) == pytest.approx(3.2)
    assert STOCK.price({"CPU": 4.0}, True) is None
    assert STOCK.price({"GPU": 1.0}, None) is None


def test_what_was_refused_is_not_to_be_had_for_a_while() -> None:
    refused = replace(STOCK, offers=(replace(STOCK.offers[0], until=50.0), *STOCK.offers[1:]))
    assert not refused.to_be_had(EACH, True, 40.0)
    assert refused.to_be_had(EACH, True, 50.0)
    assert refused.sold(EACH, True)
    assert refused.price(EACH, True, 40.0) is None


def test_a_stock_is_told_and_read() -> None:
    assert Stock.decode(STOCK.encode()) == STOCK
    assert Stock.decode(b"nonsense") == Stock()
    assert Stock.decode(None) == Stock()


def test_how_many_fit() -> None:
    assert fit({"CPU": 8}, {"CPU": 2.0, "memory": 1e9}) == 4
    assert fit({"CPU": 8}, {"CPU": 1.0, "GPU": 1.0}) == 0
    assert fit({"CPU": 8}, {}) > 100


def test_on_demand_first_then_spot_and_then_whatever_is_cheapest() -> None:
    wish = Wish("r", EACH, on_demand=1, spot=2, at=0.0)
    has = {"CPU": 1}
    assert market([wish], has, [], 1.0) is False
    assert market([wish], has, [False], 1.0) is True
    assert market([wish], has, [False, True], 1.0) is True
    assert market([wish], has, [False, True, True], 1.0) is True, "for one that leaves a machine that is still there"
    assert market([wish, Wish("other", at=0.0)], has, [False, True, True], 1.0) is None, "or for a run without a wish"
    assert market([replace(wish, spot=0)], has, [False], 1.0) is False
    assert market([wish], has, [], WISH_LASTS_S + 1.0) is None, "its run is gone"
    assert market([], has, [], 0.0) is None
    three = replace(wish, on_demand=3, spot=1)
    assert market([three], {"CPU": 4}, [False], 0.0) is True, "one machine holds three"
    assert market([three], {}, [], 0.0) is None, "no room for any"
    assert Wish.decode(wish.encode()) == wish
    assert Wish.decode(b"x") is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4))
def test_all_wishes_are_served_and_no_more_are_on_demand_than_are_wished(wished: list[tuple[int, int]]) -> None:
    wishes = [Wish(str(number), EACH, *each) for number, each in enumerate(wished)]
    there: list[bool] = []
    for _ in range(sum(map(sum, wished))):
        spot = market(wishes, {"CPU": 1}, there, 1.0)
        assert spot is not None
        there.append(spot)
    assert there.count(False) == sum(each.on_demand for each in wishes)
    assert there.count(True) == sum(each.spot for each in wishes)


def test_machines_are_ranked_by_what_is_done_for_a_dollar() -> None:
    known = Kinds()
    for _ in range(5):
        known.note("slow", 2.0)
        known.note("fast", 1.0)
    known.note("new", 9.0)
    speeds = known.speeds()
    assert speeds == {"slow": 0.5, "fast": 1.0}
    offers = [Offer("w", "slow", price_per_hour=0.6), Offer("w", "fast", price_per_hour=1.0), Offer("w", "unpriced")]
    assert [each.type for each in by_worth(offers, speeds)] == ["fast", "slow", "unpriced"]
    assert [each.type for each in by_worth(offers, {})] == ["slow", "fast", "unpriced"]


def test_dollars_of_an_hour() -> None:
    assert Purse(usd=3.0).short(1.0, 2.0, HOUR_S) == 0.0
    assert Purse(usd=3.0).short(2.0, 2.0, HOUR_S) == pytest.approx(1.0)
    assert Purse(usd_per_hour=1.0).most([0.5, 0.5, 0.5]) == 2
    assert isinstance(policy().look(view(steps=None), PRICES), Order)
