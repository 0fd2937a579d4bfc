"""How long `headway --help` takes, against a Python that does nothing.

python benchmarks/start_up.py [--repeats 11]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from measure import keep, summary


def seconds(command: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    ours, bare = [], []
    for _ in range(repeats):
        ours.append(seconds([sys.executable, "-m", "headway.cli.app", "--help"]))
        bare.append(seconds([sys.executable, "-c", "pass"]))
    keep("start_up", {"what": "headway --help", "help_s": summary(ours), "bare_python_s": summary(bare)})


if __name__ == "__main__":
    main()
