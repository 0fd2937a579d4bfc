"""What decisions about money are worth: deadlines, the queue; each part with its peers in the same run.

    python benchmarks/policy.py PART [OPTIONS]

A part is a module of policy_parts/ (`late` is policy_parts/late.py, `queue-sim` policy_parts/queue_sim.py). Each says
in its module what it measures and how long that takes, and writes results/policy_PART.json.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # machines as the tests have them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for path in sorted((Path(__file__).parent / "policy_parts").glob("[a-z]*.py")):
        part = import_module(f"policy_parts.{path.stem}")
        about = (part.__doc__ or "").strip()
        own = parts.add_parser(
            path.stem.replace("_", "-"),
            help=about.splitlines()[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        part.options(own)
        own.set_defaults(measure=part.measure)
    found = parser.parse_args()
    found.measure(found)


if __name__ == "__main__":
    main()
