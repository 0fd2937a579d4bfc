"""The task's code of a sweep that is taken up again: where its author has it, or as the sweep has kept it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headway.carried import code
from headway.data.own import naming
from headway.errors import BadInput
from headway.job import Job

NAMED = 5
"""Files that are named at most."""


def source(job: Job, kept: Path, strict: bool, say: Callable[[str], None]) -> code.Source | None:
    """The sweep's own copy, where the task is not (or no more) where the job says; None: it is there.

    Args:
        job: of a trial.
        kept: the folder of that copy.
        strict: all trials have to be computed alike.
        say: takes a line for people.

    Raises:
        BadInput: the task is nowhere; or it is another one by now, and the sweep is strict.
    """
    try:
        there = code.locate(job.task)
        changed = code.changed(there, kept, code.survey(there, naming.with_files(job)))
    except BadInput:
        if not kept.is_dir():
            raise
        say(f"note: the task is not where the job says: its copy in {kept} is run")
        return code.kept(job.task, kept)
    python = [name for name in changed if name.endswith(".py")]
    if python and strict:
        raise BadInput(
            f"the task's code has changed since the sweep began: {_named(python)}",
            "in strict order all trials are computed alike",
            f"Put it back as it is in {kept}, or begin a new sweep.",
        )
    if changed:
        said = f"note: {_named(changed)} changed since the sweep was led last: trials that have begun keep what they"
        say(f"{said} began with, new ones have the new")
    return None


def _named(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
