"""What is given from Python and lies in no file (a class of a notebook's cell, a lambda, an object): taken by value.

It becomes a module of its own, which travels, is kept and is imported as any file of the user's is:

by_value_DIGEST.py      imports the user's own modules that it needs, and gives the thing under its name
by_value_DIGEST.pkl     the thing, by cloudpickle
by_value_DIGEST.json    what it needs, and the source of its code, for tracebacks
"""

from __future__ import annotations

import hashlib
import inspect
import json
import keyword
import linecache
import pickle
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headway import durable
from headway.carried import cargo
from headway.errors import BadInput
from headway.faults.blame import reason, users_traceback

_MODULE = '''"""{name}, as it was given by value. Made by Headway: a change here changes no run."""

{imports}from headway.carried import value

FILES = ("{stem}.pkl", "{stem}.json")  # that belong to it

{name} = value.{how}(__file__)
'''


@dataclass(frozen=True)
class Value:
    """A thing, by value.

    Args:
        name: by which it is asked for: its own, where it has one that can be written.
        digest: SHA-256 of the content.
        content: by cloudpickle.
        python: major and minor version that it needs.
        torch: likewise; '' where there is none.
        modules: of the user's own, that it needs beside it.
        sources: of its code, by the names of files.
        task: it is a task, or a loop of the user's own.
    """

    name: str
    digest: str
    content: bytes
    python: str
    torch: str
    modules: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)
    task: bool = False

    @property
    def stem(self) -> str:
        """Of its files."""
        return f"{cargo.BY_VALUE}{self.digest[:16]}"


def take(thing: Any, what: str) -> Value:
    """Take a thing by value.

    Args:
        thing: a class, a function or an object.
        what: it is called in errors: `task`, `data.train`.

    Raises:
        BadInput: something in it cannot travel (an open file, a lock, a tensor on a GPU, ...), told by the path to it;
            or it is too large.
    """
    from headway.carried.pickling import dumped, own_modules

    content, noted = dumped(thing, what)
    if len(content) > cargo.MOST_NAMED_BYTES:
        raise BadInput(
            f"{what} takes {len(content) / 1e6:,.0f} MB by value",
            f"at most {cargo.MOST_NAMED_BYTES >> 20} MiB travel with a task",
            "Put what is large into a file that all machines see, and read it from there.",
        )
    digest = hashlib.sha256(content).hexdigest()
    modules = tuple(own_modules(noted.modules))
    return Value(
        _name(thing, what), digest, content, *versions(), modules, noted.sources, what.partition(".")[0] == "task"
    )


def put(value: Value, folder: Path) -> Path:
    """Write it into a folder, as a module; returns that file.

    Raises:
        OSError: it cannot be written.
    """
    file = folder / f"{value.stem}.py"
    imports = "".join(f"import {module}  # noqa: F401\n" for module in value.modules)
    about: dict[str, Any] = {"name": value.name, "digest": value.digest, "python": value.python, "torch": value.torch}
    about |= {"pickle": f"{value.stem}.pkl", "sources": value.sources}
    text = _MODULE.format(name=value.name, imports=imports, how="task" if value.task else "give", stem=value.stem)
    durable.replace(file.with_suffix(".pkl"), value.content)
    durable.replace(file.with_suffix(".json"), json.dumps(about).encode())
    durable.replace(file, text.encode())
    return file


def demand(file: str | Path) -> dict[str, Any]:
    """What is known of a thing without making it.

    Args:
        file: of its module.

    Raises:
        BadInput: it is not whole, or was taken under another Python or torch than this process has.
    """
    file = Path(file)
    try:
        about: dict[str, Any] = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(file, reason(error)) from None
    mine = versions()
    for name, had, has in (("Python", about["python"], mine[0]), ("torch", about["torch"], mine[1])):
        if had and had != has:
            raise BadInput(
                f"{about['name']} was given by value under {name} {had}, and this is {name} {has}",
                "its code is kept as that version has it in memory, which others cannot read",
                f"Go on with {name} {had}, or put the code into a file and begin a new run.",
            )
    return about


def give(file: str | Path) -> Any:
    """The thing that was put there, made anew.

    Args:
        file: of its module.

    Raises:
        BadInput: as of `demand`, or it cannot be made here; carries the user's traceback where their code raised.
    """
    return _made(*_content(Path(file)))


def task(file: str | Path) -> Any:
    """The same of a task: a class, or a function, whatever was given; an object is made anew by each call."""
    from headway.task import Task

    content, name = _content(Path(file))
    thing = _made(content, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        return thing
    made = getattr(thing, "func", None)
    if isinstance(thing, Task):
        return _class_of(type(thing), name, lambda: _made(content, name))
    if inspect.isclass(made) and issubclass(made, Task):
        return _class_of(made, name, thing)
    return _function_of(thing, name)


def versions() -> tuple[str, str]:
    """Major and minor, of Python and torch."""
    try:
        torch = ".".join(version("torch").split(".")[:2])
    except PackageNotFoundError:
        torch = ""
    return ".".join(platform.python_version_tuple()[:2]), torch


def _content(file: Path) -> tuple[bytes, str]:
    about = demand(file)
    try:
        content = file.with_suffix(".pkl").read_bytes()
    except OSError as error:
        raise _broken(file, reason(error)) from None
    if hashlib.sha256(content).hexdigest() != about["digest"]:
        raise _broken(file, "its digest is another")
    for name, text in about["sources"].items():  # no time: it is not looked for on the disk, where it may have changed
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    return content, str(about["name"])


def _made(content: bytes, name: str) -> Any:
    try:
        return pickle.loads(content)
    except Exception as error:  # whatever the user's own modules and __setstate__ raise
        bad = BadInput(
            f"{name}, which was given by value, cannot be made here",
            reason(error),
            "What it needs must be installed on every machine, or be a module of your own beside your script.",
        )
        bad.traceback = users_traceback(error)
        raise bad from None


def _broken(file: Path, why: str) -> BadInput:
    return BadInput(f"{file.with_suffix('.pkl')} is not whole", why, "Bring the run's folder back as it was.")


def _class_of(kind: type, name: str, make: Any) -> Any:
    """A class whose objects are what `make` gives: a task that is an object is called as one that is a class is."""

    def new(cls: type, *given: Any, **named: Any) -> Any:
        return make(*given, **named)

    signature = inspect.signature(make)
    return type(name, (kind,), {"__new__": new, "__module__": kind.__module__, "__signature__": signature})


def _function_of(thing: Any, name: str) -> Any:
    def call(*given: Any, **named: Any) -> Any:
        return thing(*given, **named)

    call.__name__ = call.__qualname__ = name
    call.__wrapped__ = thing  # type: ignore[attr-defined]  # its signature is what arguments are checked by
    return call


def _name(thing: Any, what: str) -> str:
    for found in (thing, getattr(thing, "func", None), type(thing)):
        name = str(getattr(found, "__name__", ""))
        if name.isidentifier() and not keyword.iskeyword(name) and name != "value":
            return name
    return re.sub(r"\W", "_", what)
