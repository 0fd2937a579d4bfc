"""`headway cluster` on AWS: up, apply, down, status, drain, add.

`up` prepares the account (`account`), buys the head by the first option that EC2 has, and lets Ray's launcher make a
head of it over ssh (`head`); Ray's autoscaler there buys the workers, by the same market. Whatever fails, or
interrupts, takes back all that was made.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headway import durable
from headway.cluster import commands, teardown
from headway.cluster.aws import launcher, policies, shaping
from headway.cluster.aws.account import Account, Found, patiently
from headway.cluster.aws.clients import needed
from headway.cluster.aws.head import CONFIG, fingerprint
from headway.cluster.aws.market import Aws
from headway.cluster.commands import JOBS, PORT, PYTHON, mounts
from headway.cluster.file import ClusterFile
from headway.cluster.known import Known, StillThere
from headway.cluster.market import Machine, Refused
from headway.cluster.pins import requirements
from headway.cluster.shown import Down, Node, Status
from headway.cluster.teardown import tear_down
from headway.core.shopping import SOUGHT, ordered
from headway.errors import BadInput, HeadwayError

Say = Callable[[str], None]
KIND, TYPE, STATUS, LAUNCH, NAME = (
    *("ray-node-type", "ray-user-node-type", "ray-node-status", "ray-launch-config"),
    "Name",
)
"""Ray's tags."""
PATIENCE_S, SETTLE_S = teardown.PATIENCE_S, teardown.SETTLE_S
UNSURE_S = 60.0
"""The same as SETTLE_S where a machine was asked for and the answer was lost: EC2 may list it that late."""
KEY, PINS, IMAGES = "key.pem", "requirements.txt", "images.json"


def up(file: ClusterFile, known: Known, say: Say) -> Known:
    """Start a cluster; nothing of it is left where this raises.

    Raises:
        BadInput: something is missing here, or in the file.
        HeadwayError: AWS, or the machine, will not.
    """
    needed()
    region = shaping.region_of(file)
    for name in file.spec.available_node_types:
        shaping.options_of(file, name)
    launcher.programs(shaping.sign_in(file, known.folder / KEY))
    known = known.saved(place=region)  # from here on `down` finds it
    market, account = _at(known, _ends(known, file))
    try:
        tree = _prepared(file, known, account, say)
        head = _head(file, tree, market, say)
        say(f"{head.id} is the head; it is set up, which takes some minutes (log: {known.folder / launcher.LOG})")
        launcher.run(known.folder, say)
    except BaseException as error:
        _undo(known, market, account, say)
        if isinstance(error, Refused):
            raise HeadwayError("AWS will not", str(error), _remedy(error)) from error
        if isinstance(error, OSError):
            raise HeadwayError("AWS cannot be reached", str(error), "Nothing was left there.") from error
        raise
    place = f"{region} {head.id}"
    return known.saved(address=f"{head.ip}:{PORT}", jobs=f"http://127.0.0.1:{JOBS}", place=place)


def apply(file: ClusterFile, known: Known, say: Say) -> list[str]:
    """Give a cluster that is up its changed file: Ray is not started anew, and no machine is ended.

    Raises:
        BadInput: the change needs another head.
        HeadwayError: see `up`.
    """
    needed()
    market, account = _at(known)
    before = json.loads((known.folder / CONFIG).read_text(encoding="utf-8"))
    try:
        with _Told():
            tree = _prepared(file, known, account, say)
            machines = market.machines()
        head = next((each for each in machines if each.tags.get(KIND) == "head"), None)
        if head is None:
            raise HeadwayError(f"the head of {known.name} is gone", "", f"headway cluster down {known.name}; then up.")
        if head.tags.get(LAUNCH) != fingerprint(tree):
            remedy = "Take it down, then up."
            raise BadInput(f"{file.path} asks for another head", "it is the machine that runs", remedy)
        changed = [key for key in tree if tree[key] != before.get(key)]
        if changed:
            launcher.run(known.folder, say, restart=False)
    except BaseException:  # it has not been followed: the same file, once more, is a change again
        durable.replace(known.folder / CONFIG, json.dumps(before), 0o600)
        raise
    said = [f"{key} changed" for key in changed]
    old, new = (each["provider"]["headway"]["market"].get("ends_at") for each in (before, tree))
    return said if old == new else [*said, *_told_the_end(known, machines, market.addresses(), new)]


def _told_the_end(
    known: Known, machines: Sequence[Machine], addresses: Mapping[str, str], ends_at: float | None
) -> list[str]:
    """Let machines that run shut themselves down at another time than they were told; returns what was done."""
    asked = commands.end_at(ends_at)[0] if ends_at is not None else "sudo shutdown -c"
    found = []
    for machine in machines:
        if machine.state != "stopping":
            try:
                launcher.there(known.folder, machine.id, asked, addresses.get(machine.id, ""))
            except HeadwayError as error:
                found.append(f"{machine.id} still ends when it was told before: {error}")
    return found or ["stop_after_hours changed, on the machines that run too"]


def down(known: Known, say: Say) -> Down:
    """End all of it, and ask EC2 what is left."""
    if not known.place:
        return Down(known.name, note="it never got so far as to ask AWS for anything")
    needed()
    market, account = _at(known)
    try:
        ended = [f"{each.id} ({each.option})" for each in market.machines() if each.state != "stopping"]
    except (Refused, OSError):
        ended = []
    leaks, kept = _taken_back(market, account, say, unsure=not known.address)  # an `up` that was cut short, or killed
    return Down(known.name, ended=ended, leftovers=leaks, kept=kept)


def status(known: Known) -> Status:
    """What EC2 has of it, and what its head says of Ray's nodes."""
    needed()
    if not known.place:
        return Status(known.name, known.kind, "down", why="it never got so far as to ask AWS for anything")
    market, _ = _at(known)
    common: dict[str, Any] = {"name": known.name, "kind": known.kind, "since": known.since, "ends_at": _ends(known)}
    try:
        machines = market.machines()
    except (Refused, OSError) as error:
        return Status(**common, state="unreachable", why=str(error))
    ordered_ = sorted(machines, key=lambda each: (each.tags.get(KIND) != "head", each.since))
    head = next((each for each in ordered_ if each.tags.get(KIND) == "head" and each.state != "stopping"), None)
    nodes = [_node(each) for each in ordered_]
    if head is None:
        state, why = ("down", "") if not nodes else ("down", "the head is gone, and machines are left")
        return Status(**common, state=state, nodes=nodes, why=why)
    state = "up" if nodes[0].state == "up" else "starting"
    return Status(**common, state=state, address=known.address, jobs=known.jobs, nodes=nodes)


def drain(known: Known, node: str, deadline_s: float, say: Say) -> str:
    """Have a node drained by the agent on its own machine.

    Raises:
        BadInput: there is no such machine.
        HeadwayError: it cannot be reached.
    """
    needed()
    market, _ = _at(known)
    with _Told():
        machines = {each.id: each for each in market.machines() if each.state == "running"}
    if node not in machines:
        raise BadInput(f"no machine {node!r} of {known.name} runs", "", f"Those are: {', '.join(sorted(machines))}.")
    if machines[node].tags.get(KIND) == "head":
        raise BadInput(f"{node} is the head", "the cluster ends with it", f"headway cluster down {known.name}.")
    asked = f"{PYTHON} -m headway.cluster.agent drain --deadline {deadline_s:g}s --reason 'headway cluster drain'"
    with _Told():
        address = market.addresses().get(node, "")
    launcher.there(known.folder, node, asked, address)
    return f"{node} is drained, and may be gone in {deadline_s:g} s"


def add(known: Known, count: int, node_type: str | None, say: Say) -> list[str]:
    """Machines of a cloud are bought by the autoscaler alone.

    Raises:
        BadInput: always; how more are had.
    """
    remedy = "Raise min_workers of a type in the file, and `headway cluster up` it again."
    raise BadInput(f"{known.name} grows by what its jobs ask for", "its autoscaler buys machines, nobody else", remedy)


def ssh(known: Known) -> list[str]:
    """The ssh command line to the head. Raises BadInput: there is none now."""
    needed()
    market, _ = _at(known)
    with _Told():
        heads = [each for each in market.machines() if each.tags.get(KIND) == "head" and each.state == "running"]
    if not heads:
        raise BadInput(f"cluster {known.name} has no head now", "", f"headway cluster status {known.name} says more.")
    return launcher.command(known.folder, heads[0].id, market.addresses().get(heads[0].id, ""))


def _at(known: Known, ends_at: float | None = None) -> tuple[Aws, Account]:
    region = known.place.partition(" ")[0]
    return Aws(known.name, region, known.id, ends_at=ends_at), Account(known.name, region, known.id)


def _prepared(file: ClusterFile, known: Known, account: Account, say: Say) -> dict[str, Any]:
    """Prepare the account, and write what Ray gets."""
    said, folder = file.headway, known.folder
    number = account.whose()
    rights = {
        "head": policies.head(known.name, account.region, number, said.runs, said.reads, known.id),
        "worker": policies.worker(said.runs, said.reads),
    }
    images = _looked_up(_images(file), folder / IMAGES, account, say)
    zones = account.network(_subnets(file))
    _see_zones(file, zones)
    rules = file.tree["provider"].get("security_group", {}).get("IpPermissions", [])
    found = Found(
        account=number,
        subnets=list(zones),
        zones=zones,
        group=account.group(next(iter(zones)), rules),
        key=account.key(folder / KEY),
        profiles=account.roles({part: rights[part] for part in shaping.parts_without_role(file)}, say),
    )
    durable.replace(folder / PINS, "".join(f"{line}\n" for line in requirements("boto3")), 0o600)
    sent = mounts(folder / PINS, known.token_file)
    tree = shaping.for_ray(file, found, images, shaping.sign_in(file, folder / KEY), sent, known.id, _ends(known, file))
    durable.replace(folder / CONFIG, json.dumps(tree), 0o600)
    return tree


def _head(file: ClusterFile, tree: Mapping[str, Any], market: Aws, say: Say) -> Machine:
    """Buy the head: the first of its options that EC2 has. Raises Refused: the last of the refusals."""
    config = tree["available_node_types"][file.head]["node_config"]
    plain = {key: value for key, value in config.items() if key != "headway"}
    tags = {
        KIND: "head",
        TYPE: file.head,
        STATUS: "uninitialized",
        LAUNCH: fingerprint(tree),
        NAME: f"headway-{file.name}-head",
    }
    zones = market_zones(config)
    options = shaping.in_zones(shaping.options_of(file, file.head), zones)
    refused: Refused | None = None
    for option in ordered(options, config["headway"].get("order", SOUGHT)):
        say(f"asking for the head: {option}")
        once = secrets.token_hex(16)
        try:
            return patiently(lambda option=option, once=once: market.launch(option, tags, plain, once), say)  # type: ignore[misc,no-any-return]
        except Refused as error:
            say(f"refused: {error}")
            refused = error
    assert refused is not None, "a type has options"
    raise refused


def market_zones(config: Mapping[str, Any]) -> list[str]:
    """Zones that a type's options name, in order."""
    return list(dict.fromkeys(one["zone"] for one in config["headway"]["one_of"] if one["zone"]))


def _undo(known: Known, market: Aws, account: Account, say: Say) -> None:
    """Take back what was made.

    Raises:
        StillThere: what costs something could not be; or it was interrupted, so that nobody knows.
    """
    whose, remedy = f"of cluster {known.name} something", f"`headway cluster down {known.name}` tries again."
    try:
        say("taking back what was made")
        leaks, kept = _taken_back(market, account, say, market.unsure)
        for left in kept:
            say(f"still there: {left}")
    except BaseException as error:
        reason = f"taking it back was cut short ({type(error).__name__}): its machines may run, and cost"
        raise StillThere(f"{whose} may be there", reason, remedy) from error
    if leaks:
        raise StillThere(f"{whose} is still there", "; ".join(leaks), remedy)


def _looked_up(names: Sequence[str], kept: Path, account: Account, say: Say) -> dict[str, str]:
    """Images by their names in the file. What was looked up once stays: machines of one cluster are alike."""
    known: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for name in names:
        if name not in known:
            known[name] = account.image(name)
            if name != known[name]:
                say(f"{known[name]} is the image, by {name}")
    durable.replace(kept, json.dumps(known), 0o600)
    return known


def _taken_back(market: Aws, account: Account, say: Say, unsure: bool) -> tuple[list[str], list[str]]:
    """End all, and ask what is left: what costs something, and what does not."""
    settle_s = UNSURE_S if unsure else SETTLE_S
    if settle_s > SETTLE_S:
        say(f"it is not known whether EC2 made a machine: it is looked for {settle_s:g} s")
    left = tear_down(market, patience_s=PATIENCE_S + settle_s, settle_s=settle_s, say=say)
    leaks = [f"instance {each.id} ({each.option})" for each in left.machines]
    if left.trouble:
        leaks.append(f"perhaps machines in {market.region}: {left.trouble}")
    kept = []
    try:
        kept = [str(each) for each in account.forget()]
        leaks += [str(each) for each in market.left() if each.kind == "volume"]
    except (Refused, OSError) as error:
        leaks.append(f"perhaps volumes in {market.region}: {error}")
    return leaks, kept


def _images(file: ClusterFile) -> list[str]:
    """Names of the images that machines boot from. Raises BadInput: a type has none."""
    found = []
    for name, each in file.spec.available_node_types.items():
        image = each.node_config.get("ImageId")
        if not image:
            remedy = "Give it one, as in cluster/aws/spot.yaml."
            raise BadInput(f"{file.path}: available_node_types.{name}.node_config.ImageId is missing", "", remedy)
        found.append(str(image))
    return list(dict.fromkeys(found))


def _subnets(file: ClusterFile) -> list[str]:
    found = [subnet for each in file.spec.available_node_types.values() for subnet in _wanted(each.node_config)]
    return list(dict.fromkeys(found))


def _wanted(config: Mapping[str, Any]) -> Sequence[str]:
    return list(config.get("SubnetIds", [])) + ([config["SubnetId"]] if "SubnetId" in config else [])


def _see_zones(file: ClusterFile, zones: Mapping[str, str]) -> None:
    """Raises BadInput: an option is in a zone where the cluster has no subnet."""
    there = sorted(set(zones.values()))
    for name in file.spec.available_node_types:
        for option in shaping.options_of(file, name):
            if option.zone and option.zone not in there:
                fact = f"{file.path}: available_node_types.{name}: {option}"
                raise BadInput(fact, "there is no subnet in that zone", f"There are in {', '.join(there)}.")


def _ends(known: Known, file: ClusterFile | None = None) -> float | None:
    """When it ends by itself, as its file says."""
    if file is None:
        from headway.cluster.file import load

        try:
            file = load(known.file, known.name)
        except HeadwayError:
            return None
    hours = file.headway.stop_after_hours
    return known.since + 3600.0 * hours if hours else None


def _node(machine: Machine) -> Node:
    state, why = str(machine.state), ""
    if machine.state == "running":
        status = machine.tags.get(STATUS, "")
        state = "up" if status == "up-to-date" else "booting"
        why = "" if state == "up" else status
    return Node(
        name=machine.id,
        type=machine.tags.get(TYPE, ""),
        state=state,
        ip=machine.ip,
        since=machine.since,
        option=str(machine.option),
        price_per_hour=machine.option.price_per_hour,
        why=why,
    )


def _remedy(refused: Refused) -> str:
    return {
        "capacity": "Give the head's type more to choose from, in one_of, or try later. Nothing was left there.",
        "quota": "Ask AWS for a higher quota, or take smaller machines. Nothing was left there.",
        "forbidden": "See the rights in cluster/aws/README.md. Nothing was left there.",
    }.get(refused.kind, "Nothing was left there.")


class _Told:
    """Around what asks AWS: its refusals as errors of ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        if isinstance(error, Refused):
            raise HeadwayError("AWS will not", str(error)) from error
        if isinstance(error, OSError):
            raise HeadwayError("AWS cannot be reached", str(error)) from error
