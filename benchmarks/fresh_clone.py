"""What a stranger waits for: `make demo` in a fresh clone of this checkout's last commit, set-up and data included.

python benchmarks/fresh_clone.py
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

from measure import keep

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headway-") as scratch:
        clone = Path(scratch) / "headway"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        begun = time.monotonic()
        subprocess.run(["make", "demo"], cwd=clone, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begun
        run = min(
            (clone / "runs").glob("*/run.json")
        ).parent  # names end in the time: the one under fire, not the quiet one
        steps = [json.loads(line)["time"] for line in (run / "steps.jsonl").read_text().splitlines()]
        facts = json.loads((run / "run.json").read_text())
        latest = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    keep(
        "fresh_clone",
        {
            "what": "make demo in a fresh clone",
            "demo_s": round(seconds, 1),
            "training_s": round(steps[-1] - steps[0], 1),
            "steps": len(steps),
            "accuracy": round(latest["values"]["accuracy"], 4),
            "waits_for_data": round(facts["ledger_s"]["data"] / sum(facts["ledger_s"].values()), 4),
        },
    )


if __name__ == "__main__":
    main()
