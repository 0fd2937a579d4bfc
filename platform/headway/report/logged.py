"""What the task logged, for the page: the newest figure, text and table of each name, as far as there is room."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from headway.report.shape import Figure
from headway.runs import columns
from headway.runs.stream import is_record

INDEX = "logged.jsonl"
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MOST = 40
"""Things."""
BYTES, ALL_BYTES = 300 << 10, 900 << 10
"""Of a picture, and of all."""
CHARS, ROWS = 10_000, 100
"""Of a text and a table."""


def told(folder: Path) -> list[Figure]:
    """Args:
    folder: of the run, or its working copy.
    """
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for line in columns.lines(folder / INDEX):
        if line.keys() >= {"step", "name", "kind", "path"}:
            key = str(line["kind"]), str(line["name"])
            if key not in newest or newest[key]["step"] <= line["step"]:
                newest[key] = line
    found, room = [], ALL_BYTES
    for line in list(newest.values())[:MOST]:
        figure, used = _of(folder, line, room)
        room -= used
        found.append(figure)
    return found


def _of(folder: Path, line: Mapping[str, Any], room: int) -> tuple[Figure, int]:
    path, mime, kind = str(line["path"]), str(line.get("mime") or ""), str(line["kind"])
    caption, data, text, table = str(line.get("caption") or ""), "", "", None
    content = b""
    if is_record(path) and PurePosixPath(path).parts[0] == "logged":  # else it leads elsewhere
        with suppress(OSError):
            content = (folder / path).read_bytes()
    if kind == "artifact" or not content:
        text = f"{path}, {len(content):,} bytes" if content else f"{path} is not there"
    elif mime in PICTURES:
        if len(content) <= min(BYTES, room):
            data = base64.b64encode(content).decode()
        else:
            text = f"{path}, {len(content):,} bytes: too large for this page"
    elif kind == "table":
        table = _table(content)
    elif kind == "text":
        text = content.decode("utf-8", "replace")
        text = text[:CHARS] + (f"\n... ({len(text) - CHARS:,} characters more in {path})" if len(text) > CHARS else "")
    else:
        text = f"{path}, {len(content):,} bytes"
    figure = Figure(
        name=str(line["name"]),
        step=int(line["step"]),
        kind=kind,
        mime=mime,
        data=data,
        text=text,
        table=table,
        caption=caption,
    )
    return figure, len(data) * 3 // 4


def _table(content: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, KeyError, TypeError):
        found = json.loads(content)
        rows = [list(row) for row in found["data"][:ROWS]]
        return {"columns": list(map(str, found["columns"])), "rows": rows, "of": len(found["data"])}
    return None
