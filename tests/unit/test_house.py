"""The house of the code: who may import whom. Read from the source, imports inside functions among them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import headway

ROOT = Path(headway.__file__).parent

LATER = {
    ("headway.cli.drill", "headway.testing.drill"),
    ("headway.cli.drill", "headway.testing.story.drill"),
    *(("headway.cli.compare", f"headway.testing.compared.{name}") for name in ("compare", "picture", "ways", "words")),
}
"""The doors from production to the testing kit: the commands that run a drill or a comparison, when they are called."""


@cache
def modules() -> dict[str, ast.Module]:
    """The source of every module of ours, by its name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("headway", *path.relative_to(ROOT).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def for_types_only(node: ast.AST) -> bool:
    """Whether this is an `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING"


def imports(name: str, typing: bool = False) -> Iterator[str]:
    """Names that a module imports, `from` names among them. typing: those for the type checker too."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        if for_types_only(node) and not typing:
            assert isinstance(node, ast.If)
            for below in node.orelse:
                yield from walk(below)
            return
        yield node
        for below in ast.iter_child_nodes(node):
            yield from walk(below)

    package = name if (ROOT.parent / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]
    for node in walk(modules()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def ours(name: str, typing: bool = False) -> set[str]:
    """Modules of ours that a module imports; of `from package import module` the module, not its package."""
    found = {target for target in imports(name, typing) if target in modules() and target != name}
    return {target for target in found if not any(other.startswith(f"{target}.") for other in found)}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def offenders(who: str, allowed: tuple[str, ...] | None = None, forbidden: tuple[str, ...] = ()) -> list[str]:
    """Imports by modules of `who` of what is not allowed, or forbidden, in words."""
    found = []
    for name in modules():
        if not within(name, who):
            continue
        for target in sorted(ours(name)):
            strange = allowed is not None and not any(within(target, package) for package in allowed)
            if strange or any(within(target, package) for package in forbidden):
                found.append(f"{name} imports {target}")
        found += [
            f"{name} imports {target}"
            for target in sorted(set(imports(name)))
            if not target.startswith("headway") and any(within(target, package) for package in forbidden)
        ]
    return found


def circles(typing: bool) -> list[list[str]]:
    """Groups of modules each of which imports all others by some way (Tarjan's strong components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(ours(name, typing)):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            at = stack.index(name)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for name in modules():
        if name not in index:
            visit(name)
    return found


def test_nobody_imports_in_a_circle() -> None:
    """Not at the top, and not inside functions, where a circle is only put off."""
    assert circles(typing=False) == []


def test_nobody_names_types_in_a_circle() -> None:
    """Two modules that need each other's names are one concept, or lack a third."""
    assert circles(typing=True) == []


def test_the_core_imports_nobody() -> None:
    assert offenders("headway.core", allowed=("headway.core",), forbidden=("ray", "torch")) == []


def test_the_wire_imports_the_core_alone() -> None:
    """A frame is laid out by what the core says that there is: places of a worker, causes of its account."""
    allowed = ("headway.elastic.wire", "headway.core")
    assert offenders("headway.elastic.wire", allowed=allowed, forbidden=("ray", "torch")) == []


def test_storage_knows_no_run() -> None:
    allowed = ("headway.storage", "headway.core", "headway.errors", "headway.durable")
    assert offenders("headway.storage", allowed=allowed, forbidden=("ray", "torch")) == []


def test_logs_know_no_run() -> None:
    allowed = ("headway.logs", "headway.storage", "headway.core", "headway.errors")
    assert offenders("headway.logs", allowed=allowed, forbidden=("ray", "torch")) == []


def test_workers_know_neither_the_lead_nor_ray_trains_insides() -> None:
    forbidden = ("headway.elastic.lead", "ray.train.v2._internal")
    assert offenders("headway.elastic.worker", forbidden=forbidden) == []


def test_the_lead_knows_no_worker() -> None:
    assert offenders("headway.elastic.lead", forbidden=("headway.elastic.worker",)) == []


def test_only_the_crew_knows_of_sweeps_and_of_those_only_what_it_is_asked() -> None:
    for who in ("lead", "wire", "worker"):
        assert offenders(f"headway.elastic.{who}", forbidden=("headway.sweeps", "headway.elastic.crew")) == []
    crew = [name for name in modules() if within(name, "headway.elastic.crew")]
    assert {target for name in crew for target in ours(name) if within(target, "headway.sweeps")} == {
        "headway.sweeps.crew"
    }


def test_strategies_know_nothing_of_elasticity() -> None:
    assert offenders("headway.strategies", forbidden=("headway.elastic", "ray")) == []


@pytest.mark.parametrize("who", ["headway.plan", "headway.job", "headway.data", "headway.checkpoint"])
def test_what_is_decided_before_a_run_knows_nothing_of_elasticity(who: str) -> None:
    assert offenders(who, forbidden=("headway.elastic",)) == []


def test_production_imports_nothing_of_the_testing_kit() -> None:
    found = {
        (name, target)
        for name in modules()
        if not within(name, "headway.testing")
        for target in ours(name)
        if within(target, "headway.testing")
    }
    assert found <= LATER
    for door in {name for name, _ in LATER}:
        top = [node for node in modules()[door].body if isinstance(node, ast.ImportFrom)]
        assert not any(within(node.module or "", "headway.testing") for node in top), "only when it is asked for"


def test_a_circle_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above, tested: a circle that goes through a function, and one for types only."""
    sources = {
        "headway.one": "def f():\n    from headway import two",
        "headway.two": "from headway.three import x",
        "headway.three": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from headway import one",
    }
    monkeypatch.setattr(f"{__name__}.modules", lambda: {name: ast.parse(text) for name, text in sources.items()})
    assert circles(typing=False) == []
    assert circles(typing=True) == [["headway.one", "headway.three", "headway.two"]]
    assert offenders("headway.two", forbidden=("headway.three",)) == ["headway.two imports headway.three"]
