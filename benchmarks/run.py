"""The shorter benchmarks, one after the other: `make bench`. Each can be run alone and says how in its first lines.

elasticity.py takes an hour and a half, churn.py as long as it is told, and simulate.py asks for a trace.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "start_up",
    "checkpoint",
    "step_time",
    "lanes",
    "replica_check",
    "data",
    "imbalance",
    "shuffle_quality",
    "files",
    "try_out",
)


def main() -> None:
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).parent / f"{name}.py")], check=True)


if __name__ == "__main__":
    main()
