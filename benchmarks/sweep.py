"""What a sweep costs, and what it finds: each part with its peers in the same run.

    python benchmarks/sweep.py [PART ...] [--repeats N] [--jobs N]

Parts, in the order in which they run: see PARTS. Each says in its module (sweep_parts/) what it measures and how long
that takes; all of them take some hours. What a part gives replaces its figures of earlier in results/sweep.json, with
the date and the machine's load; the figures of the others stay.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib import import_module

from measure import keep, kept

PARTS = {
    "replay": "searchers and schedulers on recorded learning curves",
    "elastic": "worker-seconds to a given regret, against trials of a fixed size",
    "decisions": "how long schedulers and searchers think",
    "loop": "what Tune's own loop costs: why ours is another",
    "short": "16 trials of seconds, against Tuner + TorchTrainer and Optuna",
    "long": "16 trials of a minute, against the same",
    "prefix": "two trials that share most of their way",
    "kills": "the driver and a node killed at random moments",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="; ".join(f"{k}: {v}" for k, v in PARTS.items()))
    parser.add_argument("--repeats", type=int, default=None, help="each part has its own default")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once, where a part can use them")
    parser.add_argument("--peers", default=None, help="only these, by commas; the others keep their figures of earlier")
    parser.add_argument("--name", default="sweep", help="of the file in results/")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        print(f"{part}: {PARTS[part]}", flush=True)
        options.earlier = kept(options.name).get("parts", {}).get(part, {})
        before = round(os.getloadavg()[0], 1)
        found = import_module(f"sweep_parts.{part}").measure(options)
        figures = {"when": time.strftime("%Y-%m-%d"), "load": [before, round(os.getloadavg()[0], 1)], **found}
        keep(options.name, {"parts": {**kept(options.name).get("parts", {}), part: figures}})


if __name__ == "__main__":
    main()
