"""Goodput on recorded losses of machines: Headway's membership and, on the same trace, how others do it.

    python benchmarks/simulate.py TRACE...

TRACE: CSV of nodes or JSON of faults, as `headway simulate` reads them. Costs are those that benchmarks/elasticity.py
measured on this machine, where it did.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measure import RESULTS, keep

from headway.sim import compare, costs, trace


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("trace", type=Path, nargs="+")
    measured = RESULTS / "elasticity.json"
    prices = costs.load(measured if measured.exists() else None)
    found = [compare.compare(trace.read(path, seed=0), prices).as_json() for path in parser.parse_args().trace]
    keep("simulate", {"what": "goodput by policy, machines as recorded", "traces": found})


if __name__ == "__main__":
    main()
