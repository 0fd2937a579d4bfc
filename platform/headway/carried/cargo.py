"""What travels to the workers with a task: its Python, what that imports from elsewhere on this machine, and the files
beside it that it may read. Found by reading the source, without running it."""

from __future__ import annotations

import glob
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from headway.carried.reading import Reading, read
from headway.errors import BadInput

MAX_FILES, MAX_BYTES = 2000, 20 * 2**20
"""Python files, and their bytes, beyond which the task is asked to move to a folder of its own."""
LARGEST = 32 * 2**20
"""Bytes of a file that travels though neither the job nor the source names it."""
LARGEST_TABLE = 2**20
"""The same for tables, which are more often data than settings."""
MOST_BYTES, MOST_FILES = 64 * 2**20, 1000
"""Of all such files together."""
MOST_ALIKE = 100
"""Such files in one folder; more are data."""
MOST_NAMED_BYTES = 256 * 2**20
"""Of the files that the job or the source names: Ray ships them to machines that do not see this one's disk."""

BY_VALUE = "by_value_"
"""Begins the names of such files."""

_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson"}
_READ = {
    *(".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".gin", ".txt", ".md", ".xml", ".html", ".jinja"),
    *(".j2", ".tmpl", ".sql", ".proto", ".vocab", ".bpe", ".merges", ".model", ".spm", ".dict", ".lst", ".map"),
    *(".npy", ".npz", ".pt", ".pth", ".ckpt", ".safetensors", ".pkl", ".pickle", ".joblib", ".onnx", ".bin"),
    *(".so", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".pyx", ".pxd", ".pyi", ".typed", ".schema"),
}
"""Endings of what code reads beside itself: settings, vocabularies, weights, extensions and their sources."""
_NEVER = {"__pycache__", "node_modules", "site-packages"}
_RATHER_NOT = {"runs", "data", "datasets", "build", "dist", "venv", "mlruns", "wandb", "lightning_logs", "outputs"}
"""Folders that hold something else than code, unless they are packages or the task imports from them."""
_LOADED = {
    *(sys.stdlib_module_names - {*sys.builtin_module_names, "abc", "codecs", "encodings", "io", "os", "site", "stat"}),
    *("mlflow", "numpy", "pandas", "pyarrow", "pydantic", "ray", "torch", "typer", "yaml"),
}
"""Modules that a worker may have imported before the task, other than plain Python would have."""
_SECRET = re.compile(r"(^|[^a-z])(secrets?|credentials?|passwords?|service[-_]account)([^a-z]|$)")


@dataclass(frozen=True)
class Cargo:
    """What travels.

    Args:
        base: the folder whose layout is kept below it.
        files: every one, with its bytes; by the way on which the task would find it, links and all.
        paths: folders to be put on the import path, after the task's own.
        elsewhere: packages that come from outside the task's folder, and where from.
        notes: what stays behind though the task may want it, in words.
    """

    base: Path
    files: dict[Path, int] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    elsewhere: dict[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    def without(self, secrets: Sequence[str]) -> Cargo:
        """Without files, other than Python's, in which one of these stands: the job's own, say, beside the task.

        Raises:
            BadInput: one stands in a task that was taken by value.
        """
        found = [path for path in self.files if secrets and path.suffix != ".py" and _holds(path, secrets)]
        if not found:
            return self
        if any(is_by_value(path) for path in found):
            raise BadInput(
                "the task, which is given by value, holds the value of a secret variable",
                "it is kept with the run, where others may read it",
                "Read the variable in the task's constructor or in model().",
            )
        note = f"{', '.join(str(path) for path in found)} stays here: there is a secret in it"
        files = {path: size for path, size in self.files.items() if path not in found}
        return replace(self, files=files, notes=(*self.notes, note))

    def said(self) -> list[str]:
        """What a user should know before the start."""
        outside = [f"{name} travels too, from {place}" for name, place in self.elsewhere.items()]
        return [*outside, *self.notes]


def _holds(path: Path, words: Sequence[str]) -> bool:
    try:
        content = path.read_bytes()
    except OSError:  # told when it is carried
        return False
    return any(word.encode() in content for word in words)


def survey(
    folder: Path, module: str, inside: str, wanted: Sequence[str] | None = None, path: Sequence[Path] = ()
) -> Cargo:
    """Find what travels.

    Args:
        folder: on the import path, that of the task.
        module: of the task, in it.
        inside: package (or module of one file) that holds the task; '' for all of the folder.
        wanted: the job's `files`: patterns from the root of the file system, with '!' before those that stay behind.
        path: further folders that come before this process's own import path.

    Raises:
        BadInput: there is too much Python, or the job names a file that is not there, or too much; a module that is
            imported has the name of one that is imported before it.
    """
    _names_in.cache_clear()
    source = _Source(folder, inside, path)
    for entry in _entries(folder, module):
        source.follow(entry)
    _refuse_doubles(folder, module, source)
    stay = {path for pattern in wanted or () if pattern.startswith("!") for path in _matched(pattern[1:])}
    named = {path: size for path, size in _wanted(wanted or ()).items() if path not in stay}
    found = _Found(source, stay | set(named))
    for root in source.roots:
        if root.is_relative_to(folder):
            found.walk(root)
    outside = [root for root in source.roots if not root.is_relative_to(folder)]
    elsewhere = {root.stem: root for root in outside if found.holds(root)}
    chosen = {**found.sources, **found.chosen(folder, source.named()), **named}
    left = {root.parent for root in outside} - {root.parent for root in elsewhere.values()}
    paths = tuple(sorted(source.homes - left - {folder}))
    base = Path(os.path.commonpath([folder, *paths, *(path.parent for path in chosen)]))
    return Cargo(base, chosen, paths, elsewhere, tuple(found.notes))


def _refuse_doubles(folder: Path, module: str, source: _Source) -> None:
    """Raises BadInput: two modules have one name, and which is got hangs on what the process has imported before."""
    for file, said in source.files.items():
        for top in sorted({name.partition(".")[0] for level, name in said.imports if not level} & _LOADED):
            for own in (folder / f"{top}.py", folder / top / "__init__.py"):
                if top != module and own.is_file():
                    raise BadInput(
                        f"{file.name} imports {top}, which is a module of yours and one that workers have already",
                        f"which of the two it gets depends on what was imported before: {own} has a name that is taken",
                        "Give it another name.",
                    )


def only_named(wanted: Sequence[str], folder: Path) -> Cargo:
    """What travels with code that is installed on every machine: the files that the job names.

    Raises:
        BadInput: as of `survey`.
    """
    chosen = _wanted(wanted)
    return Cargo(Path(os.path.commonpath([path.parent for path in chosen])) if chosen else folder, chosen)


def _entries(folder: Path, module: str) -> Iterator[Path]:
    """The file of the task's module, and those of the packages around it."""
    file = folder / f"{module}.py"
    if file.is_file():
        yield file
        return
    at = folder
    for part in module.split("."):
        if (at / f"{part}.py").is_file():
            yield at / f"{part}.py"
        at = at / part
        if (at / "__init__.py").is_file():
            yield at / "__init__.py"


class _Source:
    """The task's Python and what it imports: followed from file to file.

    Attributes:
        files: that were read.
        roots: what travels whole: the task's folder or package, and packages and modules of one file that it imports
            from beside that, or from elsewhere if they are not installed.
        homes: folders that modules are imported from.
    """

    def __init__(self, folder: Path, inside: str, path: Sequence[Path]) -> None:
        self.files: dict[Path, Reading] = {}
        package = folder / inside
        self.roots = [package if package.is_dir() else folder / f"{inside}.py"]
        self.homes: set[Path] = set()
        self._folder, self._path = folder, [folder, *path]

    def follow(self, file: Path) -> None:
        """Read a file, and those that it imports."""
        waiting = [file]
        while waiting:
            path = waiting.pop()
            if path in self.files or path.suffix != ".py" or len(self.files) >= MAX_FILES:
                continue
            found = self.files[path] = read(path)
            self._path += [place for place in found.path if place not in self._path]
            for level, name in found.imports:
                waiting += self._found(path, level, name)

    def uses(self, folder: Path) -> bool:
        """Whether a module in the folder is imported."""
        return any(folder in path.parents for path in self.files)

    def named(self) -> set[Path]:
        """Files that the source names: by a way from its own place, from the current folder, or from the task's."""
        found: set[Path] = set()
        for file, said in self.files.items():
            near = {file.parent, self._folder}
            folders = {way for at in near for text in said.texts if _may_be(at, text) and (way := at / text).is_dir()}
            names = [text for text in said.texts if "." in text]
            below = (at / name for at in near | folders for name in names if _may_be(at, name))
            found |= {Path(os.path.normpath(way)) for way in (*said.named, *below) if way.suffix != ".py"}
        return {path for path in found if _is_file(path) and not is_installed(path)}

    def _found(self, file: Path, level: int, name: str) -> list[Path]:
        """Files of ours that an import runs, those of the packages on the way among them."""
        parts = name.split(".") if name else []
        if level:
            at = file.parent
            for _ in range(level - 1):
                at = at.parent
            return [at / "__init__.py"] * (at / "__init__.py").is_file() + _down(at, parts)
        return [path for home in self._homes(parts[0]) for path in _down(home, parts)]

    def _homes(self, top: str) -> list[Path]:
        """The folders from which a module is imported; none for what is installed or Python's own."""
        if top in sys.stdlib_module_names or top == "headway":
            return []
        found = places(top, self._path)
        for place in found:
            self.homes.add(place.parent)
            if not any(place.is_relative_to(root) for root in self.roots):
                self.roots.append(place)
        return [place.parent for place in found]


def _down(at: Path, parts: Sequence[str]) -> list[Path]:
    found = []
    for part in parts:
        found += [path for path in (at / f"{part}.py", at / part / "__init__.py") if path.is_file()]
        at = at / part
    return found


def places(top: str, first: Sequence[Path] = ()) -> list[Path]:
    """Where a package or module lies that is not installed, but found by the import path or an editable install.

    A package without __init__.py may lie in several places.

    Args:
        top: its name, up to the first dot.
        first: folders to look into before all others.
    """
    path = [*map(str, first), *sys.path] if first else None
    try:
        spec = importlib.machinery.PathFinder.find_spec(top, path) or importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    found = [Path(each) for each in spec.submodule_search_locations or ()]
    if not found and spec.origin is not None and spec.has_location:
        found = [Path(spec.origin)]
    return [place for each in found if not is_installed(place := Path(os.path.normpath(Path.cwd() / each)))]


def is_by_value(file: str | Path) -> bool:
    """Whether a file, or a module's name, is of a thing that was taken by value, see `headway.carried.value`."""
    return re.fullmatch(rf"{BY_VALUE}[0-9a-f]{{16}}", Path(file).stem) is not None


def is_installed(place: Path) -> bool:
    """Whether a file belongs to an environment, or to Python, and so not to the user's own work."""
    homes = {Path(sys.prefix), Path(sys.base_prefix)} - {Path("/"), Path("/usr")}
    library = Path(os.__file__).parent
    if {"site-packages", "dist-packages"} & set(place.parts) or place.is_relative_to(library):
        return True
    return any(place.is_relative_to(home / "lib") for home in homes)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is no name
        return False


def _may_be(at: Path, text: str) -> bool:
    """Whether a text can be the way to something in a folder; looked up in memory, since sources hold many texts."""
    first = text.removeprefix("./").partition("/")[0]
    return first in ("..", ".") or first in _names_in(str(at))


@lru_cache(maxsize=256)
def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(path.name for path in Path(folder).iterdir())
    except OSError:
        return frozenset()


class _TooMuch(Exception):
    """Args: a Python file that is one of too many."""


class _Found:
    """Files of the folders that are walked through."""

    def __init__(self, source: _Source, stay: set[Path]) -> None:
        self.sources: dict[Path, int] = {}
        self.notes: list[str] = []
        self._source, self._stay = source, stay
        self._others: dict[Path, int] = {}
        self._python_bytes = 0
        self._names = {Path(text).name for said in source.files.values() for text in said.texts}

    def walk(self, root: Path) -> None:
        """Look at the task's folder and all below it, through links too; or at a module of one file.

        Raises:
            BadInput: there is too much Python.
        """
        try:
            self._walk(root)
        except _TooMuch as path:
            raise BadInput(
                f"the task's folder holds over {MAX_FILES} Python files, or {MAX_BYTES >> 20} MiB of them",
                f"they are carried to every worker; one of them is {path}",
                "Put the task into a folder of its own.",
            ) from None

    def holds(self, root: Path) -> bool:
        """Look at a package from elsewhere; whether it can travel."""
        before = self.sources.copy(), self._others.copy()
        try:
            self._walk(root)
        except _TooMuch:
            self.sources, self._others = before
            self._python_bytes = sum(self.sources.values())
            self.notes.append(
                f"{root} stays behind, though the task imports it: it is large. Install it on every machine"
            )
            return False
        return True

    def _walk(self, root: Path) -> None:
        if root.is_file():
            self.python(root) if root.suffix == ".py" else self._other(root)
        for folder, folders, names in os.walk(root, followlinks=True):
            at = Path(folder)
            folders[:] = sorted(name for name in folders if not self._is_skipped(at / name))
            others = []
            for name in sorted(names):
                path = at / name
                wanted = path.suffix.lower() in _READ | _TABLES or name in self._names
                if path in self._stay or not (path.suffix == ".py" or (wanted and not name.startswith("."))):
                    continue
                if not path.is_file():
                    continue
                if path.suffix == ".py":
                    self.python(path)
                else:
                    others.append(path)
            alike = [path for path in others if path.name not in self._names]
            if len(alike) > MOST_ALIKE:
                self.notes.append(f"{at} stays behind: its {len(alike)} files look like data. {_HOW}")
                others = [path for path in others if path.name in self._names]
            for path in others:
                self._other(path)

    def python(self, path: Path) -> None:
        """A Python file, which travels whatever it is called. Raises _TooMuch."""
        self.sources[path] = path.stat().st_size
        self._python_bytes += self.sources[path]
        if len(self.sources) > MAX_FILES or self._python_bytes > MAX_BYTES:
            raise _TooMuch(path)

    def chosen(self, folder: Path, named: Iterable[Path]) -> dict[Path, int]:
        """Of all other files those that travel: what the source names first, then what is nearest to it."""
        for path in named:
            if path not in self._stay and path not in self.sources:
                self._other(path)
        sure = set(named)
        first = sure | {path for path in self._others if path.name in self._names}

        def order(path: Path) -> tuple[bool, bool, int, Path]:
            return path not in sure, path not in first, len(path.parts), path

        found: dict[Path, int] = {}
        left: list[str] = []
        total = 0
        for path in sorted(self._others, key=order):
            size = self._others[path]
            limit = LARGEST_TABLE if path.suffix.lower() in _TABLES and path not in first else LARGEST
            limit = MOST_NAMED_BYTES if path in sure else limit
            if _SECRET.search(path.name.lower()):
                reason = "it looks like a secret"
            elif size > limit:
                reason = f"{size / 1e6:,.1f} MB"
            elif total + size > (MOST_NAMED_BYTES if path in sure else MOST_BYTES) or len(found) >= MOST_FILES:
                reason = "there are too many such files"
            else:
                found[path], total = size, total + size
                continue
            if path in first:
                self.notes.append(f"{path} stays behind, though the task names it: {reason}. {_HOW}")
            else:
                left.append(f"{os.path.relpath(path, folder)} ({reason})")
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            self.notes.append(f"beside the task stay behind: {', '.join(left[:3])}{more}. {_HOW}")
        return found

    def _other(self, path: Path) -> None:
        if os.access(path, os.R_OK):
            self._others[path] = path.stat().st_size

    def _is_skipped(self, folder: Path) -> bool:
        """Data, builds, virtual environments, and the folders of runs, which hold copies of code themselves."""
        name = folder.name
        if name in _NEVER or name.startswith(".") or name.endswith(".egg-info") or folder in self._stay:
            return True
        if folder.is_symlink() and not self._is_led_to(folder):
            return True
        if (folder / "pyvenv.cfg").exists() or (folder / "run.json").exists():
            return True
        if next(folder.glob("*/run.json"), None) is not None and not (folder / "__init__.py").exists():
            return True
        if (folder / "manifest.json").exists() and any(folder.glob("*.parquet")):
            return True
        return name in _RATHER_NOT and not (folder / "__init__.py").exists() and not self._source.uses(folder)

    def _is_led_to(self, link: Path) -> bool:
        """Whether a link to a folder is to be followed: one to code, or that the source names; others lead to data."""
        if link.resolve() in (above.resolve() for above in link.parents):
            return False
        return link.name in self._names or self._source.uses(link) or next(link.glob("*.py"), None) is not None


_HOW = "What the task reads of it, name under `files:` in the job"


def _matched(pattern: str) -> Iterator[Path]:
    for name in glob.glob(pattern, recursive=True):  # noqa: PTH207  Path's own has no absolute patterns
        yield Path(os.path.normpath(name))


def _wanted(patterns: Sequence[str]) -> dict[Path, int]:
    """Files that the job names; of folders all that is in them."""
    found: dict[Path, int] = {}
    for pattern in patterns:
        if pattern.startswith("!"):
            continue
        matches = list(_matched(pattern))
        if not matches:
            raise BadInput(
                f"files: {_unescaped(pattern)}", "there is no such file", "Name files that are there, or leave it out."
            )
        for match in matches:
            below = match.rglob("*") if match.is_dir() else [match]
            found |= {path: path.stat().st_size for path in below if path.is_file() and "__pycache__" not in path.parts}
    total = sum(found.values())
    if total > MOST_NAMED_BYTES:
        largest = max(found, key=lambda path: found[path])
        raise BadInput(
            f"files: {len(found)} files of {total / 1e6:,.0f} MB, the largest {largest}",
            f"at most {MOST_NAMED_BYTES >> 20} MiB travel with a task",
            "Put large files where all machines see them, and give their path in `arguments`.",
        )
    return found


def _unescaped(pattern: str) -> str:
    return re.sub(r"\[([*?[])\]", r"\1", pattern)
