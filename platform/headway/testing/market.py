"""The contract of a market: what `headway.cluster.market.Market` promises, as tests.

A cloud supplies one fixture, `stall`, and inherits every test:

    class TestMine(MarketContract):
        @pytest.fixture
        def stall(self) -> Stall:
            return Stall(lambda: MyMarket("t"), Option("small", "a"))

The cluster has no machines when a test begins, and `open` opens the market once more, as another process would.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from headway.cluster.market import UNKNOWN, Charges, Machine, Market, Option, Refused
from headway.cluster.teardown import tear_down

TAGS = {"ray-cluster-name": "t", "ray-node-type": "worker", "ray-user-node-type": "worker", "headway-cluster": "7"}
NOWHERE = Option("no-such-type", "no-such-zone")
STATES = ("booting", "running", "stopping")


@dataclass(frozen=True)
class Stall:
    """What a cloud's fixture gives.

    Args:
        open: the market of one cluster; more than once.
        option: that can be had, three times at least.
        tags: that a machine is launched with.
        config: the cloud's own keys.
        other: the market of another cluster in the same account; None where there is none.
        missing: an option that does not exist; None where all do.
        patience_s: a machine boots, and is gone, within.
    """

    open: Callable[[], Market]
    option: Option
    tags: Mapping[str, str] = field(default_factory=lambda: dict(TAGS))
    config: Mapping[str, Any] = field(default_factory=dict)
    other: Callable[[], Market] | None = None
    missing: Option | None = NOWHERE
    patience_s: float = 60.0

    def buy(self, market: Market, once: str = "") -> Machine:
        """One machine."""
        return market.launch(self.option, self.tags, self.config, once or uuid.uuid4().hex)


class MarketContract:
    """Every test of the contract; a subclass supplies the fixture `stall`."""

    def test_there_is_nothing_before_anything_was_asked_for(self, stall: Stall) -> None:
        assert list(stall.open().machines()) == []

    def test_what_was_bought_is_listed_as_it_was_bought_whoever_asks(self, stall: Stall) -> None:
        bought = stall.buy(stall.open())
        found = self.listed(stall, bought.id)
        assert found.tags.items() >= dict(stall.tags).items()
        assert (found.option.type, found.option.zone, found.option.spot) == (
            stall.option.type,
            stall.option.zone,
            stall.option.spot,
        )
        assert found.state in STATES
        assert abs(time.time() - found.since) < 3600.0

    def test_one_that_boots_runs_before_long(self, stall: Stall) -> None:
        bought = stall.buy(stall.open())
        self.until(stall, lambda: self.listed(stall, bought.id).state == "running", "it runs")

    def test_asked_twice_with_the_same_name_there_is_one(self, stall: Stall) -> None:
        once = uuid.uuid4().hex
        first, second = stall.buy(stall.open(), once), stall.buy(stall.open(), once)
        assert first.id == second.id
        assert [each.id for each in stall.open().machines()] == [first.id]

    def test_asked_with_two_names_there_are_two(self, stall: Stall) -> None:
        market = stall.open()
        ids = {stall.buy(market).id, stall.buy(market).id}
        assert {each.id for each in market.machines()} == ids
        assert len(ids) == 2

    def test_tags_are_added(self, stall: Stall) -> None:
        market = stall.open()
        bought = stall.buy(market)
        market.tag(bought.id, {"colour": "red"})
        market.tag(bought.id, {"colour": "blue"})
        assert self.listed(stall, bought.id).tags.items() >= {**stall.tags, "colour": "blue"}.items()

    def test_what_is_ended_goes_and_may_be_ended_again(self, stall: Stall) -> None:
        market = stall.open()
        first, second = stall.buy(market), stall.buy(market)
        market.terminate([first.id])
        market.terminate([first.id])
        self.until(stall, lambda: [each.id for each in market.machines()] == [second.id], "it is gone")
        market.terminate([first.id, second.id])
        self.until(stall, lambda: not market.machines(), "both are gone")
        market.terminate([first.id, second.id])
        market.terminate([])

    def test_an_end_is_never_taken_back(self, stall: Stall) -> None:
        market = stall.open()
        bought = stall.buy(market)
        market.terminate([bought.id])
        assert [each.state for each in market.machines()] in ([], ["stopping"])

    def test_what_does_not_exist_is_refused_and_nothing_is_bought(self, stall: Stall) -> None:
        if stall.missing is None:
            return
        market = stall.open()
        refused = None
        try:
            market.launch(stall.missing, stall.tags, stall.config, uuid.uuid4().hex)
        except Refused as error:
            refused = error
        assert refused is not None, "it was sold"
        assert (refused.kind, bool(str(refused))) == (UNKNOWN, True)
        assert list(market.machines()) == []

    def test_many_may_ask_at_once(self, stall: Stall) -> None:
        market = stall.open()
        with ThreadPoolExecutor(3) as pool:
            ids = list(pool.map(lambda _: stall.buy(market).id, range(3)))
        assert sorted(ids) == sorted(each.id for each in market.machines())
        assert len(set(ids)) == 3

    def test_anothers_machines_are_anothers(self, stall: Stall) -> None:
        if stall.other is None:
            return
        stall.buy(stall.other())
        assert list(stall.open().machines()) == []

    def test_when_a_machine_ended_is_told_where_that_is_known(self, stall: Stall) -> None:
        market, began = stall.open(), time.time()
        if not isinstance(market, Charges):
            return
        first, second = stall.buy(market), stall.buy(market)
        market.terminate([first.id])
        self.until(stall, lambda: [each.id for each in market.machines()] == [second.id], "it is gone")
        ended = market.ended([first.id, second.id])
        assert set(ended) <= {first.id}
        assert all(began - 2.0 <= at <= time.time() + 2.0 for at in ended.values())

    def test_what_spot_machines_cost_is_told_in_order_of_time(self, stall: Stall) -> None:
        market, now = stall.open(), time.time()
        spot = replace(stall.option, spot=True, price_per_hour=None)
        if not isinstance(market, Charges):
            return
        found = market.spot_prices([spot], now)
        assert set(found) <= {spot}
        for steps in found.values():
            assert list(steps) == sorted(steps)
            assert all(dollars > 0 for _, dollars in steps)

    def test_all_of_it_can_be_taken_down(self, stall: Stall) -> None:
        market = stall.open()
        stall.buy(market)
        stall.buy(market)
        left = tear_down(market, patience_s=stall.patience_s, settle_s=0.0)
        assert left.nothing, left
        assert list(market.machines()) == []

    def listed(self, stall: Stall, machine: str) -> Machine:
        """A machine as the cloud lists it, asked anew."""
        return next(each for each in stall.open().machines() if each.id == machine)

    def until(self, stall: Stall, condition: Callable[[], bool], what: str) -> None:
        """Wait for it."""
        deadline = time.monotonic() + stall.patience_s
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {stall.patience_s:g} s"
            time.sleep(0.05)
