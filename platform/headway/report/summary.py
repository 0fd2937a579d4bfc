"""What a run came to: read from its folder, whoever made it and however it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from headway.core import ledger
from headway.report import money
from headway.runs import RunFolder, accounts, columns

RECOVERY = (
    "cause",
    "workers",
    "generation",
    "step",
    "detected_at",
    "resumed_at",
    "silent_s",
    "pause_s",
    "lost_steps",
)


class Report(BaseModel):
    """A run in numbers. Printed by `headway report RUN`, as JSON with --json."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    run: str
    """Name of the run."""
    state: str
    """running, finished, stopped (on request), interrupted (by a signal, or its leader died), failed; all but finished
    can be resumed."""
    message: str
    """Why, where the state needs a reason."""
    cause: str | None
    """Whose failure it was, where it failed: task (code, data, loss), or platform (machines, Ray, the store)."""
    steps: int
    """Committed optimiser updates."""
    total_steps: int | None
    """Updates that the job asks for."""
    epoch: float | None
    """Walks through the training data, with the fraction of the one under way."""
    samples_seen: int
    """Rows in committed steps."""
    samples_sha256: str | None
    """Digest of the sample ids by committed step: equal digests mean the same samples in the same steps."""
    weights_sha256: str | None
    """Digest of parameters and buffers by name at the end; null while the run is not at an end."""
    metrics: dict[str, float]
    """The latest validation metrics."""
    evaluations: list[dict[str, Any]]
    """Every evaluation: step and values; tables where a metric is more than a number."""
    losses: list[float]
    """Training loss, one number a step."""
    checkpoints: list[dict[str, Any]]
    """Checkpoints on disk, oldest first: step, path, bytes, metrics."""
    checkpoint_blocked_s: float
    """Seconds for which training stood still for checkpoints."""
    checkpoints_skipped: int
    """Checkpoints that were due while the one before was still being written."""
    records_dropped: int
    """Records that came faster than they could be kept."""
    workers: list[dict[str, Any]]
    """Workers over time: from which step on, how many, when (Unix seconds)."""
    goodput: float | None
    """Share of worker-seconds that ended in committed steps."""
    ledger_s: dict[str, float]
    """Worker-seconds by cause: start, compute, communication, data, checkpoint, regroup, repeated, idle."""
    exchanged_bytes: int | None = None
    """Bytes that workers sent to each other; null where nobody counted them."""
    recoveries: list[dict[str, Any]]
    """Every change of membership: cause, workers, step, when detected and resumed (Unix seconds), pause_s."""
    quarantined: dict[str, int]
    """Rows that were set aside because they could not be read or were not as the manifest says, by dataset."""
    replicas: dict[str, Any]
    """The newest step before which all replicas had one digest, and that digest; empty with one worker."""
    seconds: float | None
    """Wall clock from the first start to the end, pauses between resumes included."""
    tracking: dict[str, Any]
    """MLflow's URI and run id, points sent and still waiting."""
    path: str
    """Folder of the run, or its URL."""
    lanes_apart: str = ""
    """Why lanes were computed one by one though they may go together, and since which step; else empty."""
    memory: dict[str, Any] = {}
    """Most bytes of memory, in the newest start: workers (of each host, base, device: of its process, of that before
    there was a model, of its device), and planned, what the plan said beside the base for each of the fewest workers.
    Empty where nothing is known."""
    dollars: float | None = None
    """That it has cost; null where nothing has a price."""
    dollars_by: dict[str, float] = {}
    """By cause of the ledger, head and storage, where machines have prices; `headway cost` tells more."""
    notes: list[str] = []
    """What does not hold of it because of its data: of a stream, say."""
    resume_with: list[str] = []
    """Settings without which it would end again at once: of a run whose money is spent, more of it."""


def load(run: RunFolder) -> Report:
    """The report of a run, at any time.

    Raises:
        BadInput: the folder is not a run.
    """
    from headway.checkpoint.store import committed

    facts = run.read()
    steps = columns.steps(run.path / "steps.jsonl")
    committed_steps = len(steps.step)
    state = facts.get("state", "running")
    message = facts.get("message", "")
    if state == "running" and not run.is_led():
        state, message = "interrupted", "the process that led the run is gone"
    checkpoints = [
        {"step": c.step, "path": c.where, "bytes": c.bytes, "metrics": c.facts["metrics"]}
        for c in committed(run.checkpoint_root, run.counting)
    ]
    evaluations = run.evaluations()
    per_epoch = facts.get("steps_per_epoch")
    ended, account, cost = facts.get("ended"), accounts.known(run.path, facts), money.known(run)
    return Report(
        run=run.name,
        state=state,
        message=message,
        cause=facts.get("cause") if state == "failed" else None,
        steps=committed_steps,
        total_steps=facts.get("total_steps"),
        epoch=round(committed_steps / per_epoch, 4) if per_epoch else None,
        samples_seen=int(np.nansum(steps.rows)),
        samples_sha256=run.samples(),
        weights_sha256=facts.get("weights_sha256") if state != "running" else None,
        metrics={k: v for e in evaluations for k, v in e["values"].items()},
        evaluations=evaluations,
        losses=steps.loss.tolist(),
        checkpoints=checkpoints,
        checkpoint_blocked_s=round(facts.get("checkpoint_blocked_s", 0.0), 4),
        checkpoints_skipped=facts.get("checkpoints_skipped", 0),
        records_dropped=facts.get("records_dropped", 0),
        workers=run.workers(),
        goodput=facts.get("goodput", round(ledger.goodput(account), 4) if account else None),
        ledger_s=account,
        exchanged_bytes=accounts.exchanged(run.path, facts),
        recoveries=[{key: event[key] for key in RECOVERY} for event in run.events() if event["kind"] == "recovery"],
        quarantined={source: sum(found.values()) for source, found in facts.get("quarantine", {}).items()},
        replicas=facts.get("replicas", {}),
        seconds=round(ended - facts["created"], 3) if ended else None,
        tracking=facts.get("tracking", {}),
        path=run.where,
        lanes_apart=(facts.get("lanes_apart") or {}).get("why", ""),
        memory=peaks(facts),
        dollars=cost.dollars if cost is not None else None,
        dollars_by=cost.by_cause if cost is not None and cost.by == "machines" else {},
        notes=facts.get("notes", []),
        resume_with=facts.get("resume_with", []) if state != "finished" else [],
    )


def peaks(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of workers' memory, see `Report.memory`."""
    known = facts.get("memory_peak")
    return {"workers": known, "planned": facts.get("memory_planned")} if known else {}
