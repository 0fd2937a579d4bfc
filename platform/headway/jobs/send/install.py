"""Packages that a run needs on the cluster, and how they are brought to one that lacks them (`--install`)."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headway.carried.code import Source
from headway.errors import BadInput
from headway.jobs.there.needs import version_of

LEADING = ("numpy", "pyarrow", "pydantic", "pyyaml", "ray", "torch", "xxhash")
"""Of Headway's requirements, by their distributions' names, those without which no run is led."""
RECORDS, STORES = "mlflow", "obstore"
"""Others: of a run that is recorded by MLflow; of one that has anything in an object store."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def needed(tracked: bool, stores: bool) -> dict[str, str]:
    """What Headway itself needs, with what a version must be; see `headway.jobs.there.needs`.

    Args:
        tracked: whether MLflow keeps the run's records.
        stores: whether anything is in an object store.
    """
    names = [*LEADING, *([RECORDS] if tracked else []), *([STORES] if stores else [])]
    demands = _demands()
    return {name: demands.get(name) or version_of(name) or "" for name in sorted(names)}


def _demands() -> dict[str, str]:
    """What Headway's own metadata demands, by name; nothing where it is run from a folder without any."""
    try:
        lines = importlib.metadata.requires("headway") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for line in lines:
        demand, _, condition = line.partition(";")
        name = _NAME.match(demand)
        if name is not None and "extra" not in condition:
            found[_normal(name[0])] = re.sub(r"^\[[^]]*\]", "", demand[name.end() :].strip()).strip()
    return found


def of_task(source: Source) -> dict[str, str]:
    """Distributions that the task's module, and those of the user's own that it imports, cannot be imported without;
    with the versions that this machine has. What is imported in a function or a `try` may not be needed."""
    if source.inside is None:  # the task itself is of an installed package
        found = {source.module.partition(".")[0]}
    else:
        found = set(_imported(source))
    unknown = found - sys.stdlib_module_names - {"headway"}
    if not unknown:
        return {}
    homes = importlib.metadata.packages_distributions()
    names = {_normal(name) for top in unknown for name in homes.get(top, [])}
    return {name: here for name in sorted(names - {"headway"}) if (here := version_of(name)) is not None}


def _imported(source: Source) -> Iterator[str]:
    """Top names of what is imported from elsewhere, following the user's own modules."""
    homes = (source.folder, *source.paths)
    waiting, seen = _files(homes, source.module), set[Path]()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for name in _names(file):
            own = _files((file.parent,), name.lstrip(".")) if name.startswith(".") else _files(homes, name)
            waiting += own
            if not own and not name.startswith("."):
                yield name.partition(".")[0]


def _files(homes: Sequence[Path], name: str) -> list[Path]:
    """Files of the user's own that the import of a dotted name runs."""
    found, parts = [], name.split(".") if name else []
    for home in homes:
        at = home
        for part in parts:
            found += [path for path in (at / f"{part}.py", at / part / "__init__.py") if path.is_file()]
            at = at / part
    return found


def _names(file: Path) -> Iterator[str]:
    """What a file imports whenever it is imported; with a dot before what is beside it."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots, module = "." * node.level, node.module or ""
            yield f"{dots}{module}"
            yield from (f"{dots}{module}{'.' if module else ''}{alias.name}" for alias in node.names)


def requirements(lacks: Mapping[str, Sequence[str | None]]) -> list[str]:
    """What is to be installed, pinned to the versions of this machine.

    Args:
        lacks: [wanted, found] by name, as the cluster told.

    Raises:
        BadInput: Ray is among them, and cannot be brought to a cluster that it is.
    """
    if "ray" in lacks:
        wanted, found = lacks["ray"][0], lacks["ray"][1]
        fact = f"the cluster has {'another Ray' if found else 'no Ray that can be seen'}: {wanted} is wanted"
        raise BadInput(fact, "--install brings packages to a Ray, not another Ray", f"Use a cluster with Ray {wanted}.")
    return [_pinned(name, str(lacks[name][0] or "")) for name in sorted(lacks)]


def _pinned(name: str, wanted: str) -> str:
    here = version_of(name)
    if here is not None:
        return f"{name}=={here.partition('+')[0]}"  # what stands behind it is a build's, which an index may not have
    return f"{name}=={wanted}" if wanted[:1].isdigit() else f"{name}{wanted}"


def runtime_env(wanted: Iterable[str]) -> dict[str, Any]:
    """The part of Ray's runtime environment that installs them."""
    return {"uv": {"packages": list(wanted), "uv_check": False}}


def failure(message: str) -> str:
    """Of Ray's words on an environment that could not be made, those of the installer."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(ERROR|error|\u00d7|\u2570|Because|hint|No solution)", line)]
    last = [line for line in lines if re.search(r"\w", line)]
    return " ".join(dict.fromkeys(telling[:4])) or (last[-1] if last else "Ray says no more")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
