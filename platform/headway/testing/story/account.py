"""What a drill on a cloud comes to, beside what any drill does: machines, dollars, notices, and what is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headway.testing.account import Account

Record = Mapping[str, Any]
SAME = 8
"""Among so many lines one that says the same is looked for: several options are asked for in turn."""


@dataclass(frozen=True)
class Sold:
    """A machine that the cloud sold to the cluster. Times are Unix seconds.

    Args:
        name: the cloud's.
        number: of its node, in the order in which they came; None where it never became one.
        option: type, zone and kind, in words.
        price_per_hour: in dollars.
        asked: when it was bought.
        booted: when its Ray was to start; None if it never came so far.
        gone: when it stopped costing; None while it does.
        why: it is gone: let go, reclaimed, killed, or in the cloud's words.
        node_id: Ray's; "" where it never joined.
        head: whether it is the head's.
    """

    name: str
    number: int | None
    option: str
    price_per_hour: float
    asked: float
    booted: float | None = None
    gone: float | None = None
    why: str = ""
    node_id: str = ""
    head: bool = False

    def dollars(self, now: float) -> float:
        """What it has cost by then."""
        return max(0.0, (self.gone if self.gone is not None else now) - self.asked) * self.price_per_hour / 3600


@dataclass(frozen=True)
class CloudAccount(Account):
    """Printed by `headway drill JOB --cloud --json`. Seconds are counted from the cluster's beginning.

    Args:
        least: workers with which the run may begin.
        most: that it may have.
        sizes: how many workers trained, from when on.
        machines: that were sold to the cluster, the head among them: when, for how long, why they went, dollars.
        dollars: all of them together.
        notices: the machine, the notice in seconds, after how many the run knew, and whether the worker had handed over
            its lanes before the machine was taken.
        joins: seconds from a machine's boot until its worker trained, and of them those that the others paused.
        autoscaler: what it did and was refused, in order.
        idle_s: from the run's end until the last worker's machine was gone.
        leftovers: what was still there after the cluster was taken down; there must be nothing.
    """

    least: int = 1
    most: int = 1
    sizes: list[dict[str, Any]] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)
    dollars: float = 0.0
    notices: list[dict[str, Any]] = field(default_factory=list)
    joins: list[dict[str, Any]] = field(default_factory=list)
    autoscaler: list[dict[str, Any]] = field(default_factory=list)
    idle_s: float | None = None
    leftovers: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """As any drill's; and the run grew to its full size, the idle machines went, and nothing is left."""
        return super().good and self.grew and self.idle_s is not None and not self.leftovers

    @property
    def grew(self) -> bool:
        """Whether as many workers as may trained at some time."""
        return any(size["workers"] >= self.most for size in self.sizes)


def sizes(events: Iterable[Record], since: float) -> list[dict[str, Any]]:
    """How many workers trained, whenever that changed.

    Args:
        events: lines of events.jsonl.
        since: from which seconds are counted.
    """
    found: list[dict[str, Any]] = []
    for event in events:
        if event["kind"] == "generation" and (not found or found[-1]["workers"] != len(event["members"])):
            found.append({"at_s": _after(event["time"], since), "workers": len(event["members"])})
    return found


def bill(sold: Iterable[Sold], since: float, now: float) -> list[dict[str, Any]]:
    """The machines as plain values; those that are still there cost until now."""
    return [
        {
            "machine": machine.name,
            "number": machine.number,
            "head": machine.head,
            "option": machine.option,
            "asked_s": _after(machine.asked, since),
            "booted_s": _after(machine.booted, since),
            "gone_s": _after(machine.gone, since),
            "why": machine.why,
            "dollars": round(machine.dollars(now), 6),
        }
        for machine in sold
    ]


def notices(injected: Iterable[Record], sold: Sequence[Sold], events: Iterable[Record]) -> list[dict[str, Any]]:
    """What became of each notice that the cloud gave.

    Args:
        injected: records of `headway.testing.injector`; of them those of `reclaim`.
        sold: the machines.
        events: lines of events.jsonl.
    """
    events = list(events)
    drains = [event for event in events if event["kind"] == "drain"]
    groups = [event for event in events if event["kind"] == "generation"]
    found = []
    for record in injected:
        if not record["fault"].startswith("reclaim "):
            continue
        at, node = record["time"], record["target"].get("node_id", "")
        seen = next((event for event in drains if event["node_id"] == node and event["time"] >= at), None)
        deadline = at + float(record["fault"].rpartition("notice=")[2].removesuffix("s"))
        later = [] if seen is None else [g for g in groups if g["time"] >= seen["time"]]
        over = next((group for group in later if seen is not None and seen["worker"] not in group["members"]), None)
        found.append(
            {
                "machine": next((machine.name for machine in sold if machine.node_id == node), ""),
                "notice_s": round(deadline - at, 3),
                "visible_s": None if seen is None else _after(seen["time"], at),
                "handed_over_s": None if over is None else _after(over["time"], at),
                "in_time": over is not None and over["time"] <= deadline,
            }
        )
    return found


def joins(sold: Iterable[Sold], events: Iterable[Record], carriers: Mapping[str, str]) -> list[dict[str, Any]]:
    """How long each machine's first worker took to train, from the machine's boot on, and how long the others paused.

    Args:
        sold: the machines.
        events: lines of events.jsonl.
        carriers: Ray's id of the node of each worker that ever was.
    """
    first: dict[str, float] = {}
    pauses: dict[str, float] = {}
    for event in events:
        if event["kind"] == "generation":
            for node in {carriers.get(worker, "") for worker in event["members"]}:
                first.setdefault(node, event["time"])
        if event["kind"] == "recovery" and event["cause"] == "joined":
            for worker in event["workers"]:
                pauses.setdefault(carriers.get(worker, ""), event["pause_s"])
    return [
        {
            "machine": machine.name,
            "joined_s": _after(first[machine.node_id], machine.booted),
            "pause_s": pauses.get(machine.node_id),
        }
        for machine in sold
        if machine.booted is not None and machine.node_id in first
    ]


def asked(log: Iterable[tuple[float, str, str, str]], since: float) -> list[dict[str, Any]]:
    """What the autoscaler asked of the cloud, and the answers; a refusal that is repeated once, with its number.

    Args:
        log: Unix seconds, verb, what it is about, and the answer, of each request and of what was done to the cloud.
        since: from which seconds are counted.
    """
    found: list[dict[str, Any]] = []
    for at, verb, what, answer in log:
        if verb not in ("launch", "terminate"):
            continue
        line = {"asked": verb, "for": what, "answer": answer}
        same = next((each for each in found[-SAME:] if line.items() <= each.items()), None)
        if same is not None and verb == "launch":
            same["times"] += 1
        else:
            found.append({"at_s": _after(at, since), **line, "times": 1})
    return found


def idle_s(sold: Iterable[Sold], ended: float) -> float | None:
    """Seconds from the run's end until the last machine of a worker was gone; None while one is there."""
    gone = [machine.gone for machine in sold if not machine.head]
    if any(at is None for at in gone):
        return None
    return round(max([0.0, *(at - ended for at in gone if at is not None)]), 3)


def _after(at: float | None, since: float) -> Any:
    return None if at is None else round(at - since, 3)
