"""A strict sweep whose driver, or one of whose nodes, is killed at random moments, beside one that nothing happens to.

On the local cluster of Headway's own drills, two nodes of one worker. Held against the quiet sweep: which trials there
were and what became of each, every evaluation's every digit, the rungs and the best; and that each step of each trial
was committed once. Some minutes for each kill.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep_peers import workload

from headway.runs import RunFolder
from headway.runs.place import Place
from headway.sweeps import book
from headway.sweeps.conclusion import load
from headway.sweeps.folder import find
from headway.testing.cluster import Cluster
from sweep_parts.real import environment

NAME = "kills"
SIZE = workload.Size(steps=32, first=2, lane_batch=8, validation=200, trials=8)
CHANGES = {"order": "strict", "width": 2}
LIMIT_S = 900.0
SAME = ("trial", "settings", "state", "step", "evaluations")
"""What is to be the same of each trial."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    chance, found = random.Random(7), {"driver": [], "node": []}
    quiet, events = _quiet()
    for _ in range(options.repeats or 5):
        for what, killed in (("driver", _driver_killed), ("node", _node_killed)):
            at = chance.randrange(2, events - 1)
            try:
                figures = {"after_event": at, **_compared(killed(at, chance), quiet)}
            except RuntimeError as error:
                figures = {"after_event": at, "failed": str(error)[-1000:]}
            print(f"  {what}: {figures}", flush=True)
            found[what].append(figures)
    same = {what: sum(bool(each.get("same")) for each in figures) for what, figures in found.items()}
    return {"trials": SIZE.trials, "events": events, "quiet": quiet["figures"], "same": same, "repeats": found}


def _compared(sweep: dict[str, Any], quiet: dict[str, Any]) -> dict[str, Any]:
    odd = [key for key in ("trials", "rungs", "best") if sweep[key] != quiet[key]]
    return {"same": not odd and sweep["once"], "differs": odd, "each_step_once": sweep["once"], **sweep["figures"]}


def _quiet() -> tuple[dict[str, Any], int]:
    with _ground() as (folder, cluster):
        begun = time.monotonic()
        _through(_start(folder, cluster, "sweep", str(folder / "sweep.yaml"), "--name", NAME))
        return _outcome(folder, begun), len(list(book.entries(_book(folder))))


def _driver_killed(at: int, chance: random.Random) -> dict[str, Any]:
    with _ground() as (folder, cluster):
        begun = time.monotonic()
        driver = _start(folder, cluster, "sweep", str(folder / "sweep.yaml"), "--name", NAME)
        _wait(folder, driver, at)
        time.sleep(chance.uniform(0.0, 1.0))
        driver.kill()
        driver.wait()
        _through(_start(folder, cluster, "resume", NAME))
        return _outcome(folder, begun)


def _node_killed(at: int, chance: random.Random) -> dict[str, Any]:
    with _ground() as (folder, cluster):
        begun = time.monotonic()
        driver = _start(folder, cluster, "sweep", str(folder / "sweep.yaml"), "--name", NAME)
        _wait(folder, driver, at)
        time.sleep(chance.uniform(0.0, 1.0))
        cluster.kill_node(chance.randrange(workload.WORKERS))
        cluster.add_node()
        _through(driver)
        return _outcome(folder, begun)


@contextmanager
def _ground() -> Iterator[tuple[Path, Cluster]]:
    """A folder with the sweep's file, and a cluster."""
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        file = workload.write(folder, SIZE, **CHANGES)
        text = file.read_text().replace("\njob:\n", "\njob:\n  reproducible: bitwise\n")
        file.write_text(text)
        with Cluster(workload.WORKERS, environment=environment()) as cluster:
            yield folder, cluster


def _start(folder: Path, cluster: Cluster, *words: str) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "headway.cli.app", *words, "--runs", str(folder / "runs")]
    with (folder / "output.txt").open("ab") as output:
        return cluster.run([*command, "--address", cluster.address], stdout=output, stderr=output, cwd=folder)


def _wait(folder: Path, driver: subprocess.Popen[Any], events: int) -> None:
    """Until the sweep's book has so many."""
    _until(lambda: driver.poll() is not None or len(list(book.entries(_book(folder)))) >= events, folder)


def _through(driver: subprocess.Popen[Any]) -> None:
    try:
        code = driver.wait(LIMIT_S)
    finally:
        driver.kill()
    if code:
        raise RuntimeError(f"it ended with {code}")


def _until(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {LIMIT_S:g} s: {(folder / 'output.txt').read_text()[-1000:]}")
        time.sleep(0.05)


def _outcome(folder: Path, begun: float) -> dict[str, Any]:
    report = load(find(Place.of(folder / "runs"), NAME)).model_dump(mode="json")
    trials = [{key: trial[key] for key in SAME} for trial in report["trials"]]
    runs = [RunFolder(folder / "runs" / trial["run"]) for trial in report["trials"]]
    once = all(_once(run, trial["step"]) for run, trial in zip(runs, report["trials"], strict=True))
    best = {key: report["best"][key] for key in ("trial", "best", "best_step")}
    figures = {
        "seconds": round(time.monotonic() - begun, 1),
        "worker_s": report["worker_s"],
        "goodput": report["goodput"],
    }
    figures["repeated_s"] = report["ledger_s"].get("repeated", 0.0)
    return {"trials": trials, "rungs": report["rungs"], "best": best, "once": once, "figures": figures}


def _once(run: RunFolder, steps: int) -> bool:
    """Whether each step of a run was committed once."""
    return sorted(each["step"] for each in run.steps()) == list(range(steps))


def _book(folder: Path) -> Path:
    return folder / "runs" / NAME / book.FILE
