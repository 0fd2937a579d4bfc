"""The parts of Headway that a task's code uses, copied beside it: an exported model is used without the rest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

BASE = ("headway.task", "headway.errors", "headway.data.arrays", "headway.data.tensors", "headway.checkpoint.flat")
ROOMS = (
    "headway.core.",
    "headway.data.",
    "headway.strategies.plain",
    "headway.metrics",
    "headway.hooks",
    "headway.logged",
    *BASE,
)
"""What may go. The rest is about training."""
NOT = ("headway.data.prepare", "headway.data.ray_data", "headway.data.sets", "headway.data.read")
_PUBLIC = import_module("headway")  # by name: it names for type checkers what imports this module
VERSION: str = _PUBLIC.__version__
_ROOT = Path(str(_PUBLIC.__file__)).parent
SHORT = ("headway", "headway.data", "headway.core", "headway.strategies", "headway.checkpoint")
"""Packages of which not all goes: what they import themselves is left out."""
_DATA = '"""The parts of Headway\'s data that a task uses."""\n\nfrom headway.data import tensors as tensors\n'


def bring(code: Path, to: Path) -> str:
    """Copy what the code in a folder uses of Headway. Returns what of it cannot go, in words; empty: all went."""
    wanted = {*BASE}
    for path in code.rglob("*.py"):
        try:
            wanted.update(_used(ast.parse(path.read_bytes())))
        except (SyntaxError, ValueError):
            continue  # told when it is imported
    whole, odd = _closed(wanted)
    for name in whole:
        _copy(name, to)
    return ", ".join(sorted(odd))


def _closed(wanted: set[str]) -> tuple[set[str], set[str]]:
    """Modules of ours with those that they import; and those that cannot go."""
    whole: set[str] = set()
    odd: set[str] = set()
    while wanted:
        name = wanted.pop()
        path = _path(name)
        if name in whole or name in odd or path is None:
            continue
        if not name.startswith(ROOMS) or name.startswith(NOT):
            odd.add(name)
            continue
        whole.add(name)
        wanted.update(_imported(ast.parse(path.read_bytes())))
        above = name.rpartition(".")[0]
        wanted.update([above] if above not in SHORT else [])  # Python imports a module's package first
    return whole, odd


def _used(tree: ast.Module) -> Iterator[str]:
    """Modules of ours behind what a file imports, or takes of `headway` by its name there."""
    yield from _imported(tree)
    names = {
        alias.asname or "headway"
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "headway"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            yield _PUBLIC._HOMES.get(node.attr, f"headway.{node.attr}")


def _imported(tree: ast.Module) -> Iterator[str]:
    """Modules of ours that a file imports when it runs; those for type checkers are left out."""
    left = {
        id(below)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for below in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in left:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("headway."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "headway" and not node.level:
            base = str(node.module)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield _PUBLIC._HOMES.get(alias.name, inner) if base == "headway" else inner if _path(inner) else base


def _path(name: str) -> Path | None:
    """The file of a module, or of a package that goes whole; None where there is none such."""
    path = _ROOT.parent / name.replace(".", "/")
    whole = path / "__init__.py" if path.is_dir() and name not in SHORT else path.with_name(f"{path.name}.py")
    return whole if whole.is_file() else None


def _copy(name: str, to: Path) -> None:
    path = _path(name)
    assert path is not None
    target = to / path.relative_to(_ROOT.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    for parent in target.relative_to(to).parents:
        init, package = to / parent / "__init__.py", ".".join(parent.parts)
        if not package or init.exists():
            continue
        if package == "headway" or package not in SHORT:
            init.write_bytes((_ROOT.parent / parent / "__init__.py").read_bytes())
        else:
            init.write_text(_DATA if package == "headway.data" else "", encoding="utf-8")
