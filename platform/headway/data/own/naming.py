"""How a job names a dataset that its author's code gives, and where that code is in a process."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headway.carried import cargo, code
from headway.errors import BadInput
from headway.notation.code import FILE, MODULE, is_named

if TYPE_CHECKING:
    from headway.job import Job


def named(job: Job) -> dict[str, str]:
    """The job's datasets that code gives, by use (train, validation): how they are named."""
    return {use: path for use, (path, _) in job.data.places.items() if is_named(path)}


def is_file(text: str) -> bool:
    """Whether it names a file of Python."""
    return FILE.match(text) is not None


def files(names: Mapping[str, str]) -> list[str]:
    """Patterns of the files that must travel for them, and of what belongs to them."""
    paths = [Path(found["where"]) for text in names.values() if (found := FILE.match(text))]
    beside = [path.with_suffix(ending) for path in paths for ending in (".py", ".pkl", ".json")]
    return sorted({glob.escape(str(path)) for path in beside if path.suffix == ".py" or _belongs(path)})


def with_files(job: Job) -> list[str] | None:
    """The job's `files`, and those of its own datasets that lie elsewhere than the task."""
    home = Path(job.task.rpartition(":")[0]).parent
    mine = {use: text for use, text in named(job).items() if is_file(text)}
    elsewhere = {use: text for use, text in mine.items() if Path(text.rpartition(":")[0]).parent != home}
    return [*(job.files or []), *files(elsewhere)] if elsewhere else job.files


def _belongs(path: Path) -> bool:
    """Whether a file belongs to a module that was made of what was given by value."""
    return cargo.is_by_value(path) and path.is_file()


def source_of(use: str, text: str, task: str, source: code.Source) -> code.Source:
    """Where the code of a dataset is, beside the task's.

    Args:
        use: of the dataset, for errors.
        text: as the job names it.
        task: likewise, of the task.
        source: of the task, in this process.

    Raises:
        BadInput: it cannot be told.
    """
    found = FILE.match(text) or MODULE.match(text)
    assert found is not None
    if not is_file(text):
        return replace(source, module=found["where"], name=found["name"])
    home = task.rpartition(":")[0]
    if not home.endswith(".py"):
        raise BadInput(
            f"data.{use}={text} is named as a file, and the task {task} as a module",
            "where one lies beside the other is not the same on every machine",
            "Name it as package.module:name too.",
        )
    path = Path(found["where"])
    apart = os.path.relpath(path.parent, Path(home).parent)
    folder = Path(os.path.normpath(source.folder / apart))
    if apart == ".":
        return replace(source, module=path.stem, name=found["name"])
    return replace(source, folder=folder, module=path.stem, name=found["name"], paths=(source.folder, *source.paths))
