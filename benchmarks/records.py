"""What records cost a training, and whether any is lost: each part with its peers in the same run.

    python benchmarks/records.py [PART ...] [--quick]

Parts, in the order in which they run: see PARTS. Each says in its module (records_parts/) what it measures, and how
long that takes. What a part gives replaces its figures of earlier in results/records.json, with the date and the
machine's load; the figures of the others stay.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module
from pathlib import Path

from measure import keep, kept

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a server and a browser as tests have them

PARTS = {
    "journal": "a million `session.record` calls in the training thread",
    "training": "what logging costs a step, the queue full and the disk slow, against MLflow's client and autologging",
    "outage": "a tracking server that is away for minutes: steps meanwhile, points lost and twice, the drain",
    "reading": "`headway runs`, `headway report` and the report's page of long runs",
    "page": "MLflow's page for many runs of ours and a long one, against few and short ones",
    "export": "what Prometheus' figures cost, and how many series they are",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="; ".join(f"{k}: {v}" for k, v in PARTS.items()))
    parser.add_argument("--quick", action="store_true", help="a tenth of it, to see that it works")
    parser.add_argument("--minutes", type=float, default=10.0, help="outage: for so long the server is away")
    parser.add_argument("--name", default="records", help="of the file in results/")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        print(f"{part}: {PARTS[part]}", flush=True)
        before = round(os.getloadavg()[0], 1)
        found = import_module(f"records_parts.{part}").measure(options)
        figures = {"when": time.strftime("%Y-%m-%d"), "load": [before, round(os.getloadavg()[0], 1)], **found}
        keep(options.name, {"parts": {**kept(options.name).get("parts", {}), part: figures}})


if __name__ == "__main__":
    main()
