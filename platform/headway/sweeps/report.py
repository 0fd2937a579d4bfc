"""What a sweep came to: read from its folder at any time, whoever led it and however it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from headway.sweeps.names import run_of
from headway.sweeps.seen.sight import rungs
from headway.sweeps.seen.view import Trial, View


class TrialReport(BaseModel):
    """A trial in numbers."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    trial: int
    """Its number."""
    run: str
    """Its run, in the same place; with repeats the first of them."""
    settings: dict[str, Any]
    """By the job's dotted keys."""
    state: str
    """waiting, running, standing, paused, finished, stopped (early), failed, diverged."""
    why: str
    """It is in that state."""
    step: int
    """Committed."""
    value: float | None
    """Of the metric, at its newest evaluation; null where it is no number."""
    best: float | None
    """The best of its evaluations."""
    best_step: int | None
    """Of that evaluation."""
    best_settings: dict[str, Any]
    """With which it came: others than `settings` where the trial went on with others since. Without any: `settings`."""
    best_origin: tuple[int, int] | None
    """`origin`, as it was then."""
    values: dict[str, float | None]
    """All metrics of its newest evaluation; null for what is no number."""
    evaluations: list[tuple[int, float | None]]
    """Step and value of the metric, in order; null for what is no number."""
    rungs: int
    """How many gates it came to."""
    worker_s: float
    """Seconds for which it had workers, times how many."""
    origin: tuple[int, int] | None
    """Trial and step whose weights it took over last, if it did."""


class SweepReport(BaseModel):
    """A sweep in numbers. Printed by `headway report SWEEP`, as JSON with --json; given by `headway.sweep`."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    sweep: str
    """Its name."""
    state: str
    """running, finished, stopped, interrupted, failed."""
    message: str
    """Why, where the state needs a reason."""
    metric: str
    """That was compared."""
    mode: str
    """min or max."""
    order: str
    """async, or strict: then the decisions do not hang on machines, and idle_s is the price."""
    best: TrialReport | None
    """The trial with the best evaluation, of those that neither diverged nor failed."""
    trials: list[TrialReport]
    """All, by number."""
    wanted: int | None
    """So many trials were asked for."""
    counts: dict[str, int]
    """How many are in which state."""
    rungs: dict[int, list[int]]
    """Which trials came to each gate, by its step."""
    workers: list[tuple[float, int]]
    """Workers that trained, over time: seconds of the sweep's clock, and how many from then on."""
    seconds: float
    """For which it was led."""
    worker_s: float
    """Worker-seconds that it held."""
    ledger_s: dict[str, float]
    """The same by cause: start, compute, communication, data, checkpoint, regroup, repeated, spare, idle."""
    goodput: float | None
    """Share of worker-seconds that ended in a committed step of a trial."""
    idle_s: float
    """Worker-seconds that were waited: for a word at a gate, for a trial, for others."""
    dollars: float | None
    """By the price of a worker's hour; null without."""
    importance: dict[str, float]
    """Share of each setting in the differences between trials, most important first; empty where it cannot be told."""
    importance_note: str
    """How far that is to be trusted, or why it is not told."""
    pictures: list[str]
    """Files, in `path`."""
    tracking: dict[str, Any]
    """MLflow's URI and run id, points sent and still waiting."""
    path: str
    """Folder of the sweep, or its URL."""


def of(view: View, path: str, more: Mapping[str, Any] | None = None) -> SweepReport:
    """The report of what is seen.

    Args:
        path: of the sweep.
        more: fields that are not to be seen: importance, pictures, tracking.
    """
    trials = {number: _trial(view.subject.sweep, trial) for number, trial in sorted(view.trials.items())}
    ledger = {cause: round(seconds, 3) for cause, seconds in view.ledger_s.items()}
    given: dict[str, Any] = {"importance": {}, "importance_note": "", "pictures": [], "tracking": {}, **(more or {})}
    return SweepReport(
        sweep=view.subject.sweep,
        state=view.state,
        message=view.message,
        metric=view.subject.metric,
        mode=view.subject.mode,
        order=view.subject.order,
        best=trials[view.best.number] if view.best is not None else None,
        trials=list(trials.values()),
        wanted=view.subject.trials,
        counts=dict(view.counts),
        rungs=rungs(view.trials),
        workers=together(view),
        seconds=round(view.seconds, 3),
        worker_s=round(view.worker_s, 3),
        ledger_s=ledger,
        goodput=round(view.goodput, 4) if view.goodput is not None else None,
        idle_s=ledger.get("idle", 0.0),
        dollars=round(view.dollars, 4) if view.dollars is not None else None,
        path=path,
        **given,
    )


def together(view: View) -> list[tuple[float, int]]:
    """How many workers all trials had, over time."""
    changes: dict[float, int] = {}
    for trial in view.trials.values():
        before = 0
        for at, workers in trial.held:
            changes[at] = changes.get(at, 0) + workers - before
            before = workers
    found, now = [], 0
    for at, change in sorted(changes.items()):
        now += change
        if change:
            found.append((round(at, 3), now))
    return found


def _trial(sweep: str, trial: Trial) -> TrialReport:
    return TrialReport(
        trial=trial.number,
        run=run_of(sweep, trial.number),
        settings=trial.settings,
        state=trial.state,
        why=trial.why,
        step=trial.step,
        value=_finite(trial.value),
        best=trial.best,
        best_step=trial.best_step,
        best_settings=trial.settings if trial.best_settings is None else trial.best_settings,
        best_origin=trial.best_origin,
        values={name: _finite(value) for name, value in trial.values.items()},
        evaluations=[(point.step, _finite(point.value)) for point in trial.points],
        rungs=trial.rung,
        worker_s=round(trial.worker_s, 3),
        origin=trial.origin,
    )


def _finite(value: float | None) -> float | None:
    """None for what JSON has no word for."""
    return value if value is not None and math.isfinite(value) else None
