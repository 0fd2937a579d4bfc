"""What Tune's own loop costs a scheduler that pauses and promotes: evidence for docs/decisions/0014. Some 2 minutes."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import summary
from sweep_peers import tune_loop, watched

from sweep_parts.real import environment


def measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {"function": [], "class": []}
    for _ in range(options.repeats or 1):
        for kind, figures in found.items():
            figures.append(_run(kind))
            print(f"  {kind}: {figures[-1]}", flush=True)
    seconds = {kind: summary([each["seconds"] for each in figures]) for kind, figures in found.items()}
    terms = {"trials": tune_loop.TRIALS, "rungs": tune_loop.RUNGS, "set_up_s": tune_loop.SETUP_S}
    refused = _run("nothing")
    return {**terms, "workers": tune_loop.WORKERS, "seconds": seconds, "repeats": found, "trials_that_ask_for": refused}


def _run(kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        command = [sys.executable, "-m", "sweep_peers.tune_loop", kind]
        output = watched.run(command, Path(folder), environment(), limit_s=300).output
    found: dict[str, Any] = json.loads([line for line in output.splitlines() if line.startswith("{")][-1])
    return found
