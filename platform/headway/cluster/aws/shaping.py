"""From a cluster's file to what Ray's launcher and its autoscaler get, on AWS: decided here, done elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headway.cluster import commands
from headway.cluster.autoscaling import environment
from headway.cluster.aws.account import Found
from headway.cluster.file import ClusterFile
from headway.cluster.market import Option
from headway.errors import BadInput

SESSION = (
    "aws ssm start-session --region {region} --target %h --document-name AWS-StartSSHSession --parameters portNumber=%p"
)
"""How ssh comes in where no port is open: by a session of AWS, which knows a machine by its id."""
USER = "ubuntu"


def region_of(file: ClusterFile) -> str:
    """The file's region.

    Raises:
        BadInput: it names none.
    """
    region = file.tree["provider"].get("region")
    if not isinstance(region, str) or not region:
        raise BadInput(f"{file.path}: provider.region is missing", "AWS has many", "Give one, like eu-central-1.")
    return region


def options_of(file: ClusterFile, node_type: str) -> list[Option]:
    """What may be got for a node type: its `one_of`, else its `InstanceType`.

    Raises:
        BadInput: it says neither.
    """
    each = file.spec.available_node_types[node_type]
    if each.one_of:
        return list(each.options(node_type))
    kind = each.node_config.get("InstanceType")
    if not kind:
        remedy = "Give it one_of: [{type: m7i.large}], or node_config: {InstanceType: m7i.large}."
        raise BadInput(f"{file.path}: available_node_types.{node_type} names no machine", "", remedy)
    spot = each.node_config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return [Option(str(kind), spot=spot)]


def parts_without_role(file: ClusterFile) -> list[str]:
    """Of "head" and "worker", those with a node type that names no instance profile of its own."""
    found = {
        "head" if name == file.head else "worker"
        for name, each in file.spec.available_node_types.items()
        if not each.node_config.get("IamInstanceProfile")
    }
    return sorted(found)


def in_zones(options: Sequence[Option], zones: Sequence[str]) -> list[Option]:
    """Options that name no zone stand for one in each zone there is."""
    return [
        replace(each, zone=zone)
        for each in options
        for zone in ([each.zone] if each.zone or not zones else sorted(zones))
    ]


def sign_in(file: ClusterFile, key: Path) -> dict[str, Any]:
    """The file's `auth`, with what it leaves out: a session of AWS, and the cluster's own key."""
    given = dict(file.spec.auth)
    own: dict[str, Any] = {"ssh_user": USER, "ssh_private_key": str(key)}
    if not given.keys() & {"ssh_proxy_command", "ssh_proxy_use_node_id"} and not _lets_in(file):
        session = SESSION.format(region=region_of(file))
        own |= {"ssh_proxy_command": session, "ssh_proxy_use_node_id": True}
    return own | given


def _lets_in(file: ClusterFile) -> bool:
    """Whether the file opens a port of its own, so that ssh needs no session."""
    return bool(file.tree["provider"].get("security_group", {}).get("IpPermissions"))


def for_ray(
    file: ClusterFile,
    found: Found,
    images: Mapping[str, str],
    auth: Mapping[str, Any],
    mounts: Mapping[str, str],
    id: str,
    ends_at: float | None,
) -> dict[str, Any]:
    """All that Ray gets: the file, what was found in the account, and the commands that it leaves to us.

    Args:
        file: as it was read.
        found: of the account.
        images: ids by the names in the file.
        auth: see `sign_in`.
        mounts: see `commands.mounts`.
        id: of this cluster.
        ends_at: Unix seconds after which every machine shuts itself down; None for never.
    """
    tree = file.for_ray(id, **({} if ends_at is None else {"ends_at": ends_at}))
    said = file.headway
    tree["auth"] = dict(auth)
    tree["provider"]["disable_node_updaters"] = False  # they come bare: Ray sets them up over ssh
    tree["provider"].pop("security_group", None)
    tree["file_mounts"] = {**mounts, **tree["file_mounts"]}
    tree["rsync_exclude"] = [*tree["rsync_exclude"], "__pycache__/"]
    for name, each in tree["available_node_types"].items():
        part = "head" if name == file.head else "worker"
        each["node_config"] = _launching(file, name, found, images, found.profiles.get(part, ""))
    environ = {**environment(said.boot_limit_minutes), **({"HEADWAY_RUNS": said.runs} if said.runs else {})}
    ends = commands.end_at(ends_at) if ends_at is not None else []
    listens = commands.agent(said.notices) if said.notices != "none" else []
    keeps = commands.keeper(said.stop_when_idle_minutes) if said.stop_when_idle_minutes else []
    shared = commands.set_up() + file.spec.setup_commands
    tree["setup_commands"] = []  # in both of the next: Ray's autoscaler would put them before these once more
    tree["head_setup_commands"] = shared + file.spec.head_setup_commands
    tree["worker_setup_commands"] = shared + file.spec.worker_setup_commands
    tree["head_start_ray_commands"] = [
        *ends,
        *(file.spec.head_start_ray_commands or commands.start_head(environ)),
        *listens,
        *keeps,
    ]
    worker = {name: environ[name] for name in environ if name == "HEADWAY_RUNS"}
    tree["worker_start_ray_commands"] = [
        *ends,
        *(file.spec.worker_start_ray_commands or commands.start_worker(worker)),
        *listens,
    ]
    tree["head_node"] = {}  # which Ray's launcher looks for
    return tree


def _launching(file: ClusterFile, name: str, found: Found, images: Mapping[str, str], profile: str) -> dict[str, Any]:
    """A type's `node_config`: what `RunInstances` takes, and the options it stands for."""
    each = file.spec.available_node_types[name]
    options = in_zones(options_of(file, name), list(dict.fromkeys(found.zones.values())))
    given = dict(each.node_config)
    given["ImageId"] = images[given["ImageId"]]
    own: dict[str, Any] = {"KeyName": found.key, **({"IamInstanceProfile": {"Name": profile}} if profile else {})}
    if "NetworkInterfaces" not in given:
        own |= {"SubnetIds": list(found.subnets), "SecurityGroupIds": [found.group]}
    offered = [
        {"type": one.type, "zone": one.zone, "spot": one.spot, "price_per_hour": one.price_per_hour} for one in options
    ]
    return {**own, **given, "headway": {"order": each.order, "one_of": offered}}
