"""Two trials that share 80 % of their way: worker-seconds with `share_prefix`, against both alone. Some 2 minutes.

They differ in how long they are, under a schedule that does not depend on that: what comes before the shorter one's end
is the same to the bit, and is run once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import summary
from sweep_peers import watched, workload

from headway.runs.place import Place
from headway.sweeps.conclusion import load
from headway.sweeps.folder import find
from sweep_parts.real import environment

SIZE = workload.Size(steps=240, first=24, lane_batch=16, validation=500)
STEPS = (192, 240)
"""Of the two trials: the shorter is the longer one's beginning, 80 % of its way."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {"alone": [], "shared": []}
    for _ in range(options.repeats or 3):
        for how, figures in found.items():
            with tempfile.TemporaryDirectory(prefix="prefix-") as folder:
                figures.append(_run(Path(folder), shared=how == "shared"))
            print(f"  {how}: {figures[-1]}", flush=True)
    medians = {how: summary([each["step_s"] for each in figures])["median"] for how, figures in found.items()}
    same = len({json.dumps(each["weights"]) for figures in found.values() for each in figures}) == 1
    return {
        "steps": STEPS,
        "ratio": round(medians["shared"] / medians["alone"], 3),
        "same_bits": same,
        "repeats": found,
    }


def _run(folder: Path, shared: bool) -> dict[str, Any]:
    file = workload.write(
        folder,
        SIZE,
        trials=2,
        space={"steps": {"choice": list(STEPS)}},
        search={"name": "grid"},
        scheduler={"name": "none"},
        share_prefix=shared,
    )
    text = file.read_text().replace("\njob:\n", "\njob:\n  reproducible: bitwise\n")
    file.write_text(text.replace("name: cosine", "name: constant"))
    command = [sys.executable, "-m", "headway.cli.app", "sweep", str(file), "--name", "prefix", "--json"]
    watched.run([*command, "--runs", str(folder / "runs")], folder, environment())
    report = load(find(Place.of(folder / "runs"), "prefix")).model_dump(mode="json")
    runs = [json.loads((folder / "runs" / trial["run"] / "run.json").read_text()) for trial in report["trials"]]
    ledger = report["ledger_s"]
    began = ledger.get("start", 0.0) + ledger.get("idle", 0.0)
    return {
        "worker_s": report["worker_s"],
        "step_s": round(report["worker_s"] - began, 3),
        "weights": [run["weights_sha256"] for run in runs],
    }
