"""What is asked when somebody wants to know of runs: the place that keeps them, and a cluster's list of jobs.

Either may be out of reach, which says nothing of the runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from headway import runs as kept
from headway.errors import BadInput, HeadwayError, nearest
from headway.jobs.look.rows import Job
from headway.runs import Place
from headway.runs.place import SWEEP, is_url, split
from headway.runs.refusals import no_run_but_a_sweep

PATIENCE_S = ANSWER_S = 4.0
"""So long a cluster is asked that does not answer; and so long an answer is waited for."""
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
LEADS = ("train", "resume")

T = TypeVar("T")


@dataclass(frozen=True)
class Unread:
    """Something that could not be asked, why in a few words, and all that an error says of it."""

    what: str
    reason: str
    text: str = ""

    def __str__(self) -> str:
        return self.text or f"{self.what} cannot be read: {self.reason}"


def cluster(address: str | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The cluster to be asked: as it was said, else of the environment; None where there is none."""
    if address is not None:
        return address
    named = [environ.get(name, "") for name in ADDRESSES]
    return next((found for found in named if found.startswith(("http://", "https://"))), None)


def jobs(address: str | None) -> tuple[Sequence[Job] | None, Unread | None]:
    """All in the cluster's list; None where there is no cluster to be asked, or it could not be.

    Raises:
        BadInput: the address is none.
    """
    where = cluster(address)
    if where is None:
        return None, None
    from headway.jobs.api.client import RayJobs

    api = replace(RayJobs.at(address, PATIENCE_S), answer_s=ANSWER_S)
    return tried(where, api.jobs)


def tried(what: str, action: Callable[[], T]) -> tuple[T | None, Unread | None]:
    """What it gives; or why it could not be asked."""
    try:
        return action(), None
    except HeadwayError as error:
        return None, Unread(what, error.reason or error.fact, str(error))


def nothing(*unread: Unread | None) -> BadInput:
    """Nobody answered."""
    told = "; ".join(f"{each.what}: {each.reason}" for each in unread if each is not None)
    remedy = "That says nothing of the runs. Mend it, or ask elsewhere: --runs, --address."
    return BadInput("nothing could be asked", told, remedy)


def nowhere(place: Place, name: str, address: str | None, unasked: Unread | None, reason: str) -> BadInput:
    """A run that is neither in its place nor in the list of the cluster, where one was asked."""
    there, _ = tried(str(place), lambda: kept.outline(place))
    known = [each.run for each in there or () if each.kind != SWEEP]
    if name in {each.run for each in there or ()} - set(known):
        return no_run_but_a_sweep(name)
    asked = cluster(address) if unasked is None else None
    where = f"{place} and on {asked}" if asked is not None else str(place)
    remedy = nearest(name, known) if known else "headway ls shows which there are."
    return BadInput(f"no run {name!r} in {where}", reason, remedy)


def place_of(run: str, runs: str | Path | None) -> tuple[Place, str]:
    """A run's place and name; the run may be its folder or URL. A name alone is one of the place, and of this folder
    only where no place was named."""
    if is_url(run):
        where, name = split(run)
        return Place.of(where), name
    path, place = Path(run), Place.of(runs)
    nearer = runs is None and place.said == kept.DEFAULT and not kept.is_run(place.folder / run)
    if ("/" in run or nearer) and kept.is_run(path):
        path = path.resolve()
        return Place(str(path.parent), path.parent), path.name
    return place, run


def leading(listed: Iterable[Job]) -> list[Job]:
    """Those that lead runs of ours, oldest first."""
    ours = [job for job in listed if job.run and job.kind in LEADS]
    return sorted(ours, key=lambda job: job.started or 0.0)


def of_run(listed: Iterable[Job], name: str, place: Place) -> list[Job]:
    """Submissions of one run, oldest first."""
    return [job for job in leading(listed) if job.run == name and kept_in(job, place) is not False]


def elsewhere(place: Place, name: str, listed: Iterable[Job]) -> tuple[str, list[Job]]:
    """Of a run that a place does not have: where else its newest submission keeps it, and its submissions there, oldest
    first; "" and none where there is no such one."""
    of = [job for job in leading(listed) if job.run == name and kept_in(job, place) is False]
    return (of[-1].runs, [job for job in of if job.runs == of[-1].runs]) if of else ("", [])


def out_of_sight(where: str) -> str:
    """Why a place is not to be looked into from here; empty where it may be. where: as a submission says it."""
    if not where:
        return "the cluster's machines say where it is"
    if not is_url(where) and not Path(where).is_dir():
        return "a folder that is not on this machine"
    try:
        Place.of(where)
    except BadInput as error:  # as another release, or a stranger, wrote it
        return error.reason or error.fact
    return ""


def kept_in(job: Job, place: Place) -> bool | None:
    """Whether a job's run is kept in a place; None where that is what the cluster's machines say."""
    if not job.runs:
        return None
    try:
        other = Place.of(job.runs)
    except BadInput:
        return False
    return other.url == place.url and (other.url is not None or other.folder.resolve() == place.folder.resolve())
