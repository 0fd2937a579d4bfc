"""Tables, which scroll by themselves where the screen is small, and long ones folded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headway.report.page import numbers
from headway.report.page.markup import Inside, Markup, tag, together

HEAD = "head"
"""The class of the column by which a row goes."""

Row = Sequence[Inside]


def table(columns: Mapping[str, str], rows: Sequence[Row], class_: str | None = None) -> Markup:
    """A table.

    Args:
        columns: by title, their classes: `n` for numbers, `soft`, HEAD for what the row is about.
        rows: as many cells as there are columns.
    """
    head = tag("tr", (tag("th", title, scope="col", class_=_shown(kind)) for title, kind in columns.items()))
    body = (tag("tr", (_cell(cell, kind) for cell, kind in zip(row, columns.values(), strict=True))) for row in rows)
    return tag("div", tag("table", tag("thead", head), tag("tbody", body), class_=class_), class_="scroll")


def folded(rows: Sequence[Row], seen: int, what: str, made: Callable[[Sequence[Row]], Markup]) -> Markup:
    """The first rows, and the others when somebody asks.

    Args:
        what: one of the rows is, in a word.
        made: of rows the table.
    """
    if len(rows) <= seen:
        return made(rows)
    more = numbers.counted(len(rows) - seen, f"more {what}")
    return together(made(rows[:seen]), tag("details", tag("summary", more), made(rows[seen:])))


def pairs(entries: Sequence[tuple[str, Inside]]) -> Markup:
    """Names and what they stand for."""
    return tag("dl", ((tag("dt", name), tag("dd", value)) for name, value in entries), class_="pairs")


def _cell(cell: Inside, kind: str) -> Markup:
    if HEAD in kind.split():
        return tag("th", cell, scope="row", class_=_shown(kind))
    return tag("td", cell, class_=_shown(kind))


def _shown(kind: str) -> str | None:
    return " ".join(part for part in kind.split() if part != HEAD) or None
