"""A task that is given from Python as it is: named by its file where it has one, else taken by value."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.carried import cargo, value
from headway.errors import BadInput
from headway.job import Job, anchor, parse, taken
from headway.notation.reading import mapping
from headway.notation.values import named as shown
from headway.runs.place import cache_folder

KEPT_S = 7 * 86400.0
"""A thing by value whose run has its own copy goes when nobody gave it for so long and another is given."""


def job_of(given: Job | dict[str, Any] | str | Path, task: Any = None, data: Mapping[str, Any] | None = None) -> Job:
    """A job that is given in any way, see `headway.job.taken`, with this task and these datasets in place of its own.

    Args:
        given: the job.
        task: a class, a function or an object; None: the job's.
        data: by `train` and `validation`: folders, or datasets as they are; None: the job's.

    Raises:
        BadInput: the job is wrong, the task or a dataset is none or cannot travel, or the task is an object and the job
            has arguments.
    """
    if task is None and data is None:
        return taken(given)
    changed: dict[str, Any] = {} if task is None else {"task": name_of(task)}
    if isinstance(given, str | Path):
        tree = anchor(mapping(Path(given), "job"), Path(given).resolve().parent)
    else:
        tree = given.model_dump() if isinstance(given, Job) else given
    if not isinstance(tree, dict):
        return taken(tree)
    if data is not None:
        changed["data"] = {**(tree.get("data") or {}), **_named(data), "own": {}}
    job = parse(anchor({**tree, **changed}, Path.cwd()), "job" if not isinstance(given, str | Path) else str(given))
    if job.arguments and task is not None and not callable(task):
        raise BadInput(
            f"arguments={job.arguments}",
            f"the task is an object of {type(task).__name__}, which was made already",
            "Give the class, or leave the arguments out.",
        )
    return job


def name_of(task: Any) -> str:
    """What the job's `task` is of a class, a function or an object.

    Raises:
        BadInput: it is no task, or holds what cannot travel.
    """
    if isinstance(task, str):
        return task
    _admit(task)
    return in_file(task) or placed(value.take(task, "task"))


def _named(data: Any) -> dict[str, Any]:
    """What the job's `data` is of datasets: names of folders as they are, all else by its file or by value.

    Raises:
        BadInput: it is no mapping of datasets, or one cannot travel.
    """
    if not isinstance(data, Mapping) or not data or not set(data) <= {"train", "validation"}:
        told = ", ".join(map(str, data)) if isinstance(data, Mapping) else shown(data)
        remedy = 'Give data={"train": ..., "validation": ...}; all else of `data` is said in the job.'
        raise BadInput(f"data is {told or 'empty'}", "a run has a training set, and may have a validation set", remedy)
    found: dict[str, Any] = {}
    for use, dataset in data.items():
        if isinstance(dataset, str | Path | list | None):
            found[use] = str(dataset) if isinstance(dataset, Path) else dataset
        else:
            found[use] = in_file(dataset) or placed(value.take(dataset, f"data.{use}"))
        found["version" if use == "train" else "validation_version"] = None
    return found


def in_file(thing: Any) -> str:
    """`file.py:Name` or `package.module:Name` of a class or function that stands at the top of a file; else ''."""
    name, module = str(getattr(thing, "__qualname__", "")), sys.modules.get(str(getattr(thing, "__module__", "")))
    if not isinstance(thing, type) and not inspect.isfunction(thing):
        return ""
    if module is None or not name.isidentifier() or getattr(module, name, None) is not thing:
        return ""
    spec, file = getattr(module, "__spec__", None), str(getattr(module, "__file__", None) or "")
    path = Path(os.path.abspath(file))  # noqa: PTH100  links stay, as of a job's file
    if module.__name__ == "__main__" and spec is None:
        return f"{path}:{name}" if file.endswith(".py") and _at_top(path, thing) else ""
    known = spec.name if module.__name__ == "__main__" and spec is not None else module.__name__
    if not file or (file.endswith(".py") and not path.is_file()):
        return ""
    if "." in known or cargo.is_installed(path) or not file.endswith(".py"):
        return f"{known}:{name}" if _is_found(known) else ""
    return f"{path}:{name}"


def placed(taken: value.Value) -> str:
    """Have a thing that was taken by value in a file of this machine; returns `file.py:Name`.

    The run has its own copy once it begins; this one goes when it was not asked for in a week.

    Raises:
        BadInput: it cannot be written.
    """
    home = cache_folder() / "by-value"
    folder = home / taken.digest
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = value.put(taken, folder)
        os.utime(folder)
        _clean(home, folder)
    except OSError as error:
        why, remedy = error.strerror or str(error), "Free space, or set HEADWAY_CACHE to a folder that can be written."
        raise BadInput(f"{taken.name} cannot be kept by value in {folder}", why, remedy) from None
    return f"{file}:{taken.name}"


def _admit(task: Any) -> None:
    """Raises BadInput: it is nothing that can be trained."""
    from headway.task import Task

    made = task.func if isinstance(task, functools.partial) else task
    if isinstance(made, type):
        if not issubclass(made, Task) or made is Task:
            raise BadInput(
                f"task={made.__name__}",
                "the class is not a headway.Task",
                f"Write class {made.__name__}(headway.Task), or give a function that is a loop of its own.",
            )
        return
    if isinstance(task, Task):
        return
    if type(task).__module__.startswith("torch.") or not callable(made) or hasattr(made, "state_dict"):
        remedy = "Give a subclass of headway.Task, an object of one, or a function that is a loop of its own."
        raise BadInput(f"task is {shown(task)}", "that is no task", remedy)


def _at_top(path: Path, thing: Any) -> bool:
    """Whether who imports the file finds the thing there: it does not stand under `if __name__ == "__main__"`."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError):
        return False
    kind = ast.ClassDef if isinstance(thing, type) else ast.FunctionDef
    code = getattr(inspect.unwrap(thing), "__code__", None)
    if code is not None and os.path.abspath(code.co_filename) != str(path):  # noqa: PTH100  as above
        return False
    return any(isinstance(node, kind) and node.name == thing.__name__ for node in _tops(tree.body))


def _tops(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If) and any(
            isinstance(each, ast.Name) and each.id == "__name__" for each in ast.walk(node.test)
        ):
            yield from _tops(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in (getattr(node, "body", []), getattr(node, "orelse", []), getattr(node, "finalbody", [])):
                yield from _tops(part)
            for handler in getattr(node, "handlers", []):
                yield from _tops(handler.body)


def _is_found(module: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _clean(home: Path, used: Path) -> None:
    for path in home.iterdir():
        with suppress(OSError):
            if path != used and time.time() - path.stat().st_mtime > KEPT_S:
                shutil.rmtree(path, ignore_errors=True)
