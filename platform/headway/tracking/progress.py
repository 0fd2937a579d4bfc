"""How far a run's records have got to a store: kept in `tracking.json`, so that a killed writer goes on from there."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "tracking.json"

Mark = tuple[int, int, float]
"""The last point sent of a metric: step, unix milliseconds, value."""


@dataclass
class Progress:
    """What one store has of a run."""

    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """A tag of the MLflow run, by which it is found when its id was not saved in time."""
    run_id: str | None = None
    """MLflow's."""
    experiment_id: str | None = None
    """Likewise."""
    offset: int = 0
    """Bytes of the spool that are sent."""
    upto: int = 0
    """Where it is greater: of the bytes between, any may be sent."""
    starts: int = 0
    """`run` events sent."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """By metric."""
    left_out: dict[str, str] = field(default_factory=dict)
    """By metric: the first point that was not finite, in words."""
    refused: int = 0
    """Points and events that the store would not take."""
    owed: list[dict[str, str]] = field(default_factory=list)
    """Files that could not be stored while the records could: `path` in the run's folder, `folder` in MLflow."""


def load(run_folder: Path, store: str) -> Progress:
    """The progress of a run to the store of that name; a fresh one when nothing, or nothing readable, is there."""
    kept = _stores(run_folder).get(store)
    try:
        progress = Progress(**kept) if isinstance(kept, dict) else Progress()
    except TypeError:
        return Progress()
    progress.marks = {key: (int(step), int(ms), float(value)) for key, (step, ms, value) in progress.marks.items()}
    return progress


def save(run_folder: Path, store: str, progress: Progress) -> None:
    """Keep it, atomically, beside the progress to other stores."""
    path = run_folder / FILE
    part = path.with_name(f".{FILE}.{os.getpid()}")
    stores = {**_stores(run_folder), store: asdict(progress)}
    with part.open("w", encoding="utf-8") as file:
        json.dump({"format": "headway-tracking/1", "stores": stores}, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _stores(run_folder: Path) -> dict[str, Any]:
    try:
        tree = json.loads((run_folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    stores = tree.get("stores") if isinstance(tree, dict) else None
    return stores if isinstance(stores, dict) else {}
