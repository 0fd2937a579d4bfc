"""EC2 as a market of machines.

Every machine, and every volume with it, carries the cluster's tag from its first moment; whatever has the tag belongs
to the cluster, and nothing else is ever touched.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from headway.cluster import commands
from headway.cluster.aws.clients import client
from headway.cluster.aws.refusals import code_of, told
from headway.cluster.market import UNKNOWN, Machine, Option, Refused

CLUSTER = "ray-cluster-name"
"""The tag that says whose a machine is: Ray's own, so that `ray` finds the cluster too."""
ID = "headway-cluster"
"""The tag that tells a cluster from another of its name."""
PRICE = "headway-price-per-hour"
AT_ONCE = 100
"""Machines that one request ends."""
SEEN_S = 120.0
"""For so long EC2 may not list, or know, a machine that it has just made."""
_STATES: dict[str, Literal["booting", "running", "stopping"]] = {
    "pending": "booting",
    "running": "running",
    "stopping": "stopping",
    "stopped": "stopping",
    "shutting-down": "stopping",
}


@dataclass(frozen=True)
class Left:
    """Something of a cluster that is still there.

    Args:
        kind: like "instance".
        id: EC2's.
        costs: whether money is taken for it.
    """

    kind: str
    id: str
    costs: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.id}{'' if self.costs else ' (costs nothing)'}"


def open_market(provider: Mapping[str, Any], cluster: str) -> Aws:
    """The market of a provider section, as `ClusterFile.for_ray` makes it."""
    own = provider.get("headway", {})
    ends_at = own.get("market", {}).get("ends_at")
    return Aws(cluster, str(provider["region"]), str(own.get("id", "")), ends_at=ends_at)


class Aws:
    """EC2, for one cluster in one region.

    Args:
        cluster: its name.
        region: like "eu-central-1".
        id: of this cluster, where another of the account may have its name.
        clock: monotonic seconds.
        ends_at: Unix seconds at which its machines shut themselves down, those too that nobody sets up; None: never.
    """

    def __init__(
        self,
        cluster: str,
        region: str,
        id: str = "",
        clock: Callable[[], float] = time.monotonic,
        ends_at: float | None = None,
    ) -> None:
        self.cluster, self.region, self._clock, self._ends_at = cluster, region, clock, ends_at
        self.marks = {CLUSTER: cluster, **({ID: id} if id else {})}
        self._lock = threading.Lock()
        self._clients: dict[int, Any] = {}
        self._zones: dict[str, str] = {}
        self._asked: set[str] = set()
        self._unanswered: set[str] = set()
        self._new: dict[str, tuple[Machine, float]] = {}

    def launch(self, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> Machine:
        with self._lock:
            again = once in self._asked
            self._asked.add(once)
        if again and (made := self._made(once)) is not None:
            self._unanswered.discard(once)
            return made
        request = self._request(option, tags, config, once)
        self._unanswered.add(once)
        try:
            with told():
                answer = self._ec2(attempts=1).run_instances(**request)["Instances"][0]
        except Refused:
            self._unanswered.discard(once)
            raise
        machine = _machine(answer, option)
        with self._lock:
            self._new[machine.id] = (machine, self._clock())
            self._unanswered.discard(once)
        return machine

    @property
    def unsure(self) -> bool:
        """Whether a machine was asked for and no answer came: it may be there, and not be listed yet."""
        return bool(self._unanswered)

    def tag(self, machine: str, tags: Mapping[str, str]) -> None:
        if tags:
            with told():
                self._ec2().create_tags(Resources=[machine], Tags=_tags(tags))

    def terminate(self, machines: Sequence[str]) -> None:
        for start in range(0, len(machines), AT_ONCE):
            self._terminate(list(machines[start : start + AT_ONCE]))

    def machines(self) -> Sequence[Machine]:
        listed = list(self._instances())
        now, known = self._clock(), {instance["InstanceId"] for instance in listed}
        with self._lock:
            old = [id for id, (_, at) in self._new.items() if id in known or now - at > SEEN_S]
            for id in old:
                del self._new[id]
            unlisted = [machine for machine, _ in self._new.values()]
        return [_machine(instance) for instance in listed if _alive(instance)] + unlisted

    def ended(self, machines: Sequence[str]) -> Mapping[str, float]:
        """See `Charges`. EC2 tells it for an hour, of machines that somebody has ended."""
        found = {}
        for instance in self._instances():
            said = _ENDED.search(instance.get("StateTransitionReason") or "")
            if instance["InstanceId"] in machines and said:
                at = datetime.strptime(said[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
                found[instance["InstanceId"]] = at.timestamp()
        return found

    def spot_prices(self, options: Sequence[Option], since: float) -> Mapping[Option, Sequence[tuple[float, float]]]:
        """See `Charges`. From EC2's history of spot prices, for Linux."""
        wanted = {(each.type, each.zone): each for each in options}
        found: dict[Option, list[tuple[float, float]]] = {each: [] for each in options}
        types = sorted({each.type for each in options})
        with told():
            pages = (
                self._ec2()
                .get_paginator("describe_spot_price_history")
                .paginate(
                    InstanceTypes=types,
                    ProductDescriptions=["Linux/UNIX"],
                    StartTime=datetime.fromtimestamp(since, UTC),
                )
            )
            lines = [line for page in pages for line in page["SpotPriceHistory"]]
        for line in lines:
            option = wanted.get((line["InstanceType"], line["AvailabilityZone"]))
            if option is not None:
                found[option].append((line["Timestamp"].timestamp(), float(line["SpotPrice"])))
        return {option: sorted(steps) for option, steps in found.items() if steps}

    def addresses(self) -> dict[str, str]:
        """Of each machine that has one, the address by which it is reached from outside the cluster's network."""
        found = self._instances()
        return {one["InstanceId"]: one["PublicIpAddress"] for one in found if one.get("PublicIpAddress")}

    def left(self) -> list[Left]:
        """What has the cluster's tag and is still there: machines, volumes, and what costs nothing."""
        whose = self._whose()
        found = [Left("instance", machine.id, costs=True) for machine in self.machines()]
        with told():
            ec2 = self._ec2()
            volumes = ec2.describe_volumes(Filters=whose)["Volumes"]
            groups = ec2.describe_security_groups(Filters=whose)["SecurityGroups"]
        ours = {left.id for left in found}
        for volume in volumes:
            if volume.get("State") == "deleting" or ours & {one["InstanceId"] for one in volume.get("Attachments", [])}:
                continue  # goes with its machine
            found.append(Left("volume", volume["VolumeId"], costs=True))
        found += [Left("security group", group["GroupId"], costs=False) for group in groups]
        return found

    def _request(self, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> dict[str, Any]:
        request = {name: value for name, value in config.items() if name not in ("SubnetIds", "InstanceMarketOptions")}
        given = [spec for spec in config.get("TagSpecifications", []) if spec["ResourceType"] not in _TAGGED]
        asked = [pair for spec in config.get("TagSpecifications", []) if spec["ResourceType"] == "instance"
                 for pair in spec["Tags"]]  # fmt: skip
        all_tags = {pair["Key"]: pair["Value"] for pair in asked} | dict(tags) | self.marks
        if option.price_per_hour is not None:
            all_tags[PRICE] = f"{option.price_per_hour:g}"
        specs = [{"ResourceType": kind, "Tags": _tags(all_tags)} for kind in _TAGGED]
        request |= {
            "InstanceType": option.type,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": once[:64],
            "TagSpecifications": specs + given,
            # a machine that shuts itself down is gone, and costs nothing more
            "InstanceInitiatedShutdownBehavior": "terminate",
        }
        request.setdefault("MetadataOptions", {"HttpTokens": "required", "HttpEndpoint": "enabled"})
        if self._ends_at is not None:
            request.setdefault("UserData", commands.ends_by_itself(self._ends_at))
        if option.spot:
            request["InstanceMarketOptions"] = _spot(config)
        if "NetworkInterfaces" in request:
            request.pop("SecurityGroupIds", None)
        elif config.get("SubnetIds"):
            request["SubnetId"] = self._subnet(config["SubnetIds"], option.zone)
        elif option.zone:
            request["Placement"] = {**request.get("Placement", {}), "AvailabilityZone": option.zone}
        return request

    def _subnet(self, subnets: Sequence[str], zone: str) -> str:
        """That of them which is in a zone."""
        missing = [subnet for subnet in subnets if subnet not in self._zones]
        if missing:
            with told():
                found = self._ec2().describe_subnets(SubnetIds=missing)["Subnets"]
            self._zones |= {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in found}
        if not zone:
            return subnets[0]
        for subnet in subnets:
            if self._zones.get(subnet) == zone:
                return subnet
        zones = sorted({self._zones[subnet] for subnet in subnets if subnet in self._zones})
        raise Refused(UNKNOWN, f"no subnet of the cluster is in {zone}: they are in {', '.join(zones)}")

    def _made(self, once: str) -> Machine | None:
        """The machine that a request before has made, whose answer was lost."""
        found = (one for one in self._instances() if _alive(one) and one.get("ClientToken") == once[:64])
        return next((_machine(instance) for instance in found), None)

    def _instances(self) -> Iterator[dict[str, Any]]:
        """All that EC2 lists of this cluster, those that are gone among them."""
        with told():
            pages = self._ec2().get_paginator("describe_instances").paginate(Filters=self._whose())
            found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
        yield from found

    def _whose(self) -> list[dict[str, Any]]:
        return [{"Name": f"tag:{key}", "Values": [value]} for key, value in self.marks.items()]

    def _terminate(self, machines: list[str]) -> None:
        while machines:
            try:
                with told():
                    self._ec2().terminate_instances(InstanceIds=machines)
                return
            except Refused as refused:
                if code_of(refused) not in ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"):
                    raise
                strange = [id for id in machines if id in refused.reason]
                with self._lock:
                    early = [id for id in strange if id in self._new]
                if early:  # it is there, and EC2 does not know it yet: to be tried again
                    raise ConnectionError(refused.reason) from refused
                machines = [id for id in machines if id not in strange] if strange else []

    def _ec2(self, attempts: int = 5) -> Any:
        """A client. Making machines is tried once: whoever asks decides what then."""
        with self._lock:
            if attempts not in self._clients:
                self._clients[attempts] = client("ec2", self.region, attempts)
            return self._clients[attempts]


_ENDED = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
_TAGGED = ("instance", "volume")


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": tags[key]} for key in sorted(tags)]


def _spot(config: Mapping[str, Any]) -> dict[str, Any]:
    """One that is never asked for again by EC2 itself: Ray does, where it is still wanted."""
    given = dict(config.get("InstanceMarketOptions", {}).get("SpotOptions", {}))
    once = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return {"MarketType": "spot", "SpotOptions": once | given}


def _alive(instance: Mapping[str, Any]) -> bool:
    return instance["State"]["Name"] in _STATES


def _machine(instance: Mapping[str, Any], option: Option | None = None) -> Machine:
    tags = {pair["Key"]: pair["Value"] for pair in instance.get("Tags", [])}
    if option is None:
        price = tags.get(PRICE)
        option = Option(
            type=instance["InstanceType"],
            zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
            spot=instance.get("InstanceLifecycle") == "spot",
            price_per_hour=float(price) if price else None,
        )
    launched = instance.get("LaunchTime")
    return Machine(
        id=instance["InstanceId"],
        state=_STATES.get(instance["State"]["Name"], "booting"),
        option=option,
        tags=tags,
        ip=instance.get("PrivateIpAddress") or "",
        since=launched.timestamp() if launched else time.time(),
    )
