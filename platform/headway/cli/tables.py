"""Datasets as tables for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


def columns_table(found: dict[str, Any]) -> Table:
    """What each column holds; ~ marks an estimate."""
    table = _table("column", "type", "nulls", "min", "max", "mean", "distinct")
    for name, column in found["columns"].items():
        values = (column["nulls"], column["min"], column["max"], column["mean"])
        differ = f"{'~' if 'distinct' in column['estimated'] else ''}{column['distinct']:,}"
        table.add_row(Text(name), Text(column["type"]), *map(_cell, values), Text(differ))
    return table


def sizes_table(found: dict[str, Any]) -> Table:
    """Sizes of shards and row groups: least, mean, greatest."""
    table = _table("", "count", "rows", "bytes")
    for name in ("shards", "row_groups"):
        sizes = found[name]
        ranges = [
            " / ".join(f"{sizes[f'{of}_{end}']:,}" for end in ("min", "mean", "max")) if f"{of}_min" in sizes else ""
            for of in ("rows", "bytes")
        ]
        table.add_row(name.replace("_", " "), f"{sizes['count']:,}", *ranges)
    return table


def versions_table(found: dict[str, Any]) -> Table:
    """Versions of the manifest, and how each was made."""
    table = _table("version", "created", "rows", "shards", "source", "options")
    for version, made in found["versions"].items():
        options = " ".join(f"{name}={value}" for name, value in made["options"].items())
        table.add_row(
            version, made["created"], f"{made['rows']:,}", str(made["shards"]), Text(made["source"]), Text(options)
        )
    return table


def rows_table(rows: list[dict[str, Any]]) -> Table:
    """Rows of a dataset."""
    table = _table(*rows[0])
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="ellipsis", no_wrap=True)
    return table


def _cell(value: Any) -> Text:
    """As plain text: what data holds is no markup."""
    return Text(_said(value))


def _said(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.6g}"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    text = text.replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."
