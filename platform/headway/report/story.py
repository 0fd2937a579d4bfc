"""A run as a document, from its folder, at any time: see `headway.report.shape`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headway.core import footprints, ledger
from headway.core.cost import so_far
from headway.report import curves, happenings, inputs, logged, machines, money, origin, spending, words
from headway.report.happenings import Happenings
from headway.report.shape import Account, Best, Headline, Run, Saved, Story
from headway.runs import columns
from headway.runs.columns import Measurements, Steps
from headway.runs.listing import GONE

if TYPE_CHECKING:
    from headway.job import Job
    from headway.runs import RunFolder

PLANNED = ("joined", "drained", "resized", "rebalanced")
TABLE_BYTES = 64 << 10
METRICS = 50


def tell(run: RunFolder) -> Story:
    """All there is to say of a run, whether it is at its end or not. A million steps take about two seconds.

    Raises:
        BadInput: the folder is not a run.
        OutOfReach: its checkpoints are in a store that does not answer.
    """
    facts = run.read()
    created = float(facts.get("created") or 0.0)
    steps = columns.steps(run.path / "steps.jsonl")
    measured = columns.measurements(run.path / "metrics.jsonl", facts.get("metrics") or ())
    times = steps.time[~np.isnan(steps.time)]
    happened = happenings.told(_events(run, facts), created, lambda at: int(np.searchsorted(times, at, side="right")))
    job = origin.job_of(run)
    cost = money.known(run)
    account = spending.told(run.path, facts, created, cost)
    data = inputs.told(run.path, facts)
    told = origin.job(run, job, facts)
    head = headline(facts, job, steps, measured, happened, account)
    about = _run(run, facts, steps, measured, happened)
    task = origin.task(run, job, facts)
    saved = _checkpoints(run, happened)
    around = origin.environment(run, facts)
    known = words.Known(
        run=about,
        task=task,
        job=told,
        data=data,
        headline=head,
        apart=str((facts.get("lanes_apart") or {}).get("why", "")),
        lost={c: n for c, n in happened.causes.items() if c == "drained" or c not in PLANNED},
        kept=happened.from_kept,
        checkpoint=happened.from_checkpoint,
        ledger=account.seconds,
        validation={n: curves.number(float(m.value[-1])) for n, m in measured.by_name.items() if not m.recorded},
        aside=sum(each.quarantined for each in data),
        saved=[each.step for each in saved],
        command=origin.command(run, about.local),
    )
    return Story(
        run=about,
        words=words.of(known),
        task=task,
        job=told,
        data=data,
        headline=head,
        series=curves.series(steps, measured, created),
        marks=happened.marks,
        workers=happened.workers,
        lanes=happened.lanes,
        ledger=account,
        recoveries=happened.recoveries,
        checkpoints=saved,
        evaluations=_evaluations(run, measured),
        figures=logged.told(run.path),
        events=happened.events,
        nodes=machines.told(run.path, created),
        environment={name: each for name, each in around.items() if name != "git"},
        reproduce=origin.reproduce(run, facts, told, data, around, run.samples() or "", about.local),
    )


def _events(run: RunFolder, facts: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """In order. Earlier releases kept the workers over time with the facts."""
    yield from ({**each, "kind": "workers"} for each in facts.get("workers") or ())
    yield from columns.lines(run.events_file)


def headline(
    facts: Mapping[str, Any],
    job: Job | None,
    steps: Steps,
    measured: Measurements,
    happened: Happenings,
    account: Account,
) -> Headline:
    """The numbers of the run."""
    count, per_epoch = len(steps.step), facts.get("steps_per_epoch")
    spent = sum(account.seconds.values())
    dollars = round(sum(account.dollars.values()), 6) if account.dollars else so_far(facts, spent)
    unplanned = sum(times for cause, times in happened.causes.items() if cause not in PLANNED)
    return Headline(
        steps=count,
        total_steps=facts.get("total_steps"),
        epochs=round(count / per_epoch, 4) if per_epoch else None,
        samples=int(np.nansum(steps.rows)),
        goodput=round(ledger.goodput(account.seconds), 4) if spent else None,
        exchanged_bytes=facts.get("exchanged_bytes"),
        workers_max=max((each.workers for each in happened.workers), default=1 if count else 0),
        worker_seconds=round(spent, 1) if spent else None,
        dollars=dollars,
        best=_best(job, measured),
        metrics={name: curves.number(float(each.value[-1])) for name, each in list(measured.by_name.items())[:METRICS]},
        loss=curves.number(float(steps.loss[-1])) if count else None,
        losses=happened.lost_workers,
        joins=happened.causes.get("joined", 0),
        recoveries=unplanned,
        repeated_steps=happened.repeated_steps,
        repeated_seconds=account.seconds.get("repeated"),
        longest_pause_s=happened.longest_pause_s,
        starts=happened.starts,
        checkpoints=len(happened.saved),
        **_memory(facts),
    )


def _memory(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The most that a worker took."""
    known, planned = facts.get("memory_peak") or {}, facts.get("memory_planned")
    found = footprints.largest(known)
    if found is None:
        return {}
    size = found[1].get("device", found[1].get("host"))
    return {"memory": footprints.sentence(known, planned), "memory_bytes": size, "memory_planned": planned}


def _best(job: Job | None, measured: Measurements) -> Best | None:
    """By the metric that the job keeps the best checkpoint of."""
    name = job.checkpoint.metric if job is not None else None
    if job is None or name is None or name not in measured.by_name:
        return None
    found = curves.best(measured.by_name[name], job.checkpoint.mode)
    if found is None:
        return None
    return Best(metric=name, mode=job.checkpoint.mode, value=curves.number(found[0]), step=found[1])


def _run(run: RunFolder, facts: Mapping[str, Any], steps: Steps, measured: Measurements, happened: Happenings) -> Run:
    state, message = str(facts.get("state") or "running"), str(facts.get("message") or "")
    if state == "running" and not run.is_led():
        state, message = "interrupted", GONE
    created, ended = float(facts.get("created") or 0.0), facts.get("ended")
    last = created + happened.last
    if len(steps.time) and math.isfinite(steps.time[-1]):
        last = max(last, float(steps.time[-1]))
    until = ended if ended and state != "running" else last
    damaged = steps.damaged + measured.damaged
    notes = [str(note) for note in facts.get("notes") or ()]
    if damaged:
        notes.append(f"{damaged} lines of its records are damaged, and left out")
    submission = facts.get("submission") or {}
    return Run(
        name=run.name,
        state=state,
        message=message,
        cause=facts.get("cause") if state == "failed" else None,
        by=str(submission.get("by") or ""),
        created=created,
        started=facts.get("started"),
        ended=ended,
        seconds=round(until - created, 3) if until > created else None,
        path=run.where,
        local=bool(facts.get("in_process")),
        notes=notes,
    )


def _checkpoints(run: RunFolder, happened: Happenings) -> list[Saved]:
    from headway.checkpoint.store import committed

    return [
        Saved(
            step=each.step,
            seconds=happened.saved.get(each.step),
            bytes=each.bytes,
            metrics={name: curves.number(value) for name, value in (each.facts.get("metrics") or {}).items()},
            path=each.where,
        )
        for each in committed(run.checkpoint_root, run.counting)
    ]


def _evaluations(run: RunFolder, measured: Measurements) -> list[dict[str, Any]]:
    """The newest numbers, and the newest tables."""
    ends = [int(each.step[-1]) for each in measured.by_name.values() if not each.recorded]
    found: dict[int, dict[str, Any]] = {}
    if ends:
        at = max(ends)
        newest = {n: m for n, m in measured.by_name.items() if not m.recorded and m.step[-1] == at}
        values = {name: curves.number(float(each.value[-1])) for name, each in newest.items()}
        found[at] = {"step": at, "values": values, "tables": {}}
    for name, (step, table) in columns.newest_tables(run.path / "metrics.jsonl").items():
        if len(json.dumps(table)) <= TABLE_BYTES:
            entry = found.setdefault(step, {"step": step, "values": {}, "tables": {}})
            rows = table if any(isinstance(row, list) for row in table) else [table]
            entry["tables"][name] = [row if isinstance(row, list) else [row] for row in rows]
    return [found[step] for step in sorted(found)]
