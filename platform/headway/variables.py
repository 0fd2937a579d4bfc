"""Variables of the environment for a run's recorder and workers, wherever these run.

Job and records hold names and places of secrets only. Values are taken where the run is led, from its environment or a
file, and go from process to process through Ray's object store; a runtime environment would show them in Ray's
dashboard.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headway.core import secrecy
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.job import FromFile, Job

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
SECRET_CHARS = 6
"""A shorter value would be found everywhere."""
LARGEST = 64 << 10
"""Bytes of a file that holds a value; the system takes no variable of twice as many."""


def given(job: Job, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that the run's processes are given, with their values.

    Raises:
        BadInput: one that the job names is not set here, or its file cannot be read.
    """
    named = {name: _value(name, said, environ) for name, said in named_by(job).items()}
    absent = [name for name, value in named.items() if value is None]
    if absent:
        several = len(absent) > 1
        fact = f"env names {', '.join(absent)}, which {'are' if several else 'is'} not set"
        them = "them" if several else "it"
        reason = "a value is taken from the environment of the process that leads the run, and kept nowhere"
        remedy = f"Set {them} there, name a file there (`{absent[0]}: {{file: PATH}}`), or strike {them} out."
        raise BadInput(fact, reason, remedy)
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


def named_by(job: Job) -> dict[str, str | FromFile | None]:
    """What the job's `env` says; None for a value that is to be taken from the environment."""
    return dict.fromkeys(job.env) if isinstance(job.env, list) else dict(job.env)


def read_file(fact: str, path: str) -> str:
    """What a file holds that a job names, without the line's end.

    Args:
        fact: that it cannot be used, for an error.

    Raises:
        BadInput: it cannot be read, or is no text that a variable can hold.
    """
    remedy = "Mend it on the machine that leads the run."
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode()
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or (
            "is no text" if isinstance(error, UnicodeDecodeError) else str(error)
        )
        raise BadInput(fact, str(why), remedy) from None
    if len(content) > LARGEST or "\0" in text:
        reason = "it holds a NUL byte" if "\0" in text else f"it holds more than {LARGEST >> 10} KiB"
        raise BadInput(fact, reason, remedy)
    return text.rstrip("\r\n")


def secrets(job: Job, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Values of `env` that are secret, as far as they are known here."""
    values: list[str] = []
    for name, said in named_by(job).items():
        with suppress(BadInput):  # its file is somewhere else
            value = _value(name, said, environ) or ""
            named = said is not None and not isinstance(said, str)
            values += [value] if named or secrecy.called(name) else secrecy.within(value)
    return [value for value in values if len(value) >= SECRET_CHARS]


def kept(job: Job) -> Job:
    """The job without the values of `env` that are secrets."""
    if isinstance(job.env, list):
        return job
    hidden = {name: None for name, said in job.env.items() if isinstance(said, str) and secrecy.variable(name, said)}
    return job.model_copy(update={"env": {**job.env, **hidden}}) if hidden else job


def _value(name: str, said: str | FromFile | None, environ: Mapping[str, str]) -> str | None:
    if said is None:
        return environ.get(name)
    return said if isinstance(said, str) else read_file(f"env.{name}.file={said.file} cannot be used", said.file)
