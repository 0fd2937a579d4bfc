"""EC2 as a market, against moto with a door that can be shut: what is got, refused, lost, and never made twice."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headway.cluster.aws.market import Aws, Left
from headway.cluster.aws.refusals import KINDS, kind_of
from headway.cluster.market import CAPACITY, FORBIDDEN, QUOTA, THROTTLED, UNKNOWN, Option, Refused
from headway.cluster.provider import Provider
from headway.testing.ec2 import REGION, Ec2
from headway.testing.market import MarketContract, Stall

_NUMBER = itertools.count()
SPOT = Option("m7i.large", f"{REGION}a", spot=True, price_per_hour=0.031)


@pytest.fixture(scope="module")
def service() -> Iterator[Ec2]:
    with Ec2() as service:
        yield service


@pytest.fixture
def ec2(service: Ec2, monkeypatch: pytest.MonkeyPatch) -> Ec2:
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    service.allow()
    service.calls.clear()
    return service


@pytest.fixture
def market(ec2: Ec2) -> Iterator[Aws]:
    market = Aws(f"c-{next(_NUMBER)}", REGION)
    yield market
    ec2.allow()
    market.terminate([machine.id for machine in market.machines()])


@pytest.fixture
def config(ec2: Ec2) -> dict[str, Any]:
    return {"ImageId": ec2.image(), "SubnetIds": list(ec2.subnets)}


def once(market: Aws, name: str) -> str:
    """A token of this test's: EC2 remembers those of all."""
    return f"{market.cluster}-{name}"


def test_a_spot_machine_comes_with_its_tags_in_its_zone(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    made = market.launch(SPOT, {"ray-node-kind": "worker"}, config, once(market, "one"))
    assert made.option == SPOT
    (seen,) = market.machines()
    assert (seen.id, seen.option) == (made.id, SPOT)
    assert seen.state == "running"
    assert seen.ip
    assert seen.tags["ray-node-kind"] == "worker"
    assert seen.tags["ray-cluster-name"] == market.cluster
    asked = ec2.named("RunInstances")[0].parameters
    assert asked["ClientToken"] == once(market, "one")
    assert asked["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["MetadataOptions.HttpTokens"] == "required"
    assert {asked[f"TagSpecification.{n}.ResourceType"] for n in (1, 2)} == {"instance", "volume"}


def test_when_one_ended_and_what_spots_cost_is_asked_of_ec2(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    before = time.time()
    made = market.launch(SPOT, {}, config, once(market, "one"))
    other = Option("m7i.large", f"{REGION}b", spot=True)
    found = market.spot_prices([SPOT, other], before)
    assert {option.zone for option in found} == {f"{REGION}a", f"{REGION}b"}
    assert all(len(steps) >= 1 and steps[0][1] > 0 for steps in found.values())
    asked = ec2.named("DescribeSpotPriceHistory")[0].parameters
    assert asked["InstanceType.1"] == "m7i.large"
    assert asked["ProductDescription.1"] == "Linux/UNIX"
    assert market.ended([made.id]) == {}
    market.terminate([made.id])
    assert market.ended([made.id])[made.id] == pytest.approx(time.time(), abs=120.0)
    assert market.ended(["i-strange"]) == {}


def test_one_on_demand_is_no_spot(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    config["InstanceMarketOptions"] = {"MarketType": "spot"}  # of the node type; the option decides
    made = market.launch(Option("m7i.large", f"{REGION}b"), {}, config, once(market, "one"))
    assert "InstanceMarketOptions.MarketType" not in ec2.named("RunInstances")[0].parameters
    assert [machine.option.spot for machine in market.machines()] == [False]
    market.terminate([made.id])
    assert market.machines() == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InsufficientInstanceCapacity", CAPACITY),
        ("IdempotentInstanceTerminated", CAPACITY),
        ("MaxSpotInstanceCountExceeded", QUOTA),
        ("VcpuLimitExceeded", QUOTA),
        ("RequestLimitExceeded", THROTTLED),
        ("UnauthorizedOperation", FORBIDDEN),
        ("Unsupported", UNKNOWN),
        ("InvalidAMIID.NotFound", UNKNOWN),
    ],
)
def test_what_a_refusal_means(ec2: Ec2, market: Aws, config: dict[str, Any], code: str, kind: str) -> None:
    ec2.refuse(code, message="We currently do not.")
    with pytest.raises(Refused) as refused:
        market.launch(SPOT, {}, config, once(market, "one"))
    assert refused.value.kind == kind
    assert refused.value.reason == f"{code}: We currently do not."
    assert len(ec2.named("RunInstances")) == 1, "whoever asks decides whether to ask again"
    assert market.machines() == []


def test_only_what_is_refused_is_refused(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    ec2.refuse("InsufficientInstanceCapacity", zone=SPOT.zone, spot=True)
    with pytest.raises(Refused):
        market.launch(SPOT, {}, config, once(market, "one"))
    assert (
        market.launch(Option("m7i.large", f"{REGION}b", spot=True), {}, config, once(market, "two")).option.zone
        == f"{REGION}b"
    )


def test_codes_are_told_once_and_the_unknown_is_no_refusal() -> None:
    codes = [code for group in KINDS.values() for code in group]
    assert len(codes) == len(set(codes))
    assert kind_of("InvalidSecurityGroupID.NotFound") == UNKNOWN
    assert kind_of("InvalidSomethingNew.Malformed") == UNKNOWN
    assert kind_of("NoSuchEntity") == kind_of("DependencyViolation") == UNKNOWN
    assert kind_of("InternalError") is None
    assert kind_of("Unavailable") is None


def test_a_machine_whose_answer_was_lost_is_not_made_twice(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    ec2.refuse("InternalError", lost=True, times=1, status="500 Internal Server Error")
    with pytest.raises(OSError, match="InternalError"):
        market.launch(SPOT, {}, config, once(market, "one"))
    again = market.launch(SPOT, {}, config, once(market, "one"))
    assert [machine.id for machine in market.machines()] == [again.id]
    assert market.launch(SPOT, {}, config, once(market, "two")).id != again.id


def test_a_cloud_that_cannot_be_reached_is_no_refusal(monkeypatch: pytest.MonkeyPatch, ec2: Ec2) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="cannot be reached"):
        Aws("c", REGION).launch(SPOT, {}, {"ImageId": "ami-1"}, "one")


def test_no_keys_is_a_refusal_in_words(monkeypatch: pytest.MonkeyPatch, ec2: Ec2) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(Refused, match="no keys for AWS") as refused:
        Aws("c", REGION).machines()
    assert refused.value.kind == FORBIDDEN


def test_a_machine_that_ec2_does_not_list_yet_is_there(market: Aws, config: dict[str, Any]) -> None:
    """EC2 may list a machine some seconds after it was made: it is not asked for a second time meanwhile."""
    now = [0.0]
    late = Aws(market.cluster, REGION, clock=lambda: now[0])
    made = late.launch(SPOT, {}, config, once(market, "one"))
    late.marks = {"ray-cluster-name": "another"}  # whose machines are listed instead
    assert [machine.id for machine in late.machines()] == [made.id]
    now[0] += 121.0
    assert late.machines() == []


def test_to_end_what_is_gone_is_no_error(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    one, two = (market.launch(SPOT, {}, config, once(market, name)).id for name in ("one", "two"))
    market.terminate([one])
    market.terminate(["i-0123456789abcdef0", one, two])
    assert market.machines() == []
    market.terminate([])


def test_a_machine_that_ec2_does_not_know_yet_is_to_be_ended_again(
    ec2: Ec2, market: Aws, config: dict[str, Any]
) -> None:
    made = market.launch(SPOT, {}, config, once(market, "one"))
    said = f"The instance ID '{made.id}' does not exist"
    ec2.refuse("InvalidInstanceID.NotFound", message=said, call="TerminateInstances", times=1)
    with pytest.raises(OSError, match="does not exist"):
        market.terminate([made.id])
    market.terminate([made.id])
    assert market.machines() == []


def test_what_is_left_is_named(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    client, tags = ec2.client(), [{"Key": "ray-cluster-name", "Value": market.cluster}]
    made = market.launch(SPOT, {}, config, once(market, "one"))
    spec = [{"ResourceType": "volume", "Tags": tags}]
    volume = client.create_volume(AvailabilityZone=SPOT.zone, Size=1, TagSpecifications=spec)["VolumeId"]
    spec = [{"ResourceType": "security-group", "Tags": tags}]
    group = client.create_security_group(GroupName=market.cluster, Description="x", TagSpecifications=spec)["GroupId"]
    assert market.left() == [
        Left("instance", made.id, True), Left("volume", volume, True), Left("security group", group, False),
    ]  # fmt: skip
    market.terminate([made.id])
    assert [str(left) for left in market.left()] == [f"volume {volume}", f"security group {group} (costs nothing)"]
    client.delete_volume(VolumeId=volume)
    client.delete_security_group(GroupId=group)
    assert market.left() == []


def test_a_zone_without_a_subnet_of_the_cluster_is_unknown(market: Aws, config: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=f"no subnet of the cluster is in {REGION}x: they are in {REGION}a, ") as refused:
        market.launch(Option("m7i.large", f"{REGION}x"), {}, config, once(market, "one"))
    assert refused.value.kind == UNKNOWN


def test_tags_are_added(market: Aws, config: dict[str, Any]) -> None:
    made = market.launch(SPOT, {"a": "1"}, config, once(market, "one"))
    market.tag(made.id, {"b": "2"})
    assert market.machines()[0].tags.items() >= {"a": "1", "b": "2"}.items()


class TestMarket(MarketContract):
    """What every market promises, of this one."""

    @pytest.fixture
    def stall(self, ec2: Ec2, config: dict[str, Any]) -> Stall:
        name = f"c-{next(_NUMBER)}"
        tags = {"ray-cluster-name": name, "ray-node-type": "worker"}

        def other() -> Aws:
            return Aws(f"{name}-other", REGION)

        return Stall(lambda: Aws(name, REGION), SPOT, tags, config, other)


def test_a_cluster_of_the_same_name_is_anothers(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    one, two = (Aws(market.cluster, REGION, id) for id in ("1", "2"))
    made = one.launch(SPOT, {}, config, once(market, "a"))
    assert two.machines() == []
    assert [machine.id for machine in one.machines()] == [made.id]


def test_the_autoscalers_provider_falls_back_and_replaces(ec2: Ec2, market: Aws, config: dict[str, Any]) -> None:
    """Through the provider that Ray's autoscaler asks: the cheapest is not to be had; then EC2 takes one away.

    moto takes no machine away by itself: it is ended here by a call of our own, as EC2 would end it.
    """
    told: list[Any] = []
    options = [
        {"type": "c7i.large", "zone": f"{REGION}a", "spot": True, "price_per_hour": 0.03},
        {"type": "c6i.large", "zone": f"{REGION}b", "spot": True, "price_per_hour": 0.04},
    ]
    section = {"type": "external", "market": "aws", "region": REGION, "headway": {"id": "7"}}
    mine = Aws(market.cluster, REGION, "7")
    provider = Provider(section, market.cluster, market=mine, standings=lambda: None, tell=told.append)
    node_config = {**config, "headway": {"order": "cheapest", "one_of": options}}
    tags = {"ray-node-type": "worker", "ray-user-node-type": "worker", "ray-node-name": "w"}
    ec2.refuse("InsufficientInstanceCapacity", type="c7i.large", message="We currently do not have enough.")

    (first,) = provider.create_node(node_config, tags, 1)
    assert provider.non_terminated_nodes({"ray-node-type": "worker"}) == [first]
    assert [str(machine.option) for machine in mine.machines()] == [f"c6i.large in {REGION}b spot"]
    assert any("InsufficientInstanceCapacity: We currently do not have enough." in str(each) for each in told)

    ec2.client().terminate_instances(InstanceIds=[first])
    ec2.allow()
    (second,) = provider.create_node(node_config, tags, 1)
    assert second != first
    assert first not in [machine.id for machine in mine.machines()]
    provider.terminate_nodes([second])
    assert mine.machines() == []
