"""The user's Python: found from the job's `task`, imported, and carried to the workers."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headway.carried import cargo, value
from headway.carried.cargo import Cargo
from headway.carried.packed import Packed, unpacked
from headway.durable import sync_folder, take_place
from headway.errors import BadInput, nearest
from headway.faults.blame import reason
from headway.faults.blame import users_traceback as users_traceback
from headway.task import Task

_folders: set[Path] = set()  # of tasks' files that were put on the import path of this process
_imported: list[str] = []  # tasks' modules that are being imported
LAYOUT = ".headway.json"
"""In what was carried, where the task does not lie at the top of it: its folder, and others for the import path."""
FITTED = ".headway-fitted"
"""Beside it, what the task was fitted to, see `headway.carried.fitted`: kept when the code is carried anew."""


@dataclass(frozen=True)
class Source:
    """Where the user's code is.

    Args:
        folder: put on the import path.
        module: to import from there.
        name: class or function in it.
        inside: subfolder that is carried ('' for all of `folder`), None where the code is installed on every machine.
        paths: further folders for the import path.
        copied: this is a run's own copy.
        packed: how a machine gets that copy which does not see its folder.
        copy: the folder that all was carried to, also beside code that is installed.
    """

    folder: Path
    module: str
    name: str
    inside: str | None
    paths: tuple[Path, ...] = ()
    copied: bool = False
    packed: Packed | None = None
    copy: Path | None = None


def locate(task: str) -> Source:
    """Find the code without importing it.

    Raises:
        BadInput: the file or module is not there.
    """
    where, _, name = task.rpartition(":")
    if where.endswith(".py"):
        path = Path(os.path.abspath(os.path.expanduser(where)))  # noqa: PTH100, PTH111  links stay; ~nobody too
        if not path.is_file():
            raise BadInput(f"task={task}", f"{path} does not exist", "Give file.py:Class, relative to the job's file.")
        real = path.resolve().parent if path.is_symlink() else path.parent  # where Python looks for modules
        return Source(path.parent, path.stem, name, "", () if real == path.parent else (real,))
    top = where.partition(".")[0]
    for folder in (Path.cwd(), *map(Path, sys.path)):
        if (folder / top).is_dir() or (folder / f"{top}.py").is_file():
            installed = cargo.is_installed(folder / top)
            return Source(folder.resolve(), where, name, None if installed else top)
    for place in cargo.places(top):  # an editable install, which the import path does not show
        return Source(place.parent, where, name, top)
    raise BadInput(
        f"task={task}", f"there is no module {top!r} here or on the import path", "Run from its folder, or install it."
    )


def look(source: Source) -> None:
    """Read a task's file without running it: is it Python, and does it have that name? Other modules are left alone.

    Raises:
        BadInput: not so, for sure.
    """
    path = source.folder / f"{source.module}.py"
    if source.inside != "" or not path.is_file():
        return
    if cargo.is_by_value(path):
        value.demand(path)
        return
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        bad = BadInput(f"the task's module {source.module} cannot be imported", reason(error), "Mend it.")
        bad.traceback = users_traceback(error)
        raise bad from None
    if any(isinstance(node, ast.ImportFrom) and node.level for node in tree.body):
        raise BadInput(
            f"the task's module {source.module} cannot be imported",
            "it imports relative to a package, and is named as a file",
            _package_remedy(source),
        )
    named = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    plain = (ast.ClassDef, ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Expr)
    others = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    others |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    certain = all(isinstance(node, plain) for node in tree.body) and not {"*", "__getattr__"} & others
    if certain and source.name not in {*named, *others}:
        remedy = nearest(source.name, named) if named else "Subclass headway.Task in it, or write a function."
        raise BadInput(f"task={source.name!r}", f"{source.module} has no such class or function", remedy)


def here(source: Source) -> Source:
    """The same code, as this machine has it. Raises RunFailed: it cannot be brought here."""
    if source.packed is None:
        return source
    return carried(replace(source, copied=False, packed=None, copy=None), unpacked(source.packed))


class CalledOnImport(BadInput):
    """A script begins a run whenever it is imported."""


def refuse_on_import(what: str) -> None:
    """Raises CalledOnImport: this is called while the task's file is imported, by whoever is to run it. A script that
    calls it at its top would begin a run in every worker of the run."""
    if _imported:
        raise CalledOnImport(
            f"{_imported[-1]} calls {what} whenever it is imported",
            "a run's workers import the file to find the task in it, and each would begin a run of its own",
            'Put the call under `if __name__ == "__main__":`.',
        )


@contextmanager
def _importing(source: Source) -> Iterator[None]:
    _imported.append(f"{source.module}.py" if source.inside == "" else source.module)
    try:
        yield
    finally:
        _imported.pop()


def load(source: Source) -> Callable[..., Any]:
    """Import the class or function.

    Raises:
        BadInput: it cannot be imported or is not there; carries the user's traceback where their code raised.
    """
    source = here(source)
    module = _import(source, "the task's")
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


def named(source: Source, whose: str) -> Any:
    """Import whatever has the name in a module that travels with a task.

    Args:
        source: of it, on this machine.
        whose: `data.train`, say, for errors.

    Raises:
        BadInput: it cannot be imported or is not there; carries the user's traceback where their code raised.
    """
    module = _import(source, f"{whose}'s")
    if not hasattr(module, source.name):
        names = [name for name in vars(module) if not name.startswith("_")]
        raise BadInput(f"{whose}: {source.name!r}", f"{source.module} has no such name", nearest(source.name, names))
    return getattr(module, source.name)


def _import(source: Source, whose: str) -> Any:
    _make_importable(source)
    try:
        with _importing(source):
            return _module(source)
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        if isinstance(error, CalledOnImport):
            error.traceback = users_traceback(error)
        if isinstance(error, CalledOnImport) or (isinstance(error, BadInput) and cargo.is_by_value(source.module)):
            raise
        bad = BadInput(
            f"{whose} module {source.module} cannot be imported",
            f"{type(error).__name__}: {error}",
            "Mend it, or install what it needs.",
        )
        bad.traceback = users_traceback(error)
        raise bad from None


def _package_remedy(source: Source) -> str:
    """For a file that imports relative to a package, and was named as a file."""
    top, parts = source.folder, [source.module]
    while (top / "__init__.py").is_file():
        top, parts = top.parent, [top.name, *parts]
    if len(parts) == 1:
        return "Put an __init__.py beside it and name it as package.module:Class, or import without the dot."
    where = "" if top == Path.cwd() else f" from {top}"
    return f"It is part of a package: name it {'.'.join(parts)}:{source.name}, and run{where or ' from here'}."


def survey(source: Source, files: list[str] | None = None) -> Cargo:
    """What of the user's code and files travels. Nothing is run.

    Args:
        source: of the task; a run's copy travels no more.
        files: the job's.

    Raises:
        BadInput: there is too much of it, or a file that the job names is not there.
    """
    if source.copied:
        return Cargo(source.folder)
    if source.inside is None:
        return cargo.only_named(files or [], source.folder)
    return cargo.survey(source.folder, source.module, source.inside, files, source.paths)


def carry(source: Source, to: Path, load: Cargo | None = None) -> None:
    """Copy the task's Python, and the files that travel with it, into the run's folder.

    What was carried before stays until the new copy is whole.

    Raises:
        BadInput: there are too many of them, or they cannot be written.
    """
    load = load or survey(source)
    _replace(to, lambda beside: _copy(source, load, beside))


def changed(source: Source, to: Path, load: Cargo) -> list[str]:
    """Files, by their names in what was carried to a folder before, that would be others there by now, or not there.
    (What would be new there is not told: nothing that was there asks for it.) None where nothing was."""
    there = (
        [path for path in to.rglob("*") if path.is_file() and "__pycache__" not in path.parts] if to.is_dir() else []
    )
    mine = {path.relative_to(load.base): path for path in load.files}
    names = {path.relative_to(to): path for path in there if path.name not in (LAYOUT, FITTED)}
    other = (name for name, path in names.items() if name not in mine or not _same(path, mine[name]))
    return sorted(str(name) for name in other)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def adopt(folder: Path, to: Path) -> None:
    """Copy what was carried to `folder` on its way here into the run's folder. Raises BadInput as `carry`."""
    _replace(to, lambda beside: shutil.copytree(folder, beside, dirs_exist_ok=True))


def _replace(to: Path, fill: Callable[[Path], object]) -> None:
    """Have a folder filled anew; what it held stays until that is done."""
    beside, aside = to.with_name(f".{to.name}.new"), to.with_name(f".{to.name}.old")
    try:
        _restore(to, aside)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        fill(beside)
        if (to / FITTED).is_file():
            shutil.copy2(to / FITTED, beside / FITTED)
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


def _copy(source: Source, load: Cargo, to: Path) -> None:
    for path in load.files:
        target = to / path.relative_to(load.base)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(path, target)
        except FileNotFoundError:  # gone meanwhile: another process's, unless it is code
            if path.suffix == ".py":
                raise
    if source.folder == load.base and not load.paths:
        return
    layout = {"folder": os.path.relpath(source.folder, load.base)}
    paths = [os.path.relpath(path, load.base) for path in load.paths]
    (to / LAYOUT).write_text(json.dumps({**layout, "paths": paths}), encoding="utf-8")


def carried(source: Source, folder: Path) -> Source:
    """The same code, as it was carried to `folder`."""
    if source.inside is None or source.copied:
        return replace(source, copy=source.copy or folder)
    try:
        layout = json.loads((folder / LAYOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        layout = {"folder": ".", "paths": []}
    paths = tuple(Path(os.path.normpath(folder / path)) for path in layout["paths"])
    home = Path(os.path.normpath(folder / layout["folder"]))
    return Source(home, source.module, source.name, source.inside, paths, copied=True, copy=folder)


def kept(task: str, folder: Path) -> Source:
    """The code of a task as a run has kept it in `folder`, whatever became of the original."""
    where, _, name = task.rpartition(":")
    if where.endswith(".py"):
        return carried(Source(folder, Path(where).stem, name, ""), folder)
    return carried(Source(folder, where, name, where.partition(".")[0]), folder)


def delivered(task: str, folder: Path) -> Source:
    """The code of a task that came to `folder` from another machine; what did not come is installed on this one.

    Raises:
        BadInput: it is neither.
    """
    source, where = kept(task, folder), task.rpartition(":")[0]
    top = where.partition(".")[0]
    came = where.endswith(".py") or (source.folder / top).is_dir() or (source.folder / f"{top}.py").is_file()
    return source if came else replace(locate(task), copied=True)  # what travels with it has come


def home(source: Source, folder: Path) -> Path:
    """Where workers of a cluster begin, and open what they name without a folder.

    Args:
        folder: that the code was carried to.
    """
    copy = carried(source, folder)
    return copy.folder if copy.copied and copy.inside is not None else folder


def sender(task: str, source: Source, folder: Path) -> Path:
    """Where the sender of what lies in `folder` has it: as far as the task's name says, else the empty path."""
    where = task.rpartition(":")[0]
    if not where.endswith(".py"):
        return Path()
    return Path(os.path.normpath(Path(where).parent / os.path.relpath(folder, source.folder)))


def own_paths(text: str, copy: Path, base: Path) -> tuple[str, list[Path]]:
    """A text that names files of the carried copy, with the user's own in their place.

    Args:
        text: a traceback, or an error's message.
        copy: the folder that the code was carried to.
        base: where what was carried lies as the user has it.

    Returns:
        The text, and the files in it that the user has, and that were not carried.
    """
    left: dict[Path, None] = {}

    def own(match: re.Match[str]) -> str:
        path = Path(match[0])
        mine = Path(os.path.normpath(base / os.path.relpath(path, copy)))
        if path.is_relative_to(copy) and path.exists():
            return str(mine)
        if path.exists() or not (mine.exists() or path.is_relative_to(copy)):
            return match[0]
        if mine.exists():
            left[mine] = None
        return str(mine)

    above = re.escape(str(copy.parent))
    quoted = rf"(?<='){above}/[^'\n]+(?=')|(?<=\"){above}/[^\"\n]+(?=\")"
    return re.sub(rf"{quoted}|{above}/[^\s'\"<>:,;()\[\]]+", own, text), list(left)


def left_behind(files: list[Path]) -> str:
    """What to do about files of the user's that did not travel, and that the task wanted."""
    return f"{' and '.join(map(str, files))} did not travel to the workers: name it under `files:` in the job."


def _make_importable(source: Source) -> None:
    """Put the task's folder first on the import path, and forget another task's modules of the same names."""
    folder = str(source.folder)
    first = [folder, *map(str, source.paths)]
    if sys.path[: len(first)] != first:
        sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]
    importlib.invalidate_caches()
    if source.inside is None:
        return
    others = _folders - {source.folder}
    _folders.add(source.folder)
    if not others:
        return  # nothing of another task is here
    own = _names_in(source.folder)
    for name, module in sys.modules.copy().items():  # thousands: only those of our names are looked at
        if name.partition(".")[0] not in own:
            continue
        file = Path(getattr(module, "__file__", None) or os.sep)
        if not file.is_relative_to(source.folder) and any(map(file.is_relative_to, others)):
            del sys.modules[name]


def _names_in(folder: Path) -> set[str]:
    """What an import may find in a folder: its modules, and folders that may be packages."""
    found = set()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                found.add(entry.name)
            elif entry.name.endswith(".py") and entry.is_file():
                found.add(entry.name[:-3])
    return found


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
