"""The provider that Ray's autoscaler asks, on a cloud of which no machine is real and whose clock the tests turn."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

from headway.cluster.market import QUOTA, Refused
from headway.cluster.provider import HOLD_S, STALE_S, Provider
from headway.core import news
from headway.core.inventory import INSIST_S, SETTLE_S, Standing
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.goods import Offer

OPTIONS = [
    {"type": "c", "zone": "a", "spot": True, "price_per_hour": 0.3},
    {"type": "c", "zone": "b", "spot": True, "price_per_hour": 0.4},
]
CONFIG = {"headway": {"one_of": OPTIONS, "order": "cheapest"}, "image": "x"}
TAGS = {TAG_RAY_NODE_KIND: "worker", TAG_RAY_USER_NODE_TYPE: "worker"}


class World:
    """A cloud, what Ray says of the machines' nodes, and a clock that stands still but for those who wait."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.nodes: dict[str, Standing] | None = {}
        self.told: list[news.News] = []
        offers = [Offer("c", "a", 1.0, 0.3, boot_s=5.0), Offer("c", "b", 1.0, 0.4, boot_s=5.0)]
        self.cloud = Cloud(offers, clock=lambda: self.now)

    def provider(self, **own: Any) -> Provider:
        section = {"type": "external", "headway": {"id": "7", "boot_limit_minutes": 10.0, **own}}
        return Provider(
            section,
            "t",
            market=self.cloud.market("t"),
            standings=lambda: self.nodes,
            tell=self.told.append,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def asked(self, verb: str) -> list[str]:
        return [request.answer for request in self.cloud.log if request.verb == verb]

    def events(self, kind: str) -> list[str]:
        return [event.text for event in self.told[-1].events if event.kind == kind]


@pytest.fixture
def world() -> World:
    return World()


def get(provider: Provider, count: int = 1, tags: Mapping[str, str] = TAGS) -> list[str]:
    return list(provider.create_node(CONFIG, dict(tags), count))


def shown(provider: Provider) -> list[str]:
    return provider.non_terminated_nodes({})


def test_a_machine_is_got_with_its_tags_and_the_clouds_own_keys(world: World) -> None:
    provider = world.provider()
    assert get(provider) == ["i-0000"]
    machine = world.cloud.machines[0]
    assert (machine.option.type, machine.option.zone, machine.config) == ("c", "a", {"image": "x"})
    assert machine.tags == {**TAGS, "ray-cluster-name": "t", "headway-cluster": "7"}
    assert shown(provider) == ["i-0000"]
    assert provider.node_tags("i-0000") == machine.tags
    assert provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "head"}) == []
    assert not provider.is_running("i-0000")
    world.now += 5.0
    shown(provider)
    assert provider.is_running("i-0000")
    assert not provider.is_terminated("i-0000")


def test_when_one_cannot_be_had_the_next_is_tried_and_the_reason_is_told(world: World) -> None:
    provider = world.provider()
    world.cloud.refuse(zone="a", reason="InsufficientInstanceCapacity")
    get(provider)
    assert world.cloud.machines[0].option.zone == "b"
    assert world.events(news.REFUSED) == ["c in a spot: capacity: InsufficientInstanceCapacity"]
    (chosen,) = world.events(news.CHOSEN)
    assert chosen.startswith("i-0000: c in b spot, the next in price; c in a spot: capacity for 0 s now")
    assert world.slept == []


def test_a_request_waits_and_what_for_is_told_and_is_then_served(world: World) -> None:
    provider = world.provider()
    world.cloud.refuse(for_s=90.0, reason="none is left")
    assert get(provider) == ["i-0000"]
    waiting = [told.waiting["worker"] for told in world.told if told.waiting]
    assert {each.since for each in waiting} == {1000.0}
    assert {each.machines for each in waiting} == {1}
    assert all("none is left" in each.reason for each in waiting)
    assert world.told[-1].waiting == {}
    assert len(world.asked("launch")) < 10  # not every second


def test_one_that_cannot_be_had_for_long_is_given_back_with_the_reason(world: World) -> None:
    provider = world.provider()
    world.cloud.refuse(QUOTA, "the account may have 0")
    with pytest.raises(NodeLaunchException, match="the account may have 0"):
        get(provider)
    assert sum(world.slept) == pytest.approx(HOLD_S)
    assert world.told[-1].waiting == {}
    assert shown(provider) == []


def test_those_that_were_got_before_a_refusal_are_there(world: World) -> None:
    provider = world.provider(hold_s=10.0)
    world.cloud.hold("c", "a", 1)
    world.cloud.hold("c", "b", 1)
    with pytest.raises(NodeLaunchException):
        get(provider, 3)
    assert shown(provider) == ["i-0000", "i-0001"]


def test_a_cloud_that_wants_less_haste_gets_it_and_the_machine_comes(world: World) -> None:
    provider = world.provider()
    world.cloud.lie(60.0, throttles=True)
    assert get(provider) == ["i-0000"]
    assert len(world.asked("launch")) < 8
    assert world.asked("launch")[-1] == "i-0000"


def test_an_answer_that_was_lost_is_no_second_machine(world: World) -> None:
    provider = world.provider()
    world.cloud.lie(1.0, loses=True)
    assert get(provider) == ["i-0000"]
    assert len(world.cloud.machines) == 1
    world.now += SETTLE_S
    assert shown(provider) == ["i-0000"]


def test_a_cloud_that_is_silent_is_asked_again(world: World) -> None:
    provider = world.provider()
    world.cloud.lie(30.0, silent=True)
    assert get(provider) == ["i-0000"]


def test_a_cloud_that_forgets_what_works_is_not_believed(world: World) -> None:
    provider = world.provider()
    (machine,) = get(provider)
    world.now += 100.0
    world.nodes = {machine: "alive"}
    assert shown(provider) == [machine]
    world.cloud.lie(1000.0, forgets=True)
    for _ in range(5):
        world.now += 100.0
        assert shown(provider) == [machine]
    assert len([each for each in world.events(news.LISTING) if machine in each]) == 1
    world.nodes = {machine: "dead"}
    assert shown(provider) == []


def test_a_cloud_that_shows_what_is_gone_buys_it_no_place(world: World) -> None:
    provider = world.provider()
    (machine,) = get(provider)
    world.now += 100.0
    world.nodes = {machine: "alive"}
    shown(provider)
    world.cloud.lie(10_000.0, ghosts=True)
    provider.terminate_nodes([machine])
    world.nodes = {machine: "dead"}
    for _ in range(20):
        world.now += INSIST_S
        assert shown(provider) == []
    insisted = len(world.asked("terminate")) - 1
    assert 3 <= insisted <= 8
    assert len(get(provider)) == 1


def test_a_machine_that_does_not_end_is_told_again(world: World) -> None:
    provider = world.provider()
    (machine,) = get(provider)
    world.now += 100.0
    shown(provider)
    world.cloud.lie(100.0, stuck=True)
    provider.terminate_nodes([machine])
    world.now += 99.0
    shown(provider)
    assert world.cloud.left("t") == [machine]
    world.now += 2 * INSIST_S
    assert shown(provider) == []
    world.now += 1.0
    assert world.cloud.left("t") == []


def test_anothers_machine_is_neither_shown_nor_touched(world: World) -> None:
    provider = world.provider()
    world.cloud.lie(10_000.0, foreign=True)
    for _ in range(50):
        world.now += 100.0
        assert shown(provider) == []
    assert world.asked("terminate") == []


def test_a_cluster_of_the_same_name_is_another(world: World) -> None:
    other = world.provider(id="8")
    get(other)
    assert shown(world.provider()) == []
    assert shown(other) == ["i-0000"]


def test_one_that_never_boots_is_given_back_and_another_option_is_tried(world: World) -> None:
    provider = world.provider()
    world.cloud.lie(never_boots=1)
    (machine,) = get(provider)
    world.now += 300.0
    assert shown(provider) == [machine]
    world.now += 300.0
    assert shown(provider) == []
    world.now += 1.0
    assert world.cloud.left("t") == []
    assert "before it joined" in world.events(news.BOOT)[0]
    get(provider)
    assert world.cloud.machines[1].option.zone == "b"
    world.now += 5.0
    world.nodes = {"i-0001": "alive"}
    shown(provider)


def test_one_that_fails_as_it_boots_counts_as_a_failed_boot(world: World) -> None:
    provider = world.provider()
    (machine,) = get(provider)
    shown(provider)
    world.cloud.kill(machine)
    assert shown(provider) == []
    get(provider)
    assert world.cloud.machines[1].option.zone == "b"


def test_a_list_that_cannot_be_had_is_the_last_one_for_a_while(world: World) -> None:
    provider = world.provider()
    (machine,) = get(provider)
    shown(provider)
    world.cloud.lie(10_000.0, throttles=True)
    world.now += STALE_S - 1
    assert shown(provider) == [machine]
    world.now += 2
    with pytest.raises(Refused, match="too many requests"):
        shown(provider)
    world.cloud.lie(0.0, throttles=True)
    assert shown(provider) == [machine]
    assert "too many requests" in world.events(news.LISTING)[0]


def test_an_end_that_is_refused_is_raised_for_ray_to_ask_again(world: World) -> None:
    provider = world.provider()
    (machine,) = get(provider)
    world.cloud.lie(10.0, throttles=True)
    with pytest.raises(Refused):
        provider.terminate_node(machine)
    assert not provider.is_terminated(machine)
    world.now += 10.0
    provider.terminate_node(machine)
    assert provider.is_terminated(machine)
    assert shown(provider) == []


def test_where_no_ray_is_yet_machines_can_be_made(world: World) -> None:
    """As `ray up` does with the head, from a laptop."""
    world.nodes = None
    provider = world.provider()
    (machine,) = get(provider, tags={**TAGS, TAG_RAY_NODE_KIND: "head"})
    world.now += 10_000.0
    assert provider.non_terminated_nodes({TAG_RAY_NODE_KIND: "head"}) == [machine]
    provider.set_node_tags(machine, {"ray-node-status": "up-to-date"})
    assert provider.node_tags(machine)["ray-node-status"] == "up-to-date"
    assert world.cloud.machines[0].tags["ray-node-status"] == "up-to-date"


def test_without_options_a_type_is_its_own(world: World) -> None:
    world.cloud.offers["worker", ""] = Offer("worker", "")
    world.cloud.hold("worker", "", None)
    assert world.provider().create_node({}, dict(TAGS), 1).keys() == {"i-0000"}


def test_a_store_of_news_that_is_away_stops_nothing(world: World) -> None:
    provider = world.provider()
    away = True

    def tell(told: news.News) -> None:
        if away:
            raise RuntimeError("the head's store is away")
        world.told.append(told)

    provider._tell = tell
    get(provider)
    away = False
    shown(provider)
    assert world.events(news.CHOSEN)


def test_many_requests_at_once_are_each_served_once(world: World) -> None:
    provider = world.provider()
    world.cloud.hold("c", "a", 3)
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.extend(get(provider))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(shown(provider)) == [f"i-{i:04d}" for i in range(8)]
    zones = [vm.option.zone for vm in world.cloud.machines]
    assert (zones.count("a"), zones.count("b")) == (3, 5)
