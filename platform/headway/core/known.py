"""How a run stands, by what its own records and Ray's list of jobs say: either may be silent, old, or out of reach.

That something cannot be asked says nothing of the run: it is running until somebody who knows says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

STARTING = "starting"
"""A submission that has made no run yet, or has not gone on with it yet."""
OF_RAY = {"PENDING": STARTING, "RUNNING": "running", "SUCCEEDED": "finished", "FAILED": "failed", "STOPPED": "stopped"}
"""What a job's state in Ray's list says of a run of which nothing else is known."""


@dataclass(frozen=True)
class Records:
    """What the run's place says.

    Args:
        state: running, or how it ended.
        message: why.
        waits: why nobody trains.
        since: Unix seconds, since when that is so.
        last: Unix seconds of the last that was heard.
        unheard: it is running as far as it was heard, and has not been heard for long.
    """

    state: str
    message: str = ""
    waits: str = ""
    since: float | None = None
    last: float = 0.0
    unheard: bool = False


@dataclass(frozen=True)
class Submission:
    """What Ray says of the newest job that leads, or is to lead, the run.

    Args:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        message: Ray's words.
        started, ended: Unix seconds.
    """

    status: str
    message: str = ""
    started: float | None = None
    ended: float | None = None

    @property
    def alive(self) -> bool:
        return self.status in ("PENDING", "RUNNING")


@dataclass(frozen=True)
class Standing:
    """How it stands.

    Args:
        state: starting, running, finished, stopped, interrupted, failed, broken or unknown.
        message: why, where the state needs a reason.
        waits: why nobody trains, or why no more is known.
        since: Unix seconds, since when that is so.
        unheard_since: the same, where nobody who leads it was heard since then.
    """

    state: str
    message: str = ""
    waits: str = ""
    since: float | None = None
    unheard_since: float | None = None


def standing(records: Records | None, job: Submission | None, unread: str = "", unasked: str = "") -> Standing:
    """How a run stands.

    Args:
        records: of its place; None where there are none, or it was not read.
        job: of Ray's list; None where there is none, or it was not asked.
        unread: why the place could not be read; empty where it was.
        unasked: why Ray could not be asked, or that nobody wanted it; empty where it was.
    """
    if records is None:
        return _of_ray(job, unread) if job is not None else Standing("unknown", unread or unasked)
    if records.state != "running" or (records.unheard and job is not None and not job.alive):
        return _over(records, job)
    if records.unheard:
        return Standing("running", "", f"not heard of; {_ray_says(job, unasked)}", records.last, records.last)
    if job is not None and not job.alive and (job.ended or 0.0) > (records.since or 0.0):
        waits = f"Ray says that its driver has ended ({_words(job)}); not closed yet"
        return Standing("running", records.message, waits, job.ended)
    return Standing("running", records.message, records.waits, records.since)


def _of_ray(job: Submission, unread: str) -> Standing:
    """Nothing is known of it but that."""
    since = job.started if job.alive else job.ended
    if unread:
        waits = f"its place cannot be read from here: {unread}"
        return Standing(OF_RAY.get(job.status, "unknown"), "" if job.alive else job.message, waits, since)
    if job.status == "PENDING":
        return Standing(STARTING, "", "Ray has not begun it yet", since)
    if job.status == "RUNNING":
        return Standing(STARTING, "", "its driver looks at the job there; it has no run yet", since)
    return Standing(OF_RAY.get(job.status, "unknown"), f"no run is there; Ray says: {_words(job)}", "", since)


def _over(records: Records, job: Submission | None) -> Standing:
    """It has ended, and may have been submitted again since."""
    if job is not None and job.alive and records.since is not None and (job.started or 0.0) > records.since:
        return Standing(STARTING, "", f"it was {records.state}, and is to go on", job.started)
    if records.state != "running":
        return Standing(records.state, records.message, "", records.since)
    assert job is not None
    reason = f"its driver has ended without a word, Ray says ({_words(job)})"
    return Standing("interrupted", reason, "", job.ended or records.last)


def _ray_says(job: Submission | None, unasked: str) -> str:
    if unasked:
        return unasked
    return f"Ray says {job.status}" if job is not None else "Ray knows no job of it"


def _words(job: Submission) -> str:
    return f"{job.status}: {job.message}" if job.message else job.status
