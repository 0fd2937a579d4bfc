"""The index of what was logged, `logged.jsonl`: read, and cut where a run goes on from before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.durable import last_line, replace
from headway.logged.paths import FOLDER, INDEX


def lines(run: Path) -> Iterator[dict[str, Any]]:
    """All lines of a run's folder, in order; a damaged one is passed over."""
    try:
        file = (run / INDEX).open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and found.keys() >= {"step", "time", "path"}:
                    yield found


def entries(run: Path) -> list[dict[str, Any]]:
    """What is there, in the order of the steps: step, time, name, kind, path (in the run's folder), mime, bytes,
    caption."""
    newest = {entry["path"]: entry for entry in lines(run)}
    return sorted(newest.values(), key=lambda entry: (entry["step"], entry["time"]))


def cut(run: Path, last: int) -> None:
    """Drop what was logged after a step, its files with it: the run has been there, and goes on from before.

    Raises:
        OSError: the disk is full or gone; may be tried again.
    """
    if not _after(run, last):
        return
    kept, gone = [], set()
    for entry in lines(run):
        if entry["step"] <= last:
            kept.append(entry)
        else:
            gone.add(entry["path"])
    replace(run / INDEX, "".join(json.dumps(entry) + "\n" for entry in kept))
    for path in gone - {entry["path"] for entry in kept}:
        if path.startswith(f"{FOLDER}/") and ".." not in path:
            (run / path).unlink(missing_ok=True)


def _after(run: Path, last: int) -> bool:
    """Whether the newest line is of a later step."""
    line = last_line(run / INDEX)
    try:
        return bool(line) and int(json.loads(line)["step"]) > last
    except (ValueError, KeyError, TypeError):
        return True
