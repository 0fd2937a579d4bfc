"""The test cloud itself keeps the contract of a market, near and from afar; it bills, takes back, refuses and lies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headway.cluster.market import CAPACITY, QUOTA, THROTTLED, UNKNOWN, Option, Refused
from headway.cluster.markets import open_market
from headway.cluster.teardown import tear_down
from headway.errors import BadInput
from headway.testing.cloud.api import Api, Far
from headway.testing.cloud.cloud import Cloud, Nothing
from headway.testing.cloud.goods import VM, Offer
from headway.testing.market import TAGS, MarketContract, Stall

OFFERS = [Offer("c", "a", 1.0, 0.3, boot_s=0.02, stop_s=0.02), Offer("c", "b", 2.0, None, boot_s=0.02, stop_s=0.02)]
SPOT = Option("c", "a", True, 0.3)


class TestNear(MarketContract):
    @pytest.fixture
    def stall(self) -> Stall:
        cloud = Cloud(OFFERS)
        return Stall(lambda: cloud.market("t"), SPOT, other=lambda: cloud.market("u"))


class TestFar(MarketContract):
    @pytest.fixture
    def stall(self) -> Iterator[Stall]:
        api = Api(Cloud(OFFERS))
        api.open()
        yield Stall(lambda: Far(api.url, "t"), SPOT, other=lambda: Far(api.url, "u"))
        api.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Floor(Nothing):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def begin(self, vm: VM) -> None:
        self.told.append(("begin", vm.id))

    def warn(self, vm: VM, notice_s: float) -> None:
        self.told.append((f"warn {notice_s:g}", vm.id))

    def end(self, vm: VM) -> None:
        self.told.append(("end", vm.id))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def floor() -> Floor:
    return Floor()


@pytest.fixture
def cloud(clock: Clock, floor: Floor) -> Cloud:
    offers = [Offer("c", "a", 1.0, 0.36, capacity=2, boot_s=10.0, stop_s=5.0), Offer("c", "b", 3.6, None, boot_s=10.0)]
    return Cloud(offers, quota=3, floor=floor, clock=clock)


def buy(cloud: Cloud, option: Option = SPOT, once: str = "") -> VM:
    return cloud.launch("t", option, TAGS, {}, once or f"{len(cloud.log)}")


def refusal(cloud: Cloud, option: Option = SPOT) -> str:
    with pytest.raises(Refused) as refused:
        buy(cloud, option)
    return refused.value.kind


def test_a_machine_costs_from_the_request_until_it_is_gone(cloud: Cloud, clock: Clock, floor: Floor) -> None:
    vm = buy(cloud)
    assert vm.shown().state == "booting"
    clock.now += 10.0
    cloud.tick()
    assert vm.shown().state == "running"
    clock.now += 90.0
    cloud.terminate("t", [vm.id])
    assert vm.shown().state == "stopping"
    assert cloud.left("t") == [vm.id]
    clock.now += 1000.0
    assert cloud.left("t") == []
    assert cloud.dollars() == pytest.approx(0.36 * 105 / 3600)
    assert floor.told == [("begin", vm.id), ("end", vm.id)]
    assert vm.why == "terminated"


def test_it_refuses_what_is_not_there_and_what_is_too_much(cloud: Cloud, clock: Clock) -> None:
    assert refusal(cloud, Option("d", "a")) == UNKNOWN
    assert refusal(cloud, Option("c", "b", spot=True)) == UNKNOWN
    first = buy(cloud)
    buy(cloud)
    assert refusal(cloud) == CAPACITY
    buy(cloud, Option("c", "b"))
    assert refusal(cloud, Option("c", "b")) == QUOTA
    cloud.kill(first.id)
    buy(cloud)
    cloud.hold("c", "a", 0)
    cloud.kill(cloud.machines[1].id)
    assert refusal(cloud) == CAPACITY


def test_it_refuses_as_told_for_as_long_as_told(cloud: Cloud, clock: Clock) -> None:
    cloud.refuse(QUOTA, "no more", for_s=10.0, zone="a")
    assert refusal(cloud) == QUOTA
    buy(cloud, Option("c", "b"))
    clock.now += 10.0
    buy(cloud)
    cloud.refuse()
    assert refusal(cloud) == CAPACITY
    cloud.sell()
    buy(cloud)


def test_it_takes_a_machine_back_at_its_deadline(cloud: Cloud, clock: Clock, floor: Floor) -> None:
    vm = buy(cloud)
    clock.now += 20.0
    cloud.reclaim(vm.id, 30.0)
    clock.now += 29.0
    cloud.tick()
    assert vm.gone_at is None
    clock.now += 100.0
    cloud.tick()
    assert (vm.gone_at, vm.why) == (vm.deadline, "reclaimed")
    assert floor.told[1:] == [("warn 30", vm.id), ("end", vm.id)]
    assert cloud.left("t") == []


def test_one_that_was_given_back_before_is_not_taken_back(cloud: Cloud, clock: Clock, floor: Floor) -> None:
    vm = buy(cloud)
    cloud.reclaim(vm.id, 30.0)
    cloud.terminate("t", [vm.id])
    clock.now += 100.0
    cloud.tick()
    assert vm.why == "terminated"
    assert floor.told.count(("end", vm.id)) == 1


def test_a_machine_that_never_boots_costs_all_the_same(cloud: Cloud, clock: Clock, floor: Floor) -> None:
    cloud.lie(never_boots=1)
    vm, other = buy(cloud), buy(cloud)
    clock.now += 3600.0
    cloud.tick()
    assert (vm.shown().state, other.shown().state) == ("booting", "running")
    assert vm.dollars(clock.now) == pytest.approx(0.36)


def test_its_lies(cloud: Cloud, clock: Clock) -> None:
    vm = buy(cloud)
    clock.now += 10.0
    market = cloud.market("t")
    cloud.lie(10.0, forgets=True)
    assert list(market.machines()) == []
    clock.now += 10.0
    cloud.lie(10.0, foreign=True)
    assert [each.tags["ray-cluster-name"] for each in market.machines()] == ["t", "another"]
    cloud.lie(0.0, foreign=True)
    cloud.lie(10.0, throttles=True)
    with pytest.raises(Refused) as refused:
        market.machines()
    assert refused.value.kind == THROTTLED
    clock.now += 10.0
    cloud.lie(10.0, stuck=True)
    market.terminate([vm.id])
    assert [each.state for each in market.machines()] == ["running"]
    clock.now += 10.0
    cloud.lie(100.0, ghosts=True)
    market.terminate([vm.id])
    clock.now += 10.0
    assert [each.state for each in market.machines()] == ["running"]
    assert cloud.left("t") == []
    cloud.lie(10.0, silent=True)
    with pytest.raises(OSError, match="does not answer"):
        market.machines()


def test_an_answer_that_is_lost_was_done(cloud: Cloud) -> None:
    cloud.lie(10.0, loses=True)
    with pytest.raises(OSError, match="closed"):
        buy(cloud, once="x")
    cloud.lie(0.0, loses=True)
    assert buy(cloud, once="x") is cloud.machines[0]


def test_from_afar_a_lost_answer_is_an_error_of_the_line_and_a_refusal_is_one() -> None:
    cloud = Cloud(OFFERS)
    api = Api(cloud)
    api.open()
    try:
        market = Far(api.url, "t")
        cloud.lie(60.0, silent=True)
        with pytest.raises(OSError, match=r"closed connection|no answer"):
            market.machines()
        cloud.lie(0.0, silent=True)
        cloud.refuse(QUOTA, "the account may have 0")
        with pytest.raises(Refused, match="the account may have 0") as refused:
            market.launch(SPOT, TAGS, {}, "x")
        assert refused.value.kind == QUOTA
    finally:
        api.close()
    with pytest.raises(ConnectionError):
        market.machines()


def test_what_is_not_of_this_cloud_is_said(cloud: Cloud) -> None:
    with pytest.raises(BadInput, match="i-9999"):
        cloud.kill("i-9999")


def test_a_market_is_opened_by_name_and_an_unknown_one_is_said() -> None:
    section = {"market": "headway.testing.cloud.api:open_market", "headway": {"market": {"url": "http://127.0.0.1:9"}}}
    assert isinstance(open_market(section, "t"), Far)
    with pytest.raises(BadInput, match="Did you mean 'aws'"):
        open_market({"market": "awz"}, "t")


def test_a_teardown_says_what_the_cloud_still_has() -> None:
    cloud = Cloud(OFFERS)
    vm = buy(cloud)
    cloud.lie(60.0, stuck=True)
    left = tear_down(cloud.market("t"), patience_s=0.3, settle_s=0.0)
    assert [each.id for each in left.machines] == [vm.id]
    assert not left.nothing
    cloud.lie(0.0, stuck=True)
    assert tear_down(cloud.market("t"), patience_s=20.0, settle_s=0.0).nothing


def test_a_teardown_is_patient_with_a_cloud_that_refuses_and_says_so_if_it_goes_on() -> None:
    cloud = Cloud(OFFERS)
    buy(cloud)
    cloud.lie(0.3, throttles=True)
    assert tear_down(cloud.market("t"), patience_s=20.0, settle_s=0.0).nothing
    cloud.lie(60.0, silent=True)
    left = tear_down(cloud.market("t"), patience_s=0.2)
    assert left.trouble == "the cloud does not answer"
    assert not left.nothing


def test_a_teardown_leaves_anothers_machines_alone() -> None:
    cloud = Cloud(OFFERS)
    cloud.lie(60.0, foreign=True)
    buy(cloud)
    market = cloud.market("t")

    def ours(machine: object) -> bool:
        return getattr(machine, "tags", {}).get("ray-cluster-name") == "t"

    assert tear_down(market, ours, patience_s=20.0, settle_s=0.0).nothing
    assert cloud.left("another") != []


def test_the_head_is_told_first() -> None:
    cloud = Cloud(OFFERS)
    worker = buy(cloud)
    head = cloud.launch("t", SPOT, {**TAGS, "ray-node-type": "head"}, {}, "head")
    tear_down(cloud.market("t"), patience_s=20.0, settle_s=0.0)
    assert [each.what for each in cloud.log if each.verb == "terminate"] == [head.id, worker.id]
