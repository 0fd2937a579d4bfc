"""The data that a run was trained on, with its statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway.report.page import numbers
from headway.report.page.markup import Inside, Markup, tag
from headway.report.page.sheet import Section
from headway.report.page.tables import HEAD, folded, table

SEEN = 12
"""Columns of a dataset that are seen at once."""
NUMBERS = ("min", "mean", "max", "std")
WIDE, HIGH = 120.0, 26.0


def data(story: Mapping[str, Any]) -> Section | None:
    """The section, a part for each dataset."""
    found = [one for one in story.get("data") or () if one]
    if not found:
        return None
    return Section("data", "Data", [_dataset(one) for one in found])


def _dataset(one: Mapping[str, Any]) -> Markup:
    aside = one.get("quarantined") or 0
    facts = [
        numbers.counted(one["rows"], "row") if one.get("rows") is not None else "",
        f"digest {str(one['digest'])[:16]}" if one.get("digest") else "",
        f"{numbers.counted(aside, 'row')} set aside" if aside else "",
    ]
    head = tag("h3", tag("span", str(one.get("role", "")), class_="role"), " ", str(one.get("name") or ""))
    columns = [column for column in one.get("columns") or () if column]
    note = tag(
        "p", " · ".join(fact for fact in facts if fact), class_="note", title=str(one.get("digest") or "") or None
    )
    return tag("article", head, note, _columns(columns) if columns else None, class_="dataset")


def _columns(columns: Sequence[Mapping[str, Any]]) -> Markup:
    """What the columns have that any of them has."""
    given = {name: [column.get(name) for column in columns] for name in ("missing", "distinct", *NUMBERS)}
    there = [name for name, values in given.items() if any(value is not None for value in values)]
    often = any(column.get("top") or column.get("histogram") for column in columns)
    titles = {"column": HEAD, "type": "soft", **dict.fromkeys(there, "n"), **({"values": ""} if often else {})}
    rows: list[Sequence[Inside]] = [
        (
            str(column.get("name", "")),
            str(column.get("type", "")),
            *(numbers.number(column[name]) if column.get(name) is not None else "" for name in there),
            *([_values(column)] if often else []),
        )
        for column in columns
    ]
    return folded(rows, SEEN, "column", lambda some: table(titles, some))


def _values(column: Mapping[str, Any]) -> Inside:
    histogram = column.get("histogram") or {}
    if histogram.get("counts"):
        return _bars([float(count) for count in histogram["counts"]], histogram.get("edges") or ())
    most = column.get("top") or ()
    return ", ".join(f"{value} ({numbers.number(count)})" for value, count in most[:8])


def _bars(counts: Sequence[float], edges: Sequence[float]) -> Markup:
    high, wide = max(counts) or 1.0, WIDE / len(counts)
    bars = [
        tag(
            "rect",
            x=f"{at * wide:.1f}",
            y=f"{HIGH * (1 - count / high):.1f}",
            width=f"{max(0.6, wide - 1):.1f}",
            height=f"{HIGH * count / high:.1f}",
        )
        for at, count in enumerate(counts)
    ]
    told = f"from {numbers.number(edges[0])} to {numbers.number(edges[-1])}" if len(edges) > 1 else ""
    return tag("svg", tag("title", told), bars, class_="histogram", viewBox=f"0 0 {WIDE:.0f} {HIGH:.0f}", role="img")
