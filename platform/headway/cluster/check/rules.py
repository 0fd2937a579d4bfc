"""The mistakes that are known of cluster files, each by a rule. What each costs was learnt by others, and by us."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from headway.cluster.check.finding import Fault, Rule, at, listed, mapped
from headway.cluster.check.view import TYPES, View

RAY = "2.60"
"""The Ray that Headway runs on."""
SLOWEST_S = 20.0
"""A silent machine should be given up by then."""
_HEALTH = ("initial_delay_ms", "period_ms", "timeout_ms", "failure_threshold")
_DEFAULTS = {"initial_delay_ms": 5000.0, "period_ms": 3000.0, "timeout_ms": 10000.0, "failure_threshold": 5.0}
_NIGHTLY = re.compile(r"ray-wheels/|\bnightly\b|ray-\d[\d.]*\.dev\d|ray[^=\n]{0,40}==[\d.]+\.dev\d|@master\b")
_PINNED = re.compile(r"\bray(?:\[[^\]]*\])?==(\d+\.\d+)")
_OPEN = ("0.0.0.0/0", "::/0", "*", "Internet")
_HOST = re.compile(r"--dashboard-host[= ]['\"]?(0\.0\.0\.0|::)")


def head_on_spot(view: View) -> Iterator[Fault]:
    """A head that is taken away takes the cluster with it."""
    for offer in view.offers(view.head):
        if offer.spot and not view.here:
            reason = "the cloud may take it away, and the cluster ends with it"
            yield Fault(offer.way, f"the head's type {view.head} is a spot machine", reason, "Take one on demand.")


def no_fallback(view: View) -> Iterator[Fault]:
    """Ray asks for one machine type in one zone for ever, and says nothing while there is none."""
    for name in view.spots:
        offers = view.offers(name)
        places = {(offer.type, offer.zone) for offer in offers}
        if view.started and not view.here and len(places) < 2:
            remedy = "Give one_of more types and zones, and one on demand at the end."
            yield Fault(
                offers[0].way, f"{name} is spot, of one kind", "where none is left there is none", remedy, "warn"
            )
        if not view.started and not _stands_in(view, name):
            remedy = "Add a type with the same resources on demand, and give this one a higher priority."
            reason = "Ray's own providers try nothing else, and say nothing while there is none"
            yield Fault((TYPES, name), f"{name} is spot, and no other type stands in for it", reason, remedy, "warn")


def _stands_in(view: View, name: str) -> bool:
    wanted, mine = mapped(view.types[name].get("resources")), view.types[name].get("priority", 0)
    for other, each in view.workers.items():
        has = mapped(each.get("resources"))
        lower = isinstance(mine, int) and each.get("priority", 0) < mine
        if other not in view.spots and lower and all(has.get(key, 0) >= value for key, value in wanted.items()):
            return True
    return False


def nightly_ray(view: View) -> Iterator[Fault]:
    """What was tried yesterday is not what runs tomorrow; Ray's defaults install such a Ray."""
    remedy = f"Install ray=={RAY}.* by name and version."
    for way, text in [*view.commands(), *view.images()]:
        if _NIGHTLY.search(text):
            yield Fault(way, "a nightly Ray", "it is another one every day", remedy)
    if not view.started and view.said("setup_commands") is None:
        reason = f"Ray's defaults for {view.kind} install a nightly Ray"
        yield Fault(("provider", "type"), "there are no setup_commands", reason, remedy)


def another_ray(view: View) -> Iterator[Fault]:
    """A cluster's Ray must be the one that submits to it."""
    for way, text in view.commands():
        for found in _PINNED.findall(text):
            if found != RAY:
                reason = f"Headway runs on Ray {RAY}, and all machines must have the same"
                yield Fault(way, f"Ray {found} is installed", reason, f"ray=={RAY}.*")
    for way, text in view.images():
        found = re.search(r"/ray(?:-ml)?:(\d+\.\d+)", text)
        if found and found[1] != RAY:
            yield Fault(way, f"the image has Ray {found[1]}", f"Headway runs on Ray {RAY}", f"rayproject/ray:{RAY}.0-…")


def unpinned_image(view: View) -> Iterator[Fault]:
    """A worker that comes tomorrow should be as those that came today."""
    for way, text in view.images():
        if way[0] == "docker" and (":" not in text.rpartition("/")[2] or text.endswith((":latest", ":nightly"))):
            remedy = "Name a version, or a digest."
            yield Fault(
                way, f"the image {text} has no version", "machines that come later have another", remedy, "warn"
            )
        elif text == "latest_dlami" or "/family/" in text or (way[-1] == "imageVersion" and text == "latest"):
            remedy = "Name one image." + (" `resolve:ssm:NAME` is looked up once." if view.kind == "aws" else "")
            yield Fault(way, f"{way[-1]}={text}", "machines that come later have another image", remedy, "warn")
    if view.kind != "aws":
        return
    for name, each in view.types.items():
        if not at(each, "node_config", "ImageId"):
            remedy = "Name one, as in cluster/aws/spot.yaml."
            yield Fault((TYPES, name), f"{name} has no ImageId", "it is not said what its machines boot from", remedy)


def open_ports(view: View) -> Iterator[Fault]:
    """Whoever reaches Ray's ports runs what they like."""
    for number, rule in enumerate(listed(at(view.provider, "security_group", "IpPermissions"))):
        ranges = [*listed(at(rule, "IpRanges")), *listed(at(rule, "Ipv6Ranges"))]
        if any(at(each, key) in _OPEN for each in ranges for key in ("CidrIp", "CidrIpv6")):
            way = ("provider", "security_group", "IpPermissions", number)
            remedy = "Give your own address (203.0.113.7/32), or leave it out: `up` needs no open port."
            yield Fault(way, "a port is open to everybody", "anybody may try it", remedy)
    for key in ("head_start_ray_commands",):
        said = view.said(key)
        if said is not None and _HOST.search(said):
            reason = "whoever reaches the head's network may send it jobs"
            remedy = "--dashboard-host=127.0.0.1, and `headway tunnel`."
            level: Any = "warn" if "RAY_AUTH_MODE=token" in said else "fail"
            yield Fault((key,), "the job API listens everywhere", reason, remedy, level)
    if not view.started and view.said("head_start_ray_commands") is None:
        reason = f"Ray's defaults for {view.kind} open the job API to the network, without a token"
        remedy = f"Say how Ray is started, as in cluster/{view.kind}."
        yield Fault(("provider", "type"), "there are no head_start_ray_commands", reason, remedy)


def no_token(view: View) -> Iterator[Fault]:
    """Without one, whoever reaches the cluster is its admin."""
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        said = view.said(key)
        if said is not None and "RAY_AUTH_MODE=token" not in said:
            reason = "whoever reaches it runs what they like"
            yield Fault((key,), "Ray is started without a token", reason, "export RAY_AUTH_MODE=token before it.")


def slow_health_checks(view: View) -> Iterator[Fault]:
    """At Ray's defaults a machine that is cut off is given up after some 65 s, and all wait for it."""
    said = view.said("head_start_ray_commands")
    if said is None:
        return
    values = dict(_DEFAULTS)
    for name in _HEALTH:
        found = re.search(rf"RAY_health_check_{name}=['\"]?(\d+)", said)
        values[name] = float(found[1]) if found else values[name]
    longest_s = (values["timeout_ms"] + values["period_ms"]) * values["failure_threshold"] / 1000.0
    if longest_s > SLOWEST_S:
        remedy = "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3"
        found_said = f"a silent machine is given up after {longest_s:.0f} s"
        yield Fault(("head_start_ray_commands",), found_said, "all others wait so long", f"Export {remedy}.", "warn")


def no_agent(view: View) -> Iterator[Fault]:
    """Nothing in Ray hears a cloud's notice: without an agent a spot machine is lost without a word."""
    if view.here or not view.workers:
        return
    spot = any(offer.spot for name in view.workers for offer in view.offers(name))
    if not spot:
        return
    if view.started and view.said("worker_start_ray_commands") is None:
        notices = view.headway.get("notices", "none")
        if notices == "none":
            way = ("provider", "headway", "notices") if "notices" in view.headway else ("provider",)
            remedy = f"provider.headway.notices: {view.kind}"
            yield Fault(way, "nobody hears spot notices", "two minutes of warning are lost", remedy)
        return
    if "headway.cluster.agent" not in (view.said("worker_start_ray_commands") or ""):
        remedy = f"python -m headway.cluster.agent watch --notices {view.kind}, after `ray start`."
        start = ("worker_start_ray_commands",) if view.said("worker_start_ray_commands") else ("provider", "type")
        yield Fault(start, "workers start no agent", "nobody hears spot notices", remedy)


def notices_of_another(view: View) -> Iterator[Fault]:
    """An agent that asks another cloud's service hears nothing."""
    notices = view.headway.get("notices", "none")
    wrong = notices in ("aws", "gcp", "azure") and notices != view.kind
    if wrong and view.kind in ("aws", "gcp", "azure"):
        way = ("provider", "headway", "notices")
        yield Fault(way, f"notices={notices} on {view.kind}", "its machines have another service", f"{view.kind}")


def no_end(view: View) -> Iterator[Fault]:
    """A cluster that is forgotten costs until somebody sees the bill."""
    if view.here:
        return
    limits = view.headway.keys() & {"stop_when_idle_minutes", "stop_after_hours"}
    timed = [each for each in view.types.values() if at(each, "node_config", "scheduling", "maxRunDuration")]
    if not limits and (not timed or len(timed) < len(view.types)):
        reason = "a cluster that is forgotten costs until somebody sees the bill"
        remedy = _ENDS["started" if view.started else view.kind if view.kind in _ENDS else "azure"]
        yield Fault(("provider",), "nothing ends it", reason, remedy, "warn")
    elif view.kind == "aws" and "stop_after_hours" not in limits:
        reason = "its head ends it when it is idle, and nobody does once the head has failed"
        remedy = "provider.headway.stop_after_hours: 12"
        yield Fault(("provider", "headway"), "nothing ends it if its head fails", reason, remedy, "warn")
    if view.tree.get("idle_timeout_minutes") == 0:
        reason = "a machine is given back the moment nothing runs on it, and bought anew the next"
        yield Fault(("idle_timeout_minutes",), "idle_timeout_minutes=0", reason, "idle_timeout_minutes: 5", "warn")


_ENDS = {
    "started": "provider.headway: {stop_when_idle_minutes: 30, stop_after_hours: 12}",
    "gcp": 'scheduling: {maxRunDuration: {seconds: "43200"}, instanceTerminationAction: DELETE} of each type.',
    "azure": "Nothing in the file can: an alert on the budget of its resource group, and `az group delete`.",
}
"""What ends a cluster by itself. A machine of Azure that shuts itself down is billed on."""


def stopped_and_kept(view: View) -> Iterator[Fault]:
    """Ray's providers stop machines where one thinks that they end them: their disks are billed on."""
    kept = view.provider.get("cache_stopped_nodes", True)
    if not view.started and kept is not False:
        way = ("provider", "cache_stopped_nodes") if "cache_stopped_nodes" in view.provider else ("provider",)
        reason = "machines are stopped, not ended, and their disks are billed on"
        yield Fault(way, "cache_stopped_nodes is not false", reason, "cache_stopped_nodes: false", "warn")


def zone_of_another_region(view: View) -> Iterator[Fault]:
    """There is no machine to be had in a zone of another region."""
    if view.kind not in ("aws", "gcp") or not view.region:
        return
    for zone in str(view.provider.get("availability_zone") or "").split(","):
        if zone.strip() and not zone.strip().startswith(view.region):
            way = ("provider", "availability_zone")
            yield Fault(
                way, f"{zone.strip()} is not in {view.region}", "no machine comes from there", "Mend one of both."
            )
    for name in view.types:
        for offer in view.offers(name):
            if offer.zone and not offer.zone.startswith(view.region):
                said = f"{offer.zone} is not in {view.region}"
                yield Fault(offer.way, said, "no machine comes from there", f"Give a zone of {view.region}.")


def no_resources(view: View) -> Iterator[Fault]:
    """The autoscaler buys a machine for what its type says that it has: nothing, and it is never bought."""
    for name, each in view.workers.items():
        resources = mapped(each.get("resources"))
        if not any(resources.get(key) for key in ("CPU", "GPU", "TPU")):
            reason = "no worker of a run fits on it, so it is never bought"
            way = (TYPES, name, "resources") if "resources" in each else (TYPES, name)
            yield Fault(way, f"{name} has no CPU and no GPU", reason, "resources: {CPU: 8}, as its machines have.")
    if not view.workers and not view.here:
        yield Fault(
            (TYPES,), "there is no type for workers", "a run has nowhere to train", "Add one beside the head's."
        )


def head_that_works(view: View) -> Iterator[Fault]:
    """A head that runs workers as well is the one whose memory they fill."""
    has = mapped(at(view.types, view.head, "resources"))
    if not view.here and has.get("CPU", 1 if not view.started else 0):
        way = (TYPES, view.head)
        reason = "workers of a run are placed beside the cluster's own processes, and may take their memory"
        yield Fault(way, f"the head {view.head} has CPUs to give", reason, "resources: {CPU: 0}", "warn")


def prices_half_told(view: View) -> Iterator[Fault]:
    """Those without a price are tried last."""
    for name, each in view.types.items():
        offers = view.offers(name)
        untold = [offer for offer in offers if offer.price is None]
        if untold and len(untold) < len(offers) and each.get("order") != "as_listed":
            said = f"{len(untold)} of {len(offers)} options of {name} have no price"
            remedy = "Give price_per_hour to all, or order: as_listed."
            yield Fault(untold[0].way, said, "those without are tried last", remedy, "warn")


def nowhere_for_runs(view: View) -> Iterator[Fault]:
    """What lies on a machine's disk is gone with it."""
    runs = view.headway.get("runs")
    if view.kind in ("aws", "gcp", "azure") and view.started and not (isinstance(runs, str) and "://" in runs):
        reason = "checkpoints on a machine's own disk are gone with it"
        remedy = "provider.headway.runs: s3://BUCKET/runs"
        yield Fault(("provider",), "it is not said where runs are kept", reason, remedy, "warn")


def secrets_in_the_file(view: View) -> Iterator[Fault]:
    """The file is copied to the head, and into repositories."""
    for key in ("aws_credentials", "gcp_credentials"):
        if view.provider.get(key):
            reason = "the file is copied to every head, and into repositories"
            yield Fault(("provider", key), f"provider.{key} holds keys", reason, "Use a profile here and roles there.")
    for way, text in view.commands():
        if re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY", text):
            yield Fault(way, "a command holds a key", "the file is copied to every machine", "Use roles.")


def old_metadata_service(view: View) -> Iterator[Fault]:
    """The first version hands a machine's keys to whoever makes it fetch a URL."""
    for name, each in view.types.items():
        if at(each, "node_config", "MetadataOptions", "HttpTokens") == "optional":
            way = (TYPES, name, "node_config", "MetadataOptions", "HttpTokens")
            reason = "a program that can be made to fetch a URL gives the machine's keys away"
            yield Fault(way, "metadata without tokens", reason, "HttpTokens: required")


def broad_role(view: View) -> Iterator[Fault]:
    """A worker that may make machines is whoever runs code on it."""
    for name, each in view.workers.items():
        profile = at(each, "node_config", "IamInstanceProfile")
        said = str(at(profile, "Name") or at(profile, "Arn") or "")
        if said.endswith(("ray-autoscaler-v1", "ray-autoscaler")):
            way = (TYPES, name, "node_config", "IamInstanceProfile")
            reason = "it is the head's role of Ray: all of EC2 and S3"
            yield Fault(way, f"workers of {name} have {said}", reason, "Leave it out: `up` makes one that has no more.")


RULES: tuple[Rule, ...] = (
    head_on_spot,
    no_fallback,
    nightly_ray,
    another_ray,
    unpinned_image,
    open_ports,
    no_token,
    slow_health_checks,
    no_agent,
    notices_of_another,
    no_end,
    stopped_and_kept,
    zone_of_another_region,
    no_resources,
    head_that_works,
    prices_half_told,
    nowhere_for_runs,
    secrets_in_the_file,
    old_metadata_service,
    broad_role,
)
