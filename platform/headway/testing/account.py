"""What a drill comes to: the records of a run under fire, the faults, and the order of samples, turned into numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headway.core.digest import WORDS, Chain, of_ids
from headway.core.mixture import Walk

Record = Mapping[str, Any]
SLACK_S = 0.05
"""By which a detection may seem to come before its fault: two clocks' readings, a process apart."""


@dataclass(frozen=True)
class Account:
    """Printed by `headway drill JOB --json`.

    Args:
        same_samples: every step saw the samples that the order says, and the quiet run (if any) saw the same.
        same_weights: the weights at the end are those of the quiet run, to the bit; None without a quiet run.
        steps_repeated: commits of steps that had been committed before.
        samples_repeated: rows in them.
        samples_missed: rows that no step took, or that a step should have taken and did not.
        recoveries: cause, seconds from the fault to its detection and to the next committed step, and the fault.
        goodput: share of worker-seconds that ended in a committed step; None where the run has no ledger.
        ledger_s: worker-seconds by cause.
        faults: each with the time at which it was injected (Unix seconds; None: it was not) and its target.
        seed: of the random faults; None where a script was given.
        state: of the run under fire: finished, failed or interrupted.
        message: why, where the state needs a reason.
        steps: committed by it.
        bitwise: whether the job promises the same bits.
        healthy_killed: workers given up although nothing lasting was done to them: how many.
        killed: these, each with the time, and the cause that the run gave.
        benign: whether no fault was meant to cost a worker; then none may be given up.
        folder: of the two runs, where they were kept.
    """

    same_samples: bool
    same_weights: bool | None
    steps_repeated: int
    samples_repeated: int
    samples_missed: int
    recoveries: list[dict[str, Any]]
    goodput: float | None
    ledger_s: dict[str, float]
    faults: list[dict[str, Any]]
    seed: int | None
    state: str
    message: str
    steps: int
    bitwise: bool
    healthy_killed: int = 0
    killed: list[dict[str, Any]] = field(default_factory=list)
    benign: bool = False
    folder: str | None = None
    weights_sha256: dict[str, str | None] = field(default_factory=dict)
    samples_sha256: dict[str, str | None] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing was lost by the faults, and they took place: all of a script, at least one of random ones.

        A random fault may name a worker that never came to be, when another fault was there first.
        """
        kept = self.state == "finished" and self.same_samples and self.samples_missed == 0
        weights = not self.bitwise or self.same_weights is not False
        took_place = [fault["time"] is not None for fault in self.faults]
        spared = not (self.benign and self.healthy_killed)
        return kept and weights and spared and (all(took_place) if self.seed is None else any(took_place))

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Samples:
    """What became of the samples of a run.

    Args:
        same: all steps committed, each with its own samples.
        missed: rows that were not seen where the order has them.
        repeated_steps: commits beyond the first.
        repeated: rows in them.
    """

    same: bool
    missed: int
    repeated_steps: int
    repeated: int


def samples(
    order: Walk,
    total_steps: int,
    steps: Iterable[Record],
    events: Iterable[Record] = (),
    seen: Mapping[int, int] | None = None,
) -> Samples:
    """Hold a run's committed steps against the order of its samples.

    Args:
        order: of the job over its training set.
        total_steps: that the job asks for.
        steps: lines of steps.jsonl.
        events: lines of events.jsonl; those of the kind `restart` tell from which step on how many were done again.
        seen: how often each step was seen from outside to be committed again. The worse of the two accounts counts.
    """
    found = list(steps)
    times = Counter(step["step"] for step in found)
    states: dict[int, str] = {step["step"]: step["samples"] for step in found}
    missed = 0
    before = Chain().hexdigest()
    for number, lanes in zip(range(total_steps), lane_digests(order), strict=False):
        chain = Chain(before)
        chain.add(number, lanes)
        if states.get(number) != chain.hexdigest():
            missed += rows(order, number)
        before = states.get(number, chain.hexdigest())
    again = Counter({step: count - 1 for step, count in times.items() if count > 1})
    for event in events:
        if event["kind"] == "restart":
            again.update(range(event["from_step"], event["from_step"] + event["lost_steps"]))
    again |= Counter(seen or {})
    repeated = sum(count * rows(order, step) for step, count in again.items())
    return Samples(missed == 0 and len(times) == total_steps, missed, again.total(), repeated)


def rows(order: Walk, step: int) -> int:
    """Rows of a step of the run."""
    return sum(order.sizes(step % order.steps_per_epoch))


def lane_digests(order: Walk) -> Iterator[np.ndarray[Any, np.dtype[np.uint16]]]:
    """The digests of all lanes' sample ids, step by step for ever; each of shape [lanes, WORDS]."""
    epoch = 0
    while True:
        walks = [order.lane_ids(epoch, lane) for lane in range(order.lanes)]
        for step in range(order.steps_per_epoch):
            digests = np.zeros((order.lanes, WORDS), np.uint16)
            for lane, walk in enumerate(walks):
                ids = walk[step * order.lane_batch : (step + 1) * order.lane_batch]
                if len(ids):
                    digests[lane] = of_ids(ids)
            yield digests
        epoch += 1


def recoveries(events: Iterable[Record], injected: Sequence[Record], steps: Iterable[Record]) -> list[dict[str, Any]]:
    """The run's recoveries, with the seconds from the fault that each of them answers.

    A recovery that answers no fault (a replacement that joins) is timed from the last sign of life.

    Args:
        events: lines of events.jsonl.
        injected: records of `headway.testing.injector`.
        steps: lines of steps.jsonl.
    """
    events = list(events)
    found = [event for event in events if event["kind"] == "recovery"]
    times = sorted(step["time"] for step in steps)
    answers = [(event["detected_at"], _answer(event, injected)) for event in found]
    answers += [
        (restart["time"], _restart(restart, injected, times))
        for restart in events
        if restart["kind"] == "restart"
        and not any(event["detected_at"] <= restart["time"] <= event["resumed_at"] for event in found)
    ]
    return [answer for _, answer in sorted(answers, key=lambda pair: pair[0])]


def _answer(event: Record, injected: Sequence[Record]) -> dict[str, Any]:
    fault = _fault_of(event, injected)
    began = fault["time"] if fault else event["detected_at"] - event.get("silent_s", 0.0)
    return {
        "cause": event["cause"],
        "detected_s": _seconds(event["detected_at"] - began),
        "resumed_s": _seconds(event["resumed_at"] - began),
        "pause_s": _seconds(event.get("pause_s")),
        "step": event.get("step"),
        "fault": fault["fault"] if fault else None,
    }


def _restart(event: Record, injected: Sequence[Record], times: Sequence[float]) -> dict[str, Any]:
    """All workers, or the driver, were lost: the run went on from a checkpoint."""
    before = [fault for fault in injected if fault["time"] <= event["time"] + SLACK_S]
    fault = before[-1] if before else None
    began = fault["time"] if fault else event["time"]
    resumed = next((time for time in times if time >= event["time"]), None)
    return {
        "cause": "restarted",
        "detected_s": _seconds(event["time"] - began),
        "resumed_s": None if resumed is None else _seconds(resumed - began),
        "pause_s": None,
        "step": event["from_step"],
        "fault": fault["fault"] if fault else None,
    }


def _fault_of(event: Record, injected: Sequence[Record]) -> Record | None:
    """The latest fault before the detection that hit one of the recovery's workers, or its node."""
    workers = set(event.get("workers", ()))
    for fault in reversed(injected):
        target = fault["target"]
        hit = {worker["id"] for worker in target.get("workers", ())} & workers
        on_node = target.get("node_id") is not None and target["node_id"] == event.get("node_id")
        if (hit or on_node) and fault["time"] <= event["detected_at"] + SLACK_S:
            return fault
    return None


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(max(0.0, value), 4)
