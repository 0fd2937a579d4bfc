"""What all benchmarks share: medians with their spread, and results that are kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def summary(values: list[float]) -> dict[str, Any]:
    """Median, least and largest, and all values, rounded."""
    return {
        "median": round(statistics.median(values), 6),
        "min": round(min(values), 6),
        "max": round(max(values), 6),
        "all": [round(v, 6) for v in values],
    }


def kept(name: str) -> dict[str, Any]:
    """What `results/NAME.json` holds from earlier; empty if nothing."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write `results/NAME.json` with the machine beside the figures, and print it."""
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    tree = {**figures, "when": time.strftime("%Y-%m-%d"), "machine": machine}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    print(
        json.dumps(
            {k: v for k, v in figures.items() if k not in ("repeats", "samples", "faults", "found", "targets")},
            indent=1,
        )
    )
