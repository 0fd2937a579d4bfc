"""The user's Python: found from the job's `task`, imported, and carried to the workers."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.durable import sync_folder, take_place
from headway.errors import BadInput, nearest
from headway.task import Task

MAX_FILES, MAX_BYTES = 2000, 20 * 2**20
_folders: set[Path] = set()  # of tasks' files that were put on the import path of this process
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "runs", "data", "build", "dist", "venv"}


@dataclass(frozen=True)
class Source:
    """Where the user's code is.

    Args:
        folder: put on the import path.
        module: to import from there.
        name: class or function in it.
        inside: subfolder that is carried ('' for all of `folder`), None where the code is installed on every machine.
    """

    folder: Path
    module: str
    name: str
    inside: str | None


def locate(task: str) -> Source:
    """Find the code without importing it.

    Raises:
        BadInput: the file or module is not there.
    """
    where, _, name = task.rpartition(":")
    if where.endswith(".py"):
        path = Path(os.path.expanduser(where)).resolve()  # noqa: PTH111  Path's own raises for ~nobody
        if not path.is_file():
            raise BadInput(f"task={task}", f"{path} does not exist", "Give file.py:Class, relative to the job's file.")
        return Source(path.parent, path.stem, name, "")
    top = where.partition(".")[0]
    for folder in (Path.cwd(), *map(Path, sys.path)):
        if (folder / top).is_dir() or (folder / f"{top}.py").is_file():
            installed = "site-packages" in folder.parts or "dist-packages" in folder.parts
            return Source(folder.resolve(), where, name, None if installed else top)
    raise BadInput(
        f"task={task}", f"there is no module {top!r} here or on the import path", "Run from its folder, or install it."
    )


def load(source: Source) -> Callable[..., Any]:
    """Import the class or function.

    Raises:
        BadInput: it cannot be imported or is not there; carries the user's traceback where their code raised.
    """
    _make_importable(source)
    try:
        module = _module(source)
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        bad = BadInput(
            f"the task's module {source.module} cannot be imported",
            f"{type(error).__name__}: {error}",
            "Mend it, or install what it needs.",
        )
        bad.traceback = users_traceback(error)
        raise bad from None
    found = getattr(module, source.name, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, Task) and v is not Task]
        remedy = nearest(source.name, names) if names else "Subclass headway.Task in it, or write a function."
        raise BadInput(f"task={source.name!r}", f"{source.module} has no such class or function", remedy)
    checked: Callable[..., Any] = found
    if inspect.isclass(found) and not issubclass(found, Task):
        raise BadInput(
            f"task={source.name!r}", "the class is not a headway.Task", f"Write class {source.name}(headway.Task)."
        )
    return checked


def carry(source: Source, to: Path) -> None:
    """Copy the Python files that the task may import into the run's folder. Other files stay where they are.

    What was carried before stays until the new copy is whole.

    Raises:
        BadInput: there are too many of them, or they cannot be written.
    """
    beside, aside = to.with_name(f".{to.name}.new"), to.with_name(f".{to.name}.old")
    try:
        _restore(to, aside)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _copy(source, beside)
        take_place(beside, to, aside)
        sync_folder(to.parent)
    except OSError as error:
        raise BadInput(
            f"the task's code cannot be carried to {to}",
            f"{error.strerror or error}; what was there is there still",
            "Free space or mend the folder, then try again.",
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)


def _restore(to: Path, aside: Path) -> None:
    """Put back what a process that was killed between two renames had moved aside."""
    if aside.exists() and not to.exists():
        aside.rename(to)
    shutil.rmtree(aside, ignore_errors=True)


def _copy(source: Source, to: Path) -> None:
    if source.inside is None:
        return
    root = source.folder / source.inside
    if not root.exists():  # a module of one file
        shutil.copy2(source.folder / f"{source.inside}.py", to)
        return
    for path in list(_python_files(root)):  # all before the first copy: the run's folder may lie inside
        target = to / path.relative_to(source.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)


def carried(source: Source, folder: Path) -> Source:
    """The same code, as it was carried to `folder`."""
    return source if source.inside is None else Source(folder, source.module, source.name, source.inside)


def users_traceback(error: BaseException) -> str:
    """The traceback without Headway's own frames, so that the user's code is what is seen."""
    ours = str(Path(__file__).parent) + os.sep
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _hidden(f.filename, ours)]
    head = ["Traceback (most recent call last):\n", *traceback.format_list(frames)] if frames else []
    return "".join([*head, *traceback.format_exception_only(error)]).rstrip()


def _hidden(filename: str, ours: str) -> bool:
    return filename.startswith((ours, "<frozen importlib")) or f"{os.sep}importlib{os.sep}" in filename


def _make_importable(source: Source) -> None:
    """Put the task's folder first on the import path, and forget another task's modules of the same names."""
    folder = str(source.folder)
    if sys.path[:1] != [folder]:
        sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    importlib.invalidate_caches()
    if source.inside is None:
        return
    others = _folders - {source.folder}
    _folders.add(source.folder)
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        there = (source.folder / f"{top}.py").is_file() or (source.folder / top).is_dir()
        file = Path(getattr(module, "__file__", None) or os.sep)
        if there and not file.is_relative_to(source.folder) and any(map(file.is_relative_to, others)):
            del sys.modules[name]


def _module(source: Source) -> Any:
    if source.inside != "":
        return importlib.import_module(source.module)
    known = sys.modules.get(source.module)
    path = source.folder / f"{source.module}.py"
    if source.module.isidentifier() and (known is None or getattr(known, "__file__", None) == str(path)):
        return importlib.import_module(source.module)
    return _from_file(source, path)  # a file called time.py or my-task.py


def _from_file(source: Source, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"headway_task_{source.module}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _python_files(root: Path) -> Iterator[Path]:
    files = size = 0
    for folder, folders, names in os.walk(root):
        folders[:] = [d for d in folders if not _is_skipped(Path(folder, d))]
        for name in names:
            path = Path(folder, name)
            if path.suffix != ".py" or not path.is_file():
                continue
            files, size = files + 1, size + path.stat().st_size
            if files > MAX_FILES or size > MAX_BYTES:
                raise BadInput(
                    f"the task's folder {root} holds over {MAX_FILES} Python files, or {MAX_BYTES >> 20} MiB of them",
                    "they are carried to every worker",
                    "Put the task into a folder of its own.",
                )
            yield path


def _is_skipped(folder: Path) -> bool:
    """Data, builds, virtual environments, and the folders of runs, which hold copies of code themselves."""
    if folder.name in _SKIPPED or folder.name.startswith("."):
        return True
    return (folder / "pyvenv.cfg").exists() or (folder / "run.json").exists()
