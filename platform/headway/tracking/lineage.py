"""Parents and children among MLflow runs: a sweep, and its trials.

Each of them has a key, a tag by which it is found in a store. The parent's is known to the children from the beginning;
whoever comes first to the store makes the parent there, so that no child waits for it, or goes without.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.tracking.store import locked

PARENT_TAG = "mlflow.parentRunId"
LOCK = ".tracking.lock"


@dataclass(frozen=True)
class Parent:
    """The MLflow run above another.

    Args:
        key: by which it is found.
        name: MLflow's of it.
    """

    key: str
    name: str


def of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the first event of a run (see `headway.tracking.spool`) has besides, if it is one of a sweep.

    Args:
        facts: of its run.json; `sweep`: name, key, trial, repeat, settings.
    """
    sweep = facts.get("sweep")
    if not isinstance(sweep, Mapping):
        return {}
    tags = {f"headway.{name}": sweep[name] for name in ("trial", "repeat") if name in sweep}
    found: dict[str, Any] = {"tags": {"headway.sweep": sweep.get("name", ""), **tags}}
    if sweep.get("key"):
        found["parent"] = {"key": str(sweep["key"]), "name": str(sweep.get("name", ""))}
    return found


def parent(event: Mapping[str, Any]) -> Parent | None:
    """That a run's first event names."""
    tree = event.get("parent")
    if not isinstance(tree, Mapping) or not tree.get("key"):
        return None
    return Parent(str(tree["key"]), str(tree.get("name") or "sweep"))


def key(event: Mapping[str, Any]) -> str | None:
    """By which the run itself is to be found, where others must know that."""
    return str(event["key"]) if event.get("key") else None


def making(runs: Path) -> AbstractContextManager[None]:
    """While this lasts no other process of this machine makes a parent or child of that runs folder."""
    return locked(runs / LOCK)
