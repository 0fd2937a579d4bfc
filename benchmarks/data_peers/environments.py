"""Environments of their own for peers whose pins clash with ours; kept in ~/.cache/headway-benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CACHE = Path.home() / ".cache" / "headway-benchmarks"
BENCHMARKS = Path(__file__).parents[1]


def python(versions: tuple[str, ...]) -> Path:
    """The interpreter that has these packages: ours if there are none. The first gives the environment its name."""
    return CACHE / versions[0] / "bin" / "python" if versions else Path(sys.executable)


def install(versions: tuple[str, ...]) -> str | None:
    """Make the environment if it is not there; why not, if that fails."""
    if not versions or (CACHE / versions[0] / "complete").exists():
        return None
    make = [sys.executable, "-m", "venv", "--clear", str(CACHE / versions[0])]
    fill = [str(python(versions)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *versions]
    for command in (make, fill):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no message"])[-1]
    (CACHE / versions[0] / "complete").touch()
    return None


def run(versions: tuple[str, ...], module: str, *arguments: str, cores: int | None = None) -> str:
    """Run one of these modules in the environment, pinned to so many cores; the JSON that it prints as a line.

    Raises:
        RuntimeError: it failed; with the last line of its errors.
    """
    pinned = sorted(os.sched_getaffinity(0))[-cores:] if cores else sorted(os.sched_getaffinity(0))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
    }
    command = ["taskset", "--cpu-list", ",".join(map(str, pinned)), str(python(versions)), "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
    return next(filter(_is_json, reversed(done.stdout.splitlines())), "")  # Ray has words of its own at its end


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
