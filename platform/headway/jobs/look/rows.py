"""A run in a line: from its own records, and from Ray's list of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from headway.core.known import Records, Submission, standing
from headway.runs import Brief

MOST = 300
"""Characters of Ray's words."""


class Job(Protocol):
    """A submission in Ray's list, see `headway.jobs.api.client.RayJob`."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def started(self) -> float | None: ...
    @property
    def ended(self) -> float | None: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def kind(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def by(self) -> str: ...
    @property
    def runs(self) -> str: ...


@dataclass(frozen=True)
class Row:
    """A run in a line. What is None, or empty, is not known.

    Args:
        run: its name.
        state: starting, running, finished, stopped, interrupted, failed, broken (no whole run) or unknown.
        waits: why nobody trains, or why no more is known.
        message: why, where the state needs a reason; `cause`: task or platform.
        step, total_steps: committed, and asked for.
        workers: that train now; least, most: that are asked for.
        goodput: share of worker-seconds that ended in committed steps.
        recoveries: how often it went on after a loss.
        since: Unix seconds, since when it is in that state, or waits.
        left_s: seconds that the steps left will take, as it looks.
        heard: Unix seconds of the newest word of itself.
        unheard_since: it is led as far as is known, and has not been heard since then (Unix seconds).
        by: who submitted it last; `submission`: Ray's id of that, and `ray`: what Ray says of it.
        path: of the run.
        kind: run; or sweep, whose steps are trials that are over.
        sweep: that it is a trial of.
    """

    run: str
    state: str
    waits: str = ""
    message: str = ""
    cause: str = ""
    step: int | None = None
    total_steps: int | None = None
    workers: int | None = None
    least: int | None = None
    most: int | None = None
    goodput: float | None = None
    recoveries: int | None = None
    since: float | None = None
    left_s: float | None = None
    heard: float | None = None
    unheard_since: float | None = None
    by: str = ""
    submission: str = ""
    ray: str = ""
    path: str = ""
    kind: str = "run"
    sweep: str = ""


def row(run: str, path: str, brief: Brief | None, jobs: Sequence[Job], unread: str = "", unasked: str = "") -> Row:
    """A run's line.

    Args:
        path: of the run.
        brief: of its place; None where that has none, or was not read.
        jobs: its submissions in Ray's list, oldest first.
        unread: why its place could not be read; empty where it was.
        unasked: why Ray was not asked; empty where it was.
    """
    job = _telling(brief, jobs)
    said = Submission(job.status, words(job), job.started, job.ended) if job is not None else None
    stands = standing(_records(brief), said, unread, unasked)
    named = {
        "by": job.by if job is not None else "",
        "submission": job.id if job is not None else "",
        "ray": job.status if job is not None else "",
        "path": path,
    }
    state = {"state": stands.state, "waits": stands.waits, "message": stands.message, "since": stands.since}
    if brief is None:
        return Row(run, **state, **named)  # type: ignore[arg-type]
    trains = stands.state == "running" and stands.unheard_since is None
    return Row(
        run=run,
        state=stands.state,
        waits=stands.waits,
        message=stands.message,
        cause=brief.cause if stands.state == brief.state else "",
        step=brief.steps,
        total_steps=brief.total_steps,
        workers=brief.workers if trains else None,
        least=brief.least,
        most=brief.most,
        goodput=brief.goodput,
        recoveries=brief.recoveries,
        since=stands.since,
        left_s=brief.left_s if trains else None,
        heard=brief.last,
        unheard_since=stands.unheard_since,
        by=named["by"] or brief.by,
        submission=named["submission"] or brief.submission,
        ray=named["ray"],
        path=path,
        kind=brief.kind,
        sweep=brief.sweep,
    )


def _telling(brief: Brief | None, jobs: Sequence[Job]) -> Job | None:
    """The submission that says something of how the run stands: the one that leads it, or led it last. Where that is
    over, also one that is to go on with it; where no run was made, the newest."""
    if brief is None:
        return jobs[-1] if jobs else None
    alive = [job for job in jobs if job.ended is None]
    if brief.state != "running" and not brief.unclosed and alive:
        return alive[-1]
    return next((job for job in jobs if job.id == brief.submission), None)


def words(job: Job) -> str:
    """What Ray says of a job, as long as a row may have it."""
    line = job.message
    return line if len(line) <= MOST else f"{line[: MOST - 3]}..."


def _records(brief: Brief | None) -> Records | None:
    if brief is None:
        return None
    state, message = ("running", "") if brief.unheard else (brief.state, brief.message)
    return Records(state, message, brief.waits, brief.since, brief.last, brief.unheard)
