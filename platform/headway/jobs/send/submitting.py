"""`headway submit` and `headway resume` on a cluster that is somewhere else: what is sent, and what came of it."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import headway
from headway import config
from headway import runs as kept
from headway.carried import asked, code
from headway.carried.code import Source
from headway.data.own import materialised
from headway.data.own.naming import with_files
from headway.errors import BadInput
from headway.job import Job, load, taken
from headway.jobs import secrets
from headway.jobs.api.client import RayJobs
from headway.jobs.send import install as packages
from headway.jobs.send import naming, parcel
from headway.jobs.send.beginning import How, Submitted, begin
from headway.jobs.send.sending import Say
from headway.jobs.spec import CODE, Kind, Spec, new_attempt
from headway.notation.plain import write
from headway.runs.folder import usable
from headway.runs.place import Place, is_url, local_folder, split
from headway.runs.requests import this_person

FIND_S = 20.0
"""So long a run's own records are fetched, to see which task it is of."""


def quiet(_: Any) -> None:
    """Says nothing."""


def submit(
    job: Job | dict[str, Any] | str | Path,
    *,
    task: Any = None,
    data: Mapping[str, Any] | None = None,
    address: str | None = None,
    name: str | None = None,
    runs: str | Path | None = None,
    settings: Sequence[str] = (),
    wait: bool = False,
    dry_run: bool = False,
    install: bool = False,
    send_secrets: bool = False,
    say: Say = quiet,
    plan: Callable[[dict[str, Any]], None] = quiet,
) -> Submitted:
    """Run a job on a Ray cluster, wherever it is. Returns once it has begun there.

    Args:
        job: a Job, the same as a mapping, or the path of its YAML file.
        task, data: in place of the job's, as they are; see `headway.train`. A dataset of Ray Data's is refused.
        address: http://HOST:PORT of the dashboard of the cluster's head; RAY_API_SERVER_ADDRESS, RAY_ADDRESS where that
            is such a one, else http://127.0.0.1:8265.
        name: of the run; the job's name with the time, and a few characters that no other has, when not given. There is
            one run of a name.
        runs: where the run is kept: the URL of an object store, or an absolute folder that every machine of the cluster
            sees; as for `headway.train`, but what the cluster's machines say themselves where nothing is said here.
        settings: `key=value` overrides of a job's file.
        wait: for its end.
        dry_run: all the same, but no run is made.
        install: bring packages that the cluster lacks.
        send_secrets: send secrets that stand in the job.
        say: takes what the user should know.
        plan: takes the plan, before the run begins.

    Raises:
        BadInput: nothing was started, and nothing is left there.
        HeadwayError: it could not begin; or it is not known.
    """
    code.refuse_on_import("headway.jobs.submit")
    job = _job(job if task is None and data is None else asked.job_of(job, task, _travelling(data)), settings)
    run = usable(name) if name is not None else _timed(job.name)
    place = runs_of(runs)
    tree, found = secrets.stripped(job)
    sent = secrets.allowed(found, send_secrets)
    with tempfile.TemporaryDirectory(prefix="headway-submit-") as scratch:
        source = code.locate(job.task)
        look = naming.Look(place, run)
        for note in _folders(job, place):
            say(note)
        files = code_of(job, source, Path(scratch), say)
        api = _admitted(address, found, say)
        wanted = _packages(job, place, source if install else None)
        kind: Kind = "check" if dry_run else "train"
        spec = _spec(kind, run, place, job=write(tree), sent=sent, packages=wanted)
        naming.refuse_twice(api, spec, look)
        return begin(api, spec, files, How(wait, install, say, plan))


def resume(
    run: str,
    *,
    address: str | None = None,
    runs: str | Path | None = None,
    settings: Sequence[str] = (),
    allow: Sequence[str] = (),
    wait: bool = False,
    install: bool = False,
    send_secrets: bool = False,
    say: Say = quiet,
    plan: Callable[[dict[str, Any]], None] = quiet,
) -> Submitted:
    """Go on with a run on a Ray cluster, be it the one that it was on or another; see `submit`.

    Args:
        run: its name, or its URL.
        settings: `key=value` changes to the job; only those that do not change what the run computes are accepted.
        allow: what may differ of threads, torch and device, though the run is to have the same bits.
    """
    if is_url(run):
        runs, run = split(run)
    usable(run)
    place = runs_of(runs)
    plain, found = secrets.stripped_settings(settings)
    sent = secrets.allowed(found, send_secrets)
    with tempfile.TemporaryDirectory(prefix="headway-submit-") as scratch:
        look = naming.Look(place, run)
        api = _admitted(address, found, say)
        spec = _spec("resume", run, place, settings=tuple(plain), allow=tuple(allow), sent=sent)
        job, files = _mended(spec, look, Path(scratch), say)
        source = code.locate(job.task) if job is not None and files and install else None
        spec = replace(spec, packages=_packages(job, place, source))
        return begin(api, spec, files, How(wait, install, say, plan))


def _job(given: Job | dict[str, Any] | str | Path, settings: Sequence[str]) -> Job:
    if isinstance(given, str | Path):
        return load(given, list(settings))
    if settings:
        raise BadInput("settings are given", "they are for a job's file", "Change the job itself.")
    return taken(given)


def _travelling(data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Raises BadInput: one is of Ray Data, whose rows are read where it was made."""
    for use, dataset in data.items() if isinstance(data, Mapping) else ():
        if materialised.is_rays(dataset):
            raise BadInput(
                f"data.{use} is a Ray Dataset",
                "a submission brings code and small files along, and no rows",
                "Write it with write_parquet to a place that the cluster sees, prepare that with `headway data "
                "prepare`, and name the result.",
            )
    return data


def _timed(name: str) -> str:
    """A run's name that two who submit in one second do not both get."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{new_attempt()[:4]}"


def _admitted(address: str | None, found: Sequence[secrets.Literal], say: Say) -> RayJobs:
    """A cluster that takes us; who could read what is sent in clear is told."""
    api = RayJobs.at(address)
    api.admit()
    if found:
        for note in secrets.said(found, api.address, guarded=api.guarded()):
            say(note)
    return api


def _folders(job: Job, place: str | None) -> list[str]:
    """What is to be told of folders: that the cluster's machines must see them too."""
    told = []
    for use, (path, _) in job.data.stored.items():
        if not is_url(path):
            other = f"give `--set data.{use}=s3://BUCKET/FOLDER`" if "[" not in use else "name that in the job"
            fact = f"data.{use} is a folder, {path}: every machine of the cluster must see it under that name"
            told.append(f"{fact}. Else copy it to a store, and {other}")
    if place is not None and not is_url(place):
        told.append(f"runs are kept in a folder, {place}: every machine of the cluster must see it under that name")
    return told


def _packages(job: Job | None, place: str | None, source: Source | None) -> dict[str, str]:
    """What must be on the cluster; with the task's own imports where its source is given, and they could be brought."""
    tracked = job is not None and job.tracking.enabled
    stores = place is not None and is_url(place)
    if job is not None:
        stores = stores or any(is_url(path) for path, _ in job.data.stored.values())
    own = packages.of_task(source) if source is not None else {}
    return {**own, **packages.needed(tracked, stores)}


def _mended(spec: Spec, look: naming.Look, scratch: Path, say: Say) -> tuple[Job | None, dict[str, Path | bytes]]:
    """A run's job, where it can be seen from here; and the task's code where that is here, as it may be mended since.
    Else the cluster takes what the run has kept."""
    place = naming.visible(spec.runs) if look.found() is not None else None
    run = None if place is None else naming.begun(lambda: kept.find(place, spec.run), FIND_S)()
    if run is None:
        return None, {}
    try:
        job = load(run.job_file)
    except BadInput:
        return None, {}
    try:
        source = code.locate(job.task)
        files = code_of(job, source, scratch, quiet)
    except BadInput:
        return job, {}
    say(f"the task's code is taken from {source.folder}")
    return job, files


def runs_of(runs: str | Path | None) -> str | None:
    """Where a run on a cluster is to be kept: as given, else as HEADWAY_RUNS or the user's config file say.

    Raises:
        BadInput: a folder that means another one on each machine.
    """
    asked = runs if runs is not None and str(runs) else config.load().runs
    if asked is None:
        return None
    if is_url(str(asked).strip()):
        return Place.of(asked).url
    folder = local_folder(asked, "runs cannot be kept")
    if not folder.is_absolute():
        reason = "it is a folder of this machine, and the run is led by another one"
        remedy = (
            "Give --runs (or HEADWAY_RUNS) a URL like s3://BUCKET/FOLDER, or an absolute folder that every machine of "
            "the cluster sees."
        )
        raise BadInput(f"runs cannot be kept in {asked}", reason, remedy)
    return str(folder)


def code_of(job: Job, source: Source, scratch: Path, say: Say = quiet) -> dict[str, Path | bytes]:
    """The task's code and files as they travel, by their names in the job's folder.

    Args:
        scratch: a folder that lasts until they are sent.

    Raises:
        BadInput: the code is no Python, cannot be read, or is too much.
    """
    code.look(source)
    cargo = code.survey(source, with_files(job)).without(secrets.must_stay(job))
    for note in cargo.said():
        say(note)
    for path in cargo.files:
        parcel.readable(path)
    code.carry(source, scratch / CODE, cargo)
    return parcel.below(scratch / CODE, CODE)


def _spec(kind: Kind, run: str, runs: str | None, **more: Any) -> Spec:
    return Spec(
        kind=kind,
        run=run,
        attempt=new_attempt(),
        by=this_person(),
        headway=headway.__version__,
        python=(sys.version_info[0], sys.version_info[1]),
        runs=runs,
        store=config.load().store.model_dump(exclude_defaults=True),
        **more,
    )
