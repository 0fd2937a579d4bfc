"""This process as the entry point of a Ray job (`ray job submit -- headway train ...`).

Ray then names the cluster in RAY_ADDRESS, and the job's own runtime environment in RAY_JOB_CONFIG_JSON_ENV_VAR; every
driver in the job is to bear both. What was submitted with --working-dir is unpacked in a folder that goes with the job.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headway.errors import BadInput
from headway.runs.place import DEFAULT, Place

CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"
UNPACKED = "working_dir_files"
MODULES = "py_modules_files"
DEFAULT_RUNS = Path(DEFAULT)


def inside(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a Ray job."""
    return CONFIG in environ


def runtime_env(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The job's runtime environment, as Ray keeps it."""
    try:
        found = json.loads(environ.get(CONFIG, "{}")).get("runtime_env")
    except (ValueError, AttributeError):
        return {}
    return dict(found) if isinstance(found, dict) else {}


def merged(ours: Mapping[str, Any], jobs: Mapping[str, Any]) -> dict[str, Any]:
    """Our part of a runtime environment, as it is to be laid over the job's.

    The modules of both are there. The working folder stays the job's, where it has one: relative paths mean for workers
    what they mean for the driver. Ray adds the rest of the job's (pip, env_vars, ...).
    """
    laid = dict(ours)
    if jobs.get("py_modules"):
        laid["py_modules"] = [*jobs["py_modules"], *ours.get("py_modules", [])]
    if jobs.get("working_dir"):
        laid.pop("working_dir", None)
    return laid


def describe(metadata: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> None:
    """Add to what Ray's list of jobs shows of this one; it has what was submitted, and nothing of its drivers'.

    Ray has no call for that. What keeps the list writes before the entry point is begun, and after it has ended.
    """
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

    with suppress(KeyError, ValueError, AttributeError, TypeError):  # kept in another way by another release
        submission = json.loads(environ[CONFIG])["metadata"]["job_submission_id"]
        key = f"_ray_internal_job_info_{submission}".encode()
        info = json.loads(_internal_kv_get(key, namespace=b"job"))
        info["metadata"] = {**(info.get("metadata") or {}), **metadata}
        _internal_kv_put(key, json.dumps(info).encode(), overwrite=True, namespace=b"job")


def leave_folder(environ: MutableMapping[str, str] = os.environ) -> None:
    """From now on this job's processes are not given its working folder, but one that this process names."""
    if inside(environ):
        config = json.loads(environ[CONFIG])
        (config.get("runtime_env") or {}).pop("working_dir", None)
        environ[CONFIG] = json.dumps(config)


@contextmanager
def overridden() -> Iterator[None]:
    """While Ray connects: what we lay over the job's runtime environment wins, and is no conflict."""
    before = os.environ.get(OVERRIDE)
    os.environ[OVERRIDE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[OVERRIDE]
        else:
            os.environ[OVERRIDE] = before


@contextmanager
def hidden() -> Iterator[None]:
    """While a Ray is started or joined that knows nothing of the job: its packages lie in another cluster."""
    config = os.environ.pop(CONFIG, None)
    try:
        yield
    finally:
        if config is not None:
            os.environ[CONFIG] = config


def brought(package: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a package of Python came to this machine with the job."""
    return inside(environ) and any(folder.parent.name == MODULES for folder in package.parents)


def unpacked(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of Ray's in which the job's files are, when this process is there."""
    if not inside(environ):
        return None
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if folder.parent.name == UNPACKED), None)


def place(asked: str | Path | None, environ: Mapping[str, str] = os.environ) -> tuple[Place, str]:
    """Where runs are to be kept, and what is to be told of it; see `Place.of`.

    Raises:
        BadInput: it is no place for runs, or a folder that Ray will delete.
    """
    found = Place.of(asked, environ)
    if found.url is not None:
        return found, ""
    folder, told = runs_folder(found.folder, environ)
    return (found if folder == found.folder else Place(str(folder), folder)), told


def runs_folder(asked: str | Path, environ: Mapping[str, str] = os.environ) -> tuple[Path, str]:
    """Where runs are to be kept, and what is to be told of it; not where Ray deletes them with the job.

    Raises:
        BadInput: a folder was asked for that Ray will delete.
    """
    folder, passing = Path(asked), unpacked(environ)
    if passing is None or not folder.resolve().is_relative_to(passing):
        return folder, ""
    if folder != DEFAULT_RUNS:
        raise BadInput(
            f"runs cannot be kept in {asked}",
            f"{passing} is Ray's: it goes with this job, and other machines have their own",
            "Give --runs (or HEADWAY_RUNS) an absolute path that every machine of the cluster sees.",
        )
    lasting = Path.home() / "headway-runs"
    note = (
        f"in a Ray job, runs are kept in {lasting}: this folder is Ray's and goes with the job. Give --runs or "
        "HEADWAY_RUNS for another; every machine of the cluster must see it under the same path"
    )
    return lasting, note
