"""Variables of the environment that a run is started from, for its recorder and workers, wherever these run.

Job and records hold names only. The values go from process to process, through Ray's object store; a runtime
environment would show them in Ray's dashboard.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.job import Job

DEFAULTS = re.compile(
    r"MLFLOW_\w+|DATABRICKS_(HOST|TOKEN|CONFIG_\w+)|AWS_\w+|AZURE_\w+|GOOGLE_APPLICATION_CREDENTIALS|"
    r"GOOGLE_CLOUD_PROJECT|HF_TOKEN|HF_ENDPOINT|HUGGING_FACE_HUB_TOKEN"
)
"""Given without being named: what MLflow, the object stores and Hugging Face's hub are spoken to with."""
_PLACES = re.compile(
    r"AWS_(WEB_IDENTITY_TOKEN_FILE|ROLE_ARN|ROLE_SESSION_NAME|CONTAINER_\w+|LAMBDA_\w+|EXECUTION_ENV)|"
    r"AZURE_FEDERATED_TOKEN_FILE"
)
"""Not these: each machine of a cloud has its own."""
_SECRET = re.compile(r"(?i).*(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY)")
SECRET_CHARS = 6
"""A shorter value would be found everywhere."""


def given(job: Job, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that the run's processes are given, with their values.

    Raises:
        BadInput: one that the job names is not set here.
    """
    named = {name: environ.get(name) if value is None else value for name, value in named_by(job).items()}
    absent = [name for name, value in named.items() if value is None]
    if absent:
        several = len(absent) > 1
        fact = f"env names {', '.join(absent)}, which {'are' if several else 'is'} not set"
        reason = "a value is taken from the environment that the run is started from, and kept nowhere"
        raise BadInput(fact, reason, f"Set {'them' if several else 'it'}, or strike {'them' if several else 'it'} out.")
    usual = {name: value for name, value in environ.items() if DEFAULTS.fullmatch(name) and not _PLACES.match(name)}
    return {**usual, **{name: value for name, value in named.items() if value is not None}}


@contextmanager
def in_force(job: Job) -> Iterator[dict[str, str]]:
    """Set what the job's `env` says in this process too, where the task is tried; put back after it. Gives `given`.

    Raises:
        BadInput: as `given`.
    """
    found = given(job)
    named = {name: found[name] for name in named_by(job)}
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)
    try:
        yield found
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def named_by(job: Job) -> dict[str, str | None]:
    """What the job's `env` says; None for a value that is to be taken from the environment."""
    return dict.fromkeys(job.env) if isinstance(job.env, list) else dict(job.env)


def secrets(job: Job, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Values that the job's `env` gives to names of secrets, as far as they are known here."""
    values = (value or environ.get(name, "") for name, value in named_by(job).items() if _SECRET.match(name))
    return [value for value in values if len(value) >= SECRET_CHARS]


def kept(job: Job) -> Job:
    """The job without the values of `env` that are secret by their names."""
    if isinstance(job.env, list):
        return job
    plain = {name: None if _SECRET.match(name) else value for name, value in job.env.items()}
    return job if plain == job.env else job.model_copy(update={"env": plain})
