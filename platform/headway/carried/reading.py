"""A Python file, read without running it: what it imports, which files it names, what it puts on the import path."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_NAME = 200
_MOST_LEVELS = 60
_OWN = "/\0"
"""Before what comes from `__file__`, to tell it from other absolute paths."""
_ADDING = {"sys.path.insert", "sys.path.append", "sys.path.extend", "path.insert", "path.append", "site.addsitedir"}


@dataclass(frozen=True)
class Reading:
    """What a file says.

    Args:
        imports: levels (dots) and dotted names, of what is taken from a module too.
        texts: that may be names of files or folders, as they are written.
        named: paths that it puts together from its own place, `__file__`.
        path: folders that it puts on the import path.
    """

    imports: frozenset[tuple[int, str]] = frozenset()
    texts: frozenset[str] = frozenset()
    named: frozenset[Path] = frozenset()
    path: tuple[Path, ...] = ()


def read(file: Path) -> Reading:
    """Read a file; nothing where it cannot be read, or is no Python, as who imports it is told."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
        paths = _Paths(file)
        paths.learn(tree)
        nodes = list(ast.walk(tree))
        found = [str(paths.value(node)) for node in nodes if isinstance(node, ast.expr)]
        return Reading(
            frozenset(name for node in nodes for name in _imports(node)),
            frozenset(text for node in nodes if (text := _text(node))),
            frozenset(_normal(each) for each in found if each.startswith(_OWN)),
            tuple(place for node in nodes for place in paths.added(node)),
        )
    except (OSError, SyntaxError, ValueError, RecursionError):
        return Reading()


def _normal(path: str) -> Path:
    return Path(os.path.normpath(path.removeprefix(_OWN)))


def _imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((0, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        dot = "." if node.module else ""
        if node.module or node.level:
            yield node.level, node.module or ""
        yield from ((node.level, f"{node.module or ''}{dot}{alias.name}") for alias in node.names)


def _text(node: ast.AST) -> str:
    """A text that may be the name of a file; '' for all else."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return ""
    text = node.value
    return "" if len(text) > LONGEST_NAME or text.startswith("/") or {"\n", "\0"} & set(text) else text


class _Paths:
    """Values of expressions over `__file__`, text and paths, in one file. A Path stands for whatever names a place, in
    pathlib's ways and os.path's; None for what is not known."""

    def __init__(self, file: Path) -> None:
        self._names: dict[str, Any] = {"__file__": Path(f"{_OWN}{file}")}
        self._level = 0

    def learn(self, tree: ast.AST) -> None:
        """Take the names that are given to paths and texts, wherever in the file."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target, given = node.targets[0], node.value
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                target, given = node.target, node.value
            else:
                continue
            value = self.value(given)
            if isinstance(target, ast.Name) and value is not None:
                self._names[target.id] = value

    def added(self, node: ast.AST) -> Iterator[Path]:
        """Folders that a call puts on the import path; relative ones are of the current folder."""
        if not isinstance(node, ast.Call):
            return
        name = _dotted(node.func)
        if name not in _ADDING:
            return
        given = node.args[-1:] if name.endswith("insert") else node.args[:1]
        for each in given:
            for one in each.elts if isinstance(each, ast.List | ast.Tuple) else [each]:
                value = self.value(one)
                if isinstance(value, str | Path):
                    yield _normal(str(Path.cwd() / value))

    def value(self, node: ast.AST) -> Any:
        """Of an expression: a Path, a text, a number, or None."""
        self._level += 1
        try:
            return self._value(node) if self._level < _MOST_LEVELS else None
        finally:
            self._level -= 1

    def _value(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str | int) else None
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Subscript):
            return self._above(node)
        if isinstance(node, ast.BinOp):
            return self._joined(node.op, self.value(node.left), self.value(node.right))
        if isinstance(node, ast.JoinedStr):
            return self._formatted(node)
        return self._call(node) if isinstance(node, ast.Call) else None

    def _attribute(self, node: ast.Attribute) -> Any:
        if _dotted(node) in ("os.pardir", "os.path.pardir"):
            return ".."
        if _dotted(node) in ("os.sep", "os.path.sep"):
            return "/"
        value = self.value(node.value)
        if not isinstance(value, Path):
            return None
        return value.parent if node.attr == "parent" else None

    def _above(self, node: ast.Subscript) -> Any:
        """`path.parents[2]`"""
        if not isinstance(node.value, ast.Attribute) or node.value.attr != "parents":
            return None
        value, number = self.value(node.value.value), self.value(node.slice)
        if not isinstance(value, Path) or not isinstance(number, int) or not 0 <= number < len(value.parents):
            return None
        return value.parents[number]

    def _joined(self, how: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(how, ast.Div) and isinstance(left, Path) and isinstance(right, str | Path):
            return left / right
        if isinstance(how, ast.Add) and isinstance(left, str | Path) and isinstance(right, str):
            return f"{left}{right}" if right.endswith("/") else type(left)(f"{left}{right}")
        return None

    def _formatted(self, node: ast.JoinedStr) -> Any:
        parts = [self.value(each.value if isinstance(each, ast.FormattedValue) else each) for each in node.values]
        if not all(isinstance(part, str | Path) for part in parts):
            return None
        text = "".join(map(str, parts))
        return Path(text) if any(isinstance(part, Path) for part in parts) else text

    def _call(self, node: ast.Call) -> Any:
        name = _dotted(node.func)
        last = name.rpartition(".")[2]
        given = [self.value(each) for each in node.args]
        if name in ("Path", "pathlib.Path", "PurePath", "os.path.join", "path.join", "join", "osp.join"):
            return Path(*given) if given and all(isinstance(each, str | Path) for each in given) else None
        if last == "cwd" or name in ("os.getcwd", "getcwd"):
            return Path.cwd()
        if last in ("dirname", "abspath", "realpath", "normpath", "fspath", "str") and len(given) == 1:
            return _place(given[0], last)
        if last in ("resolve", "absolute", "as_posix", "joinpath", "with_name") and isinstance(
            node.func, ast.Attribute
        ):
            value = self.value(node.func.value)
            if not isinstance(value, Path) or not all(isinstance(each, str | Path) for each in given):
                return None
            if last == "with_name":
                return value.parent / given[0] if given else None
            return value.joinpath(*given) if last == "joinpath" else _place(value, last)
        return None


def _place(value: Any, how: str) -> Any:
    """What os.path's functions, and pathlib's of the same sense, make of a path. Links are not followed: a copy has
    none."""
    if not isinstance(value, str | Path):
        return None
    if how in ("fspath", "str", "as_posix"):
        return value
    path = Path(value)
    return path.parent if how == "dirname" else Path(os.path.normpath(Path.cwd() / path))


def _dotted(node: ast.AST) -> str:
    """`os.path.join` of a node that says so; '' of all else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _dotted(node.value)
        return f"{above}.{node.attr}" if above else f".{node.attr}"
    return ""
