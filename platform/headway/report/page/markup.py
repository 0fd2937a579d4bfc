"""HTML that is built of parts, in which a text is never taken for markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

VOID = frozenset(("br", "col", "img", "input", "meta", "rect", "circle", "line", "path"))
"""Elements that hold nothing."""


class Markup(str):
    """Text that is HTML already. Only `tag` and `together` make it of what others wrote."""

    __slots__ = ()


Inside: TypeAlias = "str | Iterable[Inside] | None"
"""What an element holds: texts, elements, any depth of lists of them; None for nothing."""


def tag(name: str, /, *inside: Inside, **attributes: object) -> Markup:
    """An element.

    Args:
        inside: what it holds; what is no Markup is escaped.
        attributes: by name; `class_`, `for_` without the underscore, other underscores as hyphens. None and False leave
            one out, True gives it without a value.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{given}>" if name in ("br", "col", "img", "input", "meta") else f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{together(*inside)}</{name}>")


def together(*inside: Inside) -> Markup:
    """Parts, one after the other."""
    return Markup("".join(_parts(inside)))


def _parts(inside: Iterable[Inside]) -> Iterable[str]:
    for part in inside:
        if isinstance(part, Markup):
            yield part
        elif isinstance(part, str):
            yield escape(part)
        elif part is not None:
            yield from _parts(part)


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
