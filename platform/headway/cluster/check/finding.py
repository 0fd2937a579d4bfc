"""What a check has to say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Way = tuple[Any, ...]
"""Keys and positions that lead to a place in a file."""


@dataclass(frozen=True)
class Fault:
    """What a rule finds.

    Args:
        way: to the place.
        found: what stands there, in words.
        reason: why that is a problem.
        remedy: what to write instead.
        level: `fail`: it will not work, lets others in, or costs without end; `warn`: it will hurt one day.
    """

    way: Way
    found: str
    reason: str
    remedy: str
    level: Literal["fail", "warn"] = "fail"


@dataclass(frozen=True)
class Finding:
    """A fault in its file.

    Args:
        level: see `Fault`.
        rule: its name, like `head-on-spot`.
        line: from 1.
        found, reason, remedy: see `Fault`.
    """

    level: str
    rule: str
    line: int
    found: str
    reason: str = ""
    remedy: str = ""


Rule = Callable[[Any], Iterator[Fault]]


def named(rule: Rule) -> str:
    """A rule's name, as it is shown."""
    return rule.__name__.replace("_", "-")


def at(tree: Any, *way: Any, default: Any = None) -> Any:
    """What a way leads to; the default where it leads nowhere."""
    for part in way:
        if (isinstance(tree, Mapping) and part in tree) or (
            isinstance(tree, Sequence) and not isinstance(tree, str) and isinstance(part, int) and part < len(tree)
        ):
            tree = tree[part]
        else:
            return default
    return tree


def listed(value: Any) -> list[Any]:
    """A list, where there is one."""
    return list(value) if isinstance(value, list) else []


def mapped(value: Any) -> dict[Any, Any]:
    """A mapping, where there is one."""
    return dict(value) if isinstance(value, Mapping) else {}


def texts(tree: Any, way: Way = ()) -> Iterator[tuple[Way, str]]:
    """All texts of a tree, with their ways."""
    if isinstance(tree, str):
        yield way, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from texts(value, (*way, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from texts(value, (*way, number))
