"""Whom a run gave up although nothing lasting had been done to them: the detector's own victims. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway.testing.faults import Fault, parse

Record = Mapping[str, Any]
RESTART_S = 60.0
"""After the end of all workers, or of the driver, nobody is missed for so long: all are new."""
PLANNED = ("joined", "drained", "resized", "rebalanced")
LOSS_PERCENT = 20.0


@dataclass(frozen=True)
class Patience:
    """How long a run waits, in seconds.

    Args:
        silence_s: for a worker that is not heard of.
        hang_s: for one that does not move.
        slow_s: for one that starts, compiles or restores.
    """

    silence_s: float = 2.0
    hang_s: float = 60.0
    slow_s: float = 900.0

    @property
    def lost_s(self) -> float:
        """For workers that all fall silent at once: then it is the observer who is ill."""
        return max(30.0, 10 * self.silence_s)


@dataclass(frozen=True)
class Excuse:
    """Whom a fault excuses from staying: from a time on, until another."""

    since: float
    until: float
    workers: Collection[str] | None
    """None: everybody."""

    def covers(self, worker: str, at: float) -> bool:
        return self.since <= at <= self.until and (self.workers is None or worker in self.workers)


def killed(events: Iterable[Record], injected: Sequence[Record], patience: Patience) -> list[dict[str, Any]]:
    """Healthy workers that the run went on without: each with the time, and the cause that the run gave.

    Args:
        events: lines of events.jsonl.
        injected: records of `headway.testing.injector`.
        patience: of the job.
    """
    events = list(events)
    recoveries = [event for event in events if event["kind"] == "recovery"]
    excuses = [found for record in injected if (found := excuse(record, patience)) is not None]
    victims, before = [], frozenset[str]()
    for event in events:
        if event["kind"] != "generation":
            continue
        members = frozenset(event["members"])
        for worker in sorted(before - members):
            causes = [r["cause"] for r in recoveries if worker in r["workers"] and r["time"] >= event["time"]]
            planned = bool(causes) and causes[0] in PLANNED
            if not planned and not any(found.covers(worker, event["time"]) for found in excuses):
                victims.append({"worker": worker, "time": event["time"], "cause": causes[0] if causes else None})
        before = members
    return victims


def excuse(record: Record, patience: Patience) -> Excuse | None:
    """Whom an injected fault excuses; None where it ends within the run's patience, or is no harm to anybody."""
    (fault,) = parse(record["fault"])
    target, since = record["target"], record["time"]
    if fault.target in ("all", "driver", "head"):
        if fault.verb == "kill":
            return Excuse(since, since + RESTART_S, None)
        return Excuse(since, float("inf"), None) if _span(fault) >= patience.lost_s else None
    if harmless(fault, patience, target.get("up", 0)):
        return None
    return Excuse(since, float("inf"), {worker["id"] for worker in target.get("workers", ())})


def harmless(fault: Fault, patience: Patience, up: int = 0) -> bool:
    """Whether nobody may be given up for a fault.

    Args:
        fault: that was done.
        patience: of the job.
        up: nodes that were up when it was.
    """
    span = _span(fault)
    together = len(fault.which) >= 2 and 2 * len(fault.which) > up
    bounds = {
        "stop": patience.silence_s,
        "oneway": patience.silence_s,
        "part": patience.silence_s,
        "cut": patience.lost_s if together else patience.silence_s,
        "blip": patience.lost_s,
        "freeze": patience.lost_s,
        "lock": patience.hang_s,
        "compile": patience.slow_s,
        "restore": patience.slow_s,
    }
    if fault.verb in bounds:
        return span < bounds[fault.verb]
    if fault.verb == "loss":
        return (fault.percent or 0.0) <= LOSS_PERCENT
    if fault.verb in ("delay", "reorder"):
        return (fault.by_s or 0.0) < patience.silence_s / 4
    return fault.verb in ("add", "rate", "slow-store", "full-disk", "empty")


def _span(fault: Fault) -> float:
    return float("inf") if fault.span_s is None else fault.span_s
