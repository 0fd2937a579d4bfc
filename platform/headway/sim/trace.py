"""Machines that come and go: traces that were recorded, and ones drawn from a seed.

A trace is a list of changes in order of time. Recorded formats: `ms,add|remove,node` (a spot fleet), `s,number alive`
(spot capacity), and a JSON list of `fault_start` and `fault_end` of named nodes with times in days.
"""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path

from headway.errors import BadInput

DAY_S = 86400.0
HOUR_S = 3600.0


@dataclass(frozen=True)
class Change:
    """At `at` seconds a node comes (`up`) or goes."""

    at: float
    node: str
    up: bool


@dataclass(frozen=True)
class Trace:
    """A name, the changes in order of time, and when it ends."""

    name: str
    changes: tuple[Change, ...]
    until: float

    @property
    def peak(self) -> int:
        """Most nodes at one time."""
        there = most = 0
        for change in self.changes:
            there += 1 if change.up else -1
            most = max(most, there)
        return most

    @property
    def losses(self) -> int:
        """How often a node goes."""
        return sum(not c.up for c in self.changes)


def read(path: Path, seed: int = 0) -> Trace:
    """A recorded trace. seed: which nodes go, where the trace has numbers only.

    Raises:
        BadInput: the file is not there, or in none of the formats.
    """
    try:
        text = path.read_text()
        changes = _faults(text) if path.suffix == ".json" else _rows(list(csv.reader(text.splitlines())), seed)
    except OSError as error:
        raise BadInput(f"the trace {path} cannot be read", str(error.strerror), "Name a file that is there.") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BadInput(
            f"the trace {path} is in none of the known formats",
            str(error),
            "Known are rows of `ms,add|remove,node`, rows of `s,number`, and a JSON list of faults.",
        ) from error
    return _trace(path.stem, changes)


def _trace(name: str, changes: list[Change], until: float = 0.0) -> Trace:
    """Sorted, and without changes that change nothing."""
    there: set[str] = set()
    kept = []
    for change in sorted(changes, key=lambda c: c.at):
        if change.up != (change.node in there):
            there ^= {change.node}
            kept.append(change)
    if not any(c.up for c in kept):
        raise BadInput(f"the trace {name} has no node that comes", remedy="Name one that has.")
    return Trace(name, tuple(kept), max(until, kept[-1].at))


def _rows(rows: list[list[str]], seed: int) -> list[Change]:
    if len(rows[0]) == 3:
        for row in rows:
            if row[1] not in ("add", "remove"):
                raise ValueError(f"{row[1]!r} is neither add nor remove")
        return [Change(int(ms) / 1000.0, node, what == "add") for ms, what, node in rows]
    chance = random.Random(seed)
    there: list[str] = []
    changes: list[Change] = []
    for second, number in rows:
        at = float(second)
        while len(there) < int(number):
            there.append(f"n{len(changes)}")
            changes.append(Change(at, there[-1], True))
        while len(there) > int(number):
            changes.append(Change(at, there.pop(chance.randrange(len(there))), False))
    return changes


def _faults(text: str) -> list[Change]:
    events = json.loads(text)
    broken: dict[str, int] = {}
    changes = [Change(0.0, node, True) for node in sorted({e["node_id"] for e in events})]
    for event in sorted(events, key=lambda e: float(e["event_time"])):  # a node may have several faults at a time
        node, start = event["node_id"], event["event_type"] == "fault_start"
        broken[node] = broken.get(node, 0) + (1 if start else -1)
        if broken[node] == (1 if start else 0):
            changes.append(Change(float(event["event_time"]) * DAY_S, node, not start))
    return changes


def generate(kind: str, nodes: int, seed: int, hours: float = 2.0) -> Trace:
    """A trace from a seed.

    Args:
        kind: "spot" (preemptions in bursts of up to a tenth of the nodes, capacity returns after minutes), "faults"
            (single nodes break at random, 1,000 hours apart for each, and are repaired within the hour) or "churn"
            (every node comes and goes, 30 minutes at a time).

    Raises:
        BadInput: there is no such kind.
    """
    chance = random.Random(seed)
    until = hours * HOUR_S
    changes = [Change(0.0, f"n{i}", True) for i in range(nodes)]
    back: dict[str, float] = {}

    def away(node: str, at: float, seconds: float) -> None:
        if back.get(node, 0.0) <= at:
            back[node] = at + seconds
            changes.extend([Change(at, node, False), Change(at + seconds, node, True)])

    at = 0.0
    if kind == "spot":
        while (at := at + chance.expovariate(1 / 600.0)) < until:
            for node in chance.sample(range(nodes), max(1, int(nodes * chance.uniform(0.0, 0.1)))):
                away(f"n{node}", at + chance.uniform(0.0, 30.0), chance.expovariate(1 / 900.0) + 60.0)
    elif kind == "faults":
        while (at := at + chance.expovariate(nodes / (1000 * HOUR_S))) < until:
            away(f"n{chance.randrange(nodes)}", at, chance.uniform(300.0, HOUR_S))
    elif kind == "churn":
        while (at := at + chance.expovariate(nodes / 1800.0)) < until:
            away(f"n{chance.randrange(nodes)}", at, chance.expovariate(1 / 300.0) + 30.0)
    else:
        raise BadInput(f"there is no generated trace {kind!r}", remedy="Take spot, faults or churn.")
    return _trace(f"{kind}, seed {seed}", [c for c in changes if c.at <= until], until)
