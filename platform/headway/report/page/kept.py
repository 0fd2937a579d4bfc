"""What a run kept: checkpoints, tables of its evaluations, and the figures, texts and tables that the task logged."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from headway.report.page import numbers
from headway.report.page.markup import Inside, Markup, tag, together
from headway.report.page.sheet import Section
from headway.report.page.tables import HEAD, folded, table

SEEN = 6
"""Checkpoints that are seen at once."""
ROWS, COLUMNS = 60, 30
"""Of a table."""
SHADES = 10
IMAGES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"))
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
MOST_BYTES = 900_000
"""Characters of images that a page holds; the newest of each name come first."""
MOST_TEXT = 20_000


def checkpoints(story: Mapping[str, Any]) -> Section | None:
    """The states that were kept, newest first."""
    found = list(story.get("checkpoints") or ())[::-1]
    if not found:
        return None
    columns = {"step": f"n {HEAD}", "after": "n soft", "size": "n", "metrics": "", "where": "soft path"}
    rows: list[Sequence[Inside]] = [
        (
            numbers.number(one.get("step")),
            numbers.duration(one.get("seconds")),
            numbers.size(one.get("bytes")),
            "   ".join(f"{name} {numbers.number(value)}" for name, value in (one.get("metrics") or {}).items()),
            str(one.get("path") or ""),
        )
        for one in found
    ]
    size = sum(one.get("bytes") or 0 for one in found)
    note = f"{numbers.counted(len(found), 'state')} that the run can go on from, {numbers.size(size)}."
    return Section(
        "checkpoints", "Checkpoints", folded(rows, SEEN, "checkpoint", lambda some: table(columns, some)), note
    )


def logged(story: Mapping[str, Any]) -> Section | None:
    """Figures, texts and tables, the newest of each name; the earlier ones folded beneath it."""
    found = [*_tables_of(story.get("evaluations") or ()), *(story.get("figures") or ())]
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        by_name.setdefault(str(one.get("name", "")), []).append(one)
    if not by_name:
        return None
    room = MOST_BYTES
    shown: dict[str, list[Markup]] = {name: [] for name in by_name}
    for place in range(max(map(len, by_name.values()))):  # the newest of all before the one before it of any
        for name, each in by_name.items():
            newest_first = sorted(each, key=lambda one: one.get("step") or 0, reverse=True)
            if place < len(newest_first):
                made, room = _one(newest_first[place], room)
                shown[name].append(made)
    items = [
        tag("article", tag("h3", name), each[0], _earlier(each[1:]), class_="logged") for name, each in shown.items()
    ]
    return Section("logged", "Figures and tables", tag("div", items, class_="gallery"))


def grid(rows: Sequence[Any]) -> Markup:
    """A table of numbers, a matrix shaded by them: a confusion, say."""
    lines = [row if isinstance(row, list | tuple) else [row] for row in rows[:ROWS]]
    values = [v for row in lines for v in row[:COLUMNS] if isinstance(v, int | float) and not isinstance(v, bool)]
    high = max(values, default=0.0)
    shaded = all(map(math.isfinite, values)) and high > 0 and min(values) >= 0
    square = len(lines) > 1 and len({len(row) for row in lines}) == 1 and shaded
    body = (tag("tr", (_shaded(cell, high if square else None) for cell in row[:COLUMNS])) for row in lines)
    cut = len(rows) > ROWS or max((len(row) for row in lines), default=0) > COLUMNS
    whole = tag("p", "Only a part is on this page.", class_="note") if cut else None
    return together(tag("div", tag("table", tag("tbody", body), class_="grid"), class_="scroll"), whole)


def _tables_of(evaluations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "step": one.get("step"), "grid": rows if isinstance(rows, list) else [[rows]]}
        for one in evaluations
        for name, rows in (one.get("tables") or {}).items()
    ]


def _earlier(each: list[Markup]) -> Markup | None:
    return tag("details", tag("summary", numbers.counted(len(each), "earlier one")), each) if each else None


def _one(one: Mapping[str, Any], room: int) -> tuple[Markup, int]:
    """It, and how many characters of images there is room for afterwards."""
    step = f"step {one['step']:,}" if isinstance(one.get("step"), int) else ""
    caption = tag("figcaption", " · ".join(text for text in (step, str(one.get("caption") or "")) if text))
    if one.get("grid") is not None:
        return tag("figure", grid(one["grid"]), caption), room
    if one.get("table") is not None:
        return tag("figure", _table(one["table"]), caption), room
    data, mime = str(one.get("data") or ""), str(one.get("mime") or "")
    if one.get("text") or one.get("kind") == "text":
        text = str(one.get("text") or "")
        cut = tag("p", f"The first {MOST_TEXT:,} characters.", class_="note") if len(text) > MOST_TEXT else None
        return tag("figure", tag("pre", text[:MOST_TEXT]), cut, caption), room
    if mime not in IMAGES or not data or not BASE64.fullmatch(data):
        kept = one.get("path") or "the run's folder"
        return tag(
            "figure", tag("p", f"{mime or 'It'} is not shown here; it is in {kept}.", class_="note"), caption
        ), room
    if len(data) > room:
        return tag(
            "figure", tag("p", "Too large for this page; it is in the run's folder.", class_="note"), caption
        ), room
    name = f"{one.get('name', '')} {step} {one.get('caption') or ''}".strip()
    return tag("figure", tag("img", src=f"data:{mime};base64,{data}", alt=name), caption), room - len(data)


def _table(found: Any) -> Markup:
    if not isinstance(found, Mapping):
        return grid(found if isinstance(found, list) else [[found]])
    titles, rows = [str(title) for title in found.get("columns") or ()], found.get("rows") or ()
    head = tag("tr", (tag("th", title, scope="col") for title in titles[:COLUMNS]))
    body = (tag("tr", (_shaded(cell, None) for cell in row[:COLUMNS])) for row in rows[:ROWS])
    cut = len(rows) > ROWS or len(titles) > COLUMNS
    whole = tag("p", "Only a part is on this page.", class_="note") if cut else None
    return together(tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="scroll"), whole)


def _shaded(cell: Any, high: float | None) -> Markup:
    numeric = isinstance(cell, int | float) and not isinstance(cell, bool)
    class_ = "n" if numeric else None
    if numeric and high:
        class_ = f"n h{min(SHADES - 1, int(SHADES * math.sqrt(max(0.0, cell) / high)))}"
    return tag("td", numbers.number(cell), class_=class_)
