"""What the run's machines did meanwhile, for its page: by node, thinned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headway.core.thinning import kept
from headway.report.curves import round_s
from headway.runs import columns

FILE = "nodes.jsonl"
MOST, POINTS = 16, 300
"""Nodes, and points of each."""
SHARES = ("cpu", "memory", "gpu")
FLOWS = {"network": ("received", "sent"), "disk": ("read", "written")}


def told(folder: Path, created: float) -> list[dict[str, Any]]:
    """Args:
    folder: of the run, or its working copy.
    created: Unix seconds.
    """
    rows: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for line in columns.lines(folder / FILE):
        nodes, at = line.get("nodes"), line.get("time")
        if isinstance(nodes, dict) and isinstance(at, int | float):
            for name, figures in nodes.items():
                if isinstance(figures, dict) and (name in rows or len(rows) < MOST):
                    rows.setdefault(name, []).append((at - created, figures))
    return [_node(name, found) for name, found in rows.items()]


def _node(name: str, rows: list[tuple[float, Mapping[str, Any]]]) -> dict[str, Any]:
    busy = np.array([_share(figures.get("cpu")) or 0.0 for _, figures in rows])
    few = [rows[i] for i in kept(busy, POINTS).tolist()]
    told: dict[str, Any] = {"name": name, "seconds": [round_s(max(0.0, at)) for at, _ in few]}
    for key in SHARES:
        values = [_share(figures.get(key)) for _, figures in few]
        if any(value is not None for value in values):
            told[key] = values
    for key, parts in FLOWS.items():
        flows = [[figures[part] for part in parts if isinstance(figures.get(part), int | float)] for _, figures in few]
        if any(flows):
            told[key] = [round(sum(each)) if each else None for each in flows]
    return told


def _share(value: Any) -> float | None:
    return round(float(value), 3) if isinstance(value, int | float) and math.isfinite(value) else None
