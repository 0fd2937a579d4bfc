"""All runs of a place at a glance: a line each, from the little that tells it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.durable import last_line
from headway.errors import BadInput
from headway.runs.folder import RunFolder

METRICS_BYTES = 64 << 10
"""The end of metrics.jsonl that is looked at: names that were recorded only before it are not in a listing."""
GONE = "the process that led the run is gone"


@dataclass(frozen=True)
class Brief:
    """A run in a line.

    Args:
        run: its name.
        state: running, finished, failed or interrupted (resumable).
        message: why, where the state needs a reason.
        steps: committed.
        total_steps: that the job asks for.
        loss: of the newest step.
        metrics: the latest numbers by name.
        path: its folder or URL.
        created: Unix seconds.
        last: Unix seconds of the last that is known of it.
    """

    run: str
    state: str
    message: str
    steps: int
    total_steps: int | None
    loss: float | None
    metrics: dict[str, float]
    path: str
    created: float
    last: float


def in_folder(folder: Path) -> list[Brief]:
    """The runs of a folder, oldest first; what is damaged is none."""
    folder = folder.resolve()
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(BadInput):
            found.append(of_folder(RunFolder(folder / name)))
    return sorted(found, key=lambda brief: (brief.created, brief.run))


def of_folder(run: RunFolder) -> Brief:
    """One of them. Raises BadInput where it is no run."""
    found = told(run)
    if found["state"] == "running" and not run.is_led():
        found["state"], found["message"] = "interrupted", GONE
    return Brief(run=run.name, path=run.where, **found)


def told(run: RunFolder) -> dict[str, Any]:
    """What the run's own files say. Raises BadInput where it is no run."""
    facts = run.read()
    last = _parsed(last_line(run.path / "steps.jsonl"))
    return {
        "state": facts.get("state", "running"),
        "message": facts.get("message", ""),
        "steps": int(last.get("step", -1)) + 1,
        "total_steps": facts.get("total_steps"),
        "loss": last.get("loss"),
        "metrics": metrics_of(run.path, facts),
        "created": facts.get("created", 0.0),
        "last": facts.get("ended") or (run.path / "run.json").stat().st_mtime,
    }


def metrics_of(folder: Path, facts: dict[str, Any]) -> dict[str, float]:
    """The latest numbers by name; earlier releases kept them with the facts."""
    found: dict[str, float] = {}
    for line in (*facts.get("metrics", []), *_ends(folder / "metrics.jsonl")):
        found.update(line["values"])
    return found


def _ends(path: Path) -> Iterator[dict[str, Any]]:
    """The last whole lines of a file."""
    try:
        with path.open("rb") as file:
            begin = max(0, os.fstat(file.fileno()).st_size - METRICS_BYTES)
            file.seek(begin)
            lines = file.read().split(b"\n")[1 if begin else 0 : -1]
    except FileNotFoundError:
        return
    for line in lines:
        found = _parsed(line)
        if not found:
            return
        yield found


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
