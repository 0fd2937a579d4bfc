"""What a run wishes of its cluster, from how it is: and the provider that buys by it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
from ray.autoscaler.node_launch_exception import NodeLaunchException
from tests.unit.test_provider import OPTIONS, TAGS, World

from headway.cluster.provider import WISHED_S, WISHES_S, Provider
from headway.core.bill import Outlay
from headway.core.demand import Worth
from headway.core.events import Arrived, Placed, Publish, Ready
from headway.core.inventory import Draining
from headway.core.membership import Membership
from headway.core.membership import Policy as Size
from headway.core.offers import Offer, Stock
from headway.core.policy import Means, Policy, View
from headway.core.purses import Purse
from headway.core.rates import Rates
from headway.core.wishes import EACH_S, Wish
from headway.elastic.lead.wishing import Wishing

EACH = {"CPU": 1.0}
SOLD = Stock((Offer("w", "c", "a", True, 0.3), Offer("w", "c", "a", False, 1.0)), {"w": {"CPU": 1}})
WORTH = Worth(4, "by time alone")


def membership(*nodes: str) -> Membership:
    """Workers that train, one on each node."""
    found = Membership(Size(8, 1, len(nodes)))
    found.begin()
    for number, node in enumerate(nodes):
        found.step(Placed(f"w{number}", node, 0.0))
    for number in range(len(nodes)):
        for action in found.step(Ready(f"w{number}", 0.0)):
            if isinstance(action, Publish):
                for member in action.generation.members:
                    found.step(Arrived(member, action.generation.number, -1, 0, False, 0.0))
    return found


def wishing(means: Means, steps: int = 1000, paces: float = 1.0, **more: Any) -> Wishing:
    rates = Rates(8)
    rates.note(1, paces)
    return Wishing(Policy(means, 8, 1, 4, rates), "r", EACH, steps, **more)


def looked(it: Wishing, of: Membership, step: int = 0, lane_s: dict[str, float] | None = None) -> Worth:
    """What it comes to, once it was thought about."""
    it.look(of, step, WORTH, 1, 10.0, lane_s or {}, 0.0)
    it.decide()
    return it.look(of, step, WORTH, 1, 10.0, {}, 0.0)[0]


def test_before_anything_was_decided_time_alone_says_how_many() -> None:
    it = wishing(Means(Purse(usd_per_hour=0.6)))
    assert it.look(membership(), 0, WORTH, 1, 10.0, {}, 0.0) == (WORTH, [])


def test_what_is_wished_keeps_to_the_money_and_is_told_to_the_cluster() -> None:
    it = wishing(Means(Purse(usd_per_hour=0.7), on_demand_min=0))
    it.learnt(SOLD, {"n0": ("c", True)}, Outlay(1.5, 0.3, 0.0), 0.0)
    of = membership("n0")
    assert looked(it, of).workers == 2
    wish = it.wish(100.0)
    assert wish is not None
    assert (wish.run, wish.on_demand, wish.spot, wish.each) == ("r", 0, 2, EACH)
    assert it.wish(101.0) is None, "it is told already"
    assert it.wish(100.0 + EACH_S) is not None, "and once more, so that it holds"


def test_what_is_wished_is_paid_by_whole_machines() -> None:
    it = wishing(Means(Purse(usd_per_hour=0.7)))
    it.learnt(Stock((Offer("w", "c", "a", True, 0.4),), {"w": {"CPU": 2}}), {}, None, 0.0)
    assert looked(it, membership("n0")).workers == 2


def test_what_the_cluster_has_no_price_for_costs_what_the_job_says() -> None:
    bare = Stock((SOLD.offers[0], Offer("w", "p4d", "a", False)), SOLD.resources)
    it = wishing(Means(Purse(usd_per_hour=4.0), on_demand_min=4), price=2.0)
    it.learnt(bare, {}, None, 0.0)
    assert looked(it, membership("n0")).workers == 2
    it = wishing(Means(Purse(usd_per_hour=4.0), on_demand_min=4), listed=lambda type, zone, spot: 1.0)
    it.learnt(bare, {}, None, 0.0)
    assert looked(it, membership("n0")).workers == 4
    told = wishing(Means(Purse(usd=100.0)))
    told.learnt(Stock((Offer("w", "c", "a", True), Offer("w", "c", "a", False, 1.0)), SOLD.resources), {}, None, 0.0)
    looked(told, membership("n0"))
    wish = told.wish(100.0)
    assert wish is not None
    assert wish.on_demand == 0, "spot machines without a price are sold all the same"


def test_steps_that_are_done_stay_done_while_nobody_works() -> None:
    """All machines are taken when 900 of 1,000 steps are done; what is left takes the newcomers 100 s, not 1,000 s."""
    it = wishing(Means(deadline=time.time() + 3000.0, every_steps=50), steps=1000, paces=0.1)
    it.learnt(SOLD, {"n0": ("c", True)}, None, 0.0)
    looked(it, membership("n0"), 900)
    looked(it, membership(), -1)
    view = cast(View, it._seen and it._seen[0])
    assert (view.steps, view.unheld) == (100, 900)
    worth, told = it.look(membership("n0"), -1, WORTH, 1, 10.0, {}, 0.0)
    assert "late" not in worth.reason
    assert not any(event["kind"] == "foreseen" for event in told)
    it.look(membership("n0"), 850, WORTH, 1, 10.0, {}, 0.0)
    view = cast(View, it._seen and it._seen[0])
    assert (view.steps, view.unheld) == (150, 0), "of the checkpoint that they began from"


def test_a_run_that_goes_on_has_done_what_it_had() -> None:
    it = wishing(Means(Purse(usd=1000.0)), steps=1000, done=900)
    it.look(membership("n0"), -1, WORTH, 1, 10.0, {}, 0.0)
    assert it._seen is not None
    assert it._seen[0].steps == 100


def test_a_decision_is_told_once_with_what_was_spent() -> None:
    it = wishing(Means(Purse(usd_per_hour=0.7)))
    it.learnt(SOLD, {}, Outlay(1.5, 0.3, 0.0), 0.0)
    of = membership("n0")
    it.look(of, 0, WORTH, 1, 10.0, {}, 0.0)
    it.decide()
    _, told = it.look(of, 0, WORTH, 1, 10.0, {}, 0.0)
    assert [(event["kind"], event["workers"], event["on_demand"], event["spent"]) for event in told] == [
        ("policy", 2, 0, 1.5)
    ]
    it.decide()
    assert it.look(of, 0, WORTH, 1, 10.0, {}, 0.0)[1] == []


def test_workers_on_machines_of_the_wrong_market_are_replaced() -> None:
    floor = wishing(Means(Purse(usd_per_hour=1.4), on_demand_min=1))
    floor.learnt(SOLD, {"n0": ("c", True), "n1": ("c", True)}, None, 0.0)
    of = membership("n0", "n1")
    looked(floor, of)
    ((worker, reason),) = floor.astray(of)
    assert worker == "w1"
    assert reason.startswith("a machine on demand is wished")
    fits = wishing(Means(Purse(usd_per_hour=1.4), on_demand_min=1))
    fits.learnt(SOLD, {"n0": ("c", True), "n1": ("c", False)}, None, 0.0)
    looked(fits, of)
    assert fits.astray(of) == []


def test_of_a_machine_that_is_not_known_yet_nobody_leaves() -> None:
    it = wishing(Means(Purse(usd=1000.0), on_demand_min=0))
    it.learnt(SOLD, {}, None, 0.0)
    of = membership("n0")
    looked(it, of)
    assert it.astray(of) == []


def test_one_on_demand_goes_back_to_a_spot_machine_that_is_to_be_had() -> None:
    it = wishing(Means(Purse(usd=1000.0)))
    it.learnt(SOLD, {"n0": ("c", False)}, None, 0.0)
    of = membership("n0")
    looked(it, of)
    assert [worker for worker, _ in it.astray(of)] == ["w0"]
    gone = Stock((Offer("w", "c", "a", True, 0.3, until=1e12), SOLD.offers[1]), SOLD.resources)
    it.learnt(gone, {"n0": ("c", False)}, None, 0.0)
    assert it.astray(of) == []


def test_where_a_cluster_tells_nothing_the_jobs_price_counts() -> None:
    it = wishing(Means(Purse(usd_per_hour=2.0)), price=1.0)
    of = membership("n0")
    it.look(of, 0, WORTH, 1, 10.0, {}, 7200.0)
    it.decide()
    assert it.wish(0.0) is None, "there is nobody to be told"
    worth, told = it.look(of, 0, WORTH, 1, 10.0, {}, 7200.0)
    assert worth.workers == 2
    assert (told[0]["on_demand"], told[0]["spent"]) == (None, 2.0)


def test_somebody_may_ask_for_another_size() -> None:
    it = wishing(Means(Purse(usd=1000.0)))
    of = membership("n0")
    assert looked(it, of).workers == 4
    it.resized(1, 2)
    assert it.most == 2
    assert it.look(of, 0, WORTH, 1, 10.0, {}, 0.0)[0] == WORTH, "until it was thought about"
    assert looked(it, of).workers == 2


def test_types_that_are_slow_are_told_of() -> None:
    it = wishing(Means(Purse(usd=1000.0)))
    it.learnt(SOLD, {"n0": ("fast", False), "n1": ("slow", False)}, None, 0.0)
    of = membership("n0", "n1")
    for _ in range(3):
        looked(it, of, lane_s={"w0": 1.0, "w1": 2.0})
    wish = it.wish(0.0)
    assert wish is not None
    assert wish.speeds == {"fast": 1.0, "slow": 0.5}


# The provider that buys by wishes

BOTH = [*OPTIONS, {"type": "c", "zone": "a", "spot": False, "price_per_hour": 1.0}]
SELLS = {"worker": {"resources": {"CPU": 1}, "one_of": BOTH}}


class Shop:
    """A provider, and what runs wish of it."""

    def __init__(self) -> None:
        self.world = World()
        self.wishes: Sequence[Wish] = ()
        self.shown: list[Stock] = []
        self.provider = Provider(
            {"type": "external", "headway": {"id": "7", "sells": SELLS, "idle_s": 30.0, "hold_s": 60.0}},
            "t",
            market=self.world.cloud.market("t"),
            standings=lambda: self.world.nodes,
            tell=self.world.told.append,
            tell_till=lambda till: None,
            show=self.shown.append,
            wished=lambda: self.wishes,
            clock=lambda: self.world.now,
            sleep=self.sleep,
        )
        self.on_sleep: list[Sequence[Wish]] = []

    def sleep(self, seconds: float) -> None:
        self.world.sleep(seconds)
        if self.on_sleep:
            self.wishes = self.on_sleep.pop(0)

    def buy(self) -> bool:
        """One machine; gives whether it is a spot machine."""
        config = {"headway": {"one_of": BOTH, "order": "cheapest"}}
        self.world.now += WISHES_S
        (id,) = self.provider.create_node(config, dict(TAGS), 1)
        return next(vm.option.spot for vm in self.world.cloud.machines if vm.id == id)

    def wish(self, on_demand: int, spot: int, **more: Any) -> Wish:
        return Wish("r", EACH, on_demand, spot, at=self.world.now, **more)


def test_markets_are_bought_as_they_are_wished() -> None:
    shop = Shop()
    assert shop.buy() is True, "nobody wishes anything: the cheapest"
    shop.wishes = [shop.wish(2, 2)]
    assert [shop.buy() for _ in range(3)] == [False, False, True]
    assert shop.buy() is True, "all wishes are served: the cheapest"


def test_a_request_that_waits_for_spot_machines_turns_when_the_wish_does() -> None:
    shop = Shop()
    shop.world.cloud.refuse(spot=True)
    shop.wishes = [shop.wish(0, 1)]
    shop.on_sleep = [shop.wishes, [shop.wish(1, 0)]]
    assert shop.buy() is False
    assert max(shop.world.slept) <= WISHED_S


def test_spot_machines_are_waited_for_while_they_are_wished() -> None:
    shop = Shop()
    shop.world.cloud.refuse(spot=True)
    shop.wishes = [shop.wish(0, 1)]
    with pytest.raises(NodeLaunchException):
        shop.buy()


def test_a_machine_that_is_taken_back_is_made_up_for() -> None:
    shop = Shop()
    shop.wishes = [shop.wish(0, 1)]
    assert shop.buy() is True
    shop.world.nodes = {"i-0000": "alive"}
    shop.provider.non_terminated_nodes({})
    shop.world.nodes = {"i-0000": Draining(shop.world.now + 120.0)}
    shop.provider.non_terminated_nodes({})
    shop.world.cloud.refuse(spot=True)
    with pytest.raises(NodeLaunchException):
        shop.buy()


def test_a_type_that_is_slow_is_tried_last_though_it_is_cheap() -> None:
    shop = Shop()
    shop.wishes = [shop.wish(0, 9, speeds={"c": 0.5})]
    assert shop.buy() is True
    assert shop.world.events("chosen")[-1].endswith("the first of the list")


def test_what_is_sold_is_shown_with_what_was_refused() -> None:
    shop = Shop()
    shop.world.cloud.refuse(zone="b", spot=True)
    shop.world.cloud.hold("c", "a", 0)
    shop.wishes = [shop.wish(0, 1)]
    with pytest.raises(NodeLaunchException):
        shop.buy()
    stock = shop.shown[-1]
    assert [offer.price_per_hour for offer in stock.offers] == [0.3, 0.4, 1.0]
    assert [offer.until > shop.world.now for offer in stock.offers] == [True, True, False]
    assert stock.idle_s == 30.0
    assert stock.resources == {"worker": {"CPU": 1}}
