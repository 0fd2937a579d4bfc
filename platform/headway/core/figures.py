"""A run in figures: what its recorder sees, folded into the gauges and counters of `headway.core.families`.

Labels have few values whatever the run does: causes are those that are known; metrics, workers, nodes and datasets are
counted, and cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headway.core import ledger
from headway.core.cost import Paid, Terms
from headway.core.families import LOST_BY, MOST_NODES, OF_A_RUN, STATES

Labels = tuple[str, ...]
Sample = tuple[str, Labels, float]
"""A family's name without the prefix; the values of its own labels, in their order; the value."""
Said = Mapping[str, Any]

ODD = (KeyError, TypeError, ValueError, AttributeError)
COUNTED = ("recovery", "restart", "replica")
"""Kinds of events that are counted over all starts of a run."""
FROM_ZERO = ("samples", "lost_steps", "checkpoint_blocked_seconds", "checkpoint_failures", "exchanged_bytes")
_NODES = {"node_cpu_ratio": "cpu", "node_memory_used_ratio": "memory", "node_gpu_ratio": "gpu"}
_FLOWS = {
    "node_network_bytes_total": {"received_bytes": "received", "sent_bytes": "sent"},
    "node_disk_bytes_total": {"read_bytes": "read", "written_bytes": "written"},
}


@dataclass(frozen=True)
class Subject:
    """The run, as it is known before it begins. workers: fewest and most; digest: of all that decides its result."""

    task: str = ""
    digest: str = ""
    workers: tuple[int, int] = (1, 1)


class Figures:
    """See the module. For one thread at a time.

    Args:
        subject: whose figures they are.
        terms: by which it is said what it costs.
        facts: run.json of the starts before; empty for the first.
        events: of the starts before, in order.
        step: steps committed so far.
    """

    def __init__(
        self,
        subject: Subject,
        terms: Terms | None = None,
        facts: Said | None = None,
        events: Iterable[Said] = (),
        step: int = 0,
    ) -> None:
        facts = facts or {}
        self._terms = terms or Terms()
        self._before: Mapping[str, float] = facts.get("ledger_before", {})
        self._paid = Paid.of(facts)
        self._dollars: float | None = None
        """What machines have cost, where they have prices."""
        self._values: dict[str, dict[Labels, float]] = {name: {} for name in OF_A_RUN}
        for name in FROM_ZERO:
            self._set(f"{name}_total", 0)
        self._set("replica_mismatches_total", 0)
        for cause in LOST_BY:
            self._set("recoveries_total", 0, cause)
            self._set("recovery_seconds_total", 0, cause)
        self._set("run_info", 1, subject.task, subject.digest)
        self._set("step", step)
        self._set("workers", 0)
        self._set("workers_min", subject.workers[0])
        self._set("workers_max", subject.workers[1])
        self._state("waiting")
        self._spent({}, None)
        self._recall(facts, events)

    def samples(self) -> Iterator[Sample]:
        """All that is known now."""
        for name, values in self._values.items():
            for labels, value in values.items():
                yield name, labels, value

    def event(self, event: Said) -> None:
        """Something that the recorder is told of the membership, or tells itself."""
        self._fold("heard", event)

    def record(self, record: Said) -> None:
        """Something that a worker told the recorder, once."""
        self._fold("took", record)

    def over(self, state: str) -> None:
        """The start is at its end."""
        self._state(state)
        self._set("workers", 0)

    def _fold(self, how: str, said: Said) -> None:
        taken = getattr(self, f"_{how}_{said['kind']}", None)
        if taken is not None:
            taken(said)

    # Of starts before

    def _recall(self, facts: Said, events: Iterable[Said]) -> None:
        """What another release left out, or a disk has damaged, is passed over: no run ends for a figure."""
        for event in events:
            with suppress(*ODD):
                if event["kind"] in COUNTED:
                    self.event(event)
        with suppress(*ODD):
            self._add("checkpoint_blocked_seconds_total", facts.get("checkpoint_blocked_s", 0.0))
        with suppress(*ODD):
            for source, places in facts.get("quarantine", {}).items():
                self._set("quarantined_rows_total", sum(places.values()), source)
        with suppress(*ODD):
            if facts.get("checkpoint"):
                self._took_checkpoint(facts["checkpoint"])
        if facts.get("total_steps"):
            self._set("steps_planned", facts["total_steps"])

    # Of the membership

    def _heard_waits(self, event: Said) -> None:
        self._state("waiting" if event["reason"] else "running")

    def _heard_ledger(self, event: Said) -> None:
        self._set("workers", event["workers"])
        self._spent(event["seconds"], event["goodput"])
        if "exchanged_bytes" in event:
            self._set("exchanged_bytes_total", event["exchanged_bytes"])
        if "lane_s" in event:
            self._all("worker_lane_seconds", {(worker,): seconds for worker, seconds in event["lane_s"].items()})

    def _heard_generation(self, event: Said) -> None:
        self._state("running")  # where workers are there at once, nobody is told that they were waited for
        self._set("generation", event["generation"])
        self._set("workers", event["workers"])

    def _heard_outlay(self, event: Said) -> None:
        """What the machines have cost goes before a price of workers' hours."""
        self._dollars = event["dollars"]

    def _heard_recovery(self, event: Said) -> None:
        self._add("recoveries_total", 1, event["cause"])
        self._add("recovery_seconds_total", event["pause_s"], event["cause"])

    def _heard_restart(self, event: Said) -> None:
        self._add("lost_steps_total", event["lost_steps"])

    def _heard_replica(self, event: Said) -> None:
        self._add("replica_mismatches_total", 1)

    def _heard_quarantine(self, event: Said) -> None:
        self._set("quarantined_rows_total", event["total_rows"], event["source"])

    def _heard_resize(self, event: Said) -> None:
        self._set("workers_min", event["min"])
        self._set("workers_max", event["max"])

    def _heard_nodes(self, event: Said) -> None:
        """What nodes say of themselves; those that say nothing any more have no figures."""
        nodes = dict(list(event["nodes"].items())[:MOST_NODES])
        for name, key in _NODES.items():
            self._all(name, {(node,): said[key] for node, said in nodes.items() if said.get(key) is not None})
        for name, flows in _FLOWS.items():
            each = ((node, said, key, way) for node, said in nodes.items() for key, way in flows.items())
            self._all(name, {(node, way): said[key] for node, said, key, way in each if key in said})

    # Of workers

    def _took_began(self, record: Said) -> None:
        self._set("step", record["step"])
        self._set("steps_planned", record["total_steps"])

    def _took_step(self, record: Said) -> None:
        self._set("step", record["step"] + 1)
        self._set("epoch", record["epoch"])
        self._set("loss", record["loss"])
        self._set("learning_rate", record["lr"])
        self._add("samples_total", record["rows"])
        self._set("last_step_timestamp_seconds", record["time"])

    def _took_metrics(self, record: Said) -> None:
        for name, value in record["values"].items():
            self._set("validation", value, name)

    def _took_checkpoint_begun(self, record: Said) -> None:
        self._add("checkpoint_blocked_seconds_total", record["blocked_s"])

    def _took_checkpoint(self, record: Said) -> None:
        self._set("checkpoint_step", record["step"])
        self._set("checkpoint_timestamp_seconds", record["time"])
        self._set("checkpoint_bytes", record["bytes"])

    def _took_checkpoint_failed(self, record: Said) -> None:
        self._add("checkpoint_failures_total", 1)

    # Figures

    def _spent(self, seconds: Mapping[str, float], goodput: float | None) -> None:
        """By the workers of this start; those of earlier ones have spent theirs."""
        whole = ledger.total([self._before, seconds])
        for cause, each in whole.items():
            self._set("worker_seconds_total", each, cause)
        if self._before or goodput is not None:
            self._set("goodput_ratio", ledger.goodput(whole))
        dollars = self._terms.cost(sum(whole.values()), self._paid) if self._dollars is None else self._dollars
        if dollars is not None:
            self._set("dollars_total", dollars)
        used = self._terms.used(sum(whole.values()), dollars)
        if used is not None:
            self._set("budget_used_ratio", used)

    def _state(self, state: str) -> None:
        for each in STATES:
            self._set("run_state", float(each == state), each)

    def _set(self, name: str, value: float, *labels: str) -> None:
        values = self._values[name]
        if labels in values or len(values) < OF_A_RUN[name].most:
            values[labels] = float(value)

    def _add(self, name: str, value: float, *labels: str) -> None:
        self._set(name, self._values[name].get(labels, 0.0) + value, *labels)

    def _all(self, name: str, values: dict[Labels, float]) -> None:
        """In place of those that there were; the largest where there are too many."""
        most = OF_A_RUN[name].most
        if len(values) > most:
            values = dict(sorted(values.items(), key=lambda each: -each[1])[:most])
        self._values[name] = values
