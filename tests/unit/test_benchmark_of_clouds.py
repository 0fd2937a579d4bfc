"""What is kept of the benchmark on clouds was measured, and what was not is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_what_was_not_measured_is_shown_as_that() -> None:
    kept = json.loads((BENCHMARKS / "results" / "cloud.json").read_text())
    command = [sys.executable, str(BENCHMARKS / "cloud.py"), "--show"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=BENCHMARKS)
    lines = {tuple(line.split()[:2]): line for line in done.stdout.splitlines()}
    for section in ("growth", "reclaim", "trace"):
        for peer in ("ours", "ray_train"):
            figures = kept.get(section, {}).get(peer)
            assert ("not measured" in lines[section, peer]) == (figures is None)
            assert figures is None or figures.get("repeats") or "steps" in figures, "no entry by hand"
