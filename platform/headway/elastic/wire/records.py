"""Records on their way from workers to the recorder."""

from __future__ import annotations

from typing import Any

EVERYBODYS = {"quarantine", "warned", "lanes", "memory"}
"""Kinds that are taken from any worker, not from the leader alone."""


def of_anybody(record: dict[str, Any]) -> bool:
    """Whether a record is taken from any worker, not from the leader alone: so is what one recorded of its own, and why
    it ends the run."""
    return record["kind"] in EVERYBODYS or bool(record.get("own") or record.get("ends"))
