"""The same training on the test cloud, by Headway and by stock elastic Ray Train: who trained, when, on how many.

Both are given the same machines by the same provider behind Ray's autoscaler; both ask for one to `most` workers of one
CPU. What they committed is read from their own records: Headway's steps.jsonl and events.jsonl, and what the peer's
workers write themselves (see `records`).
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from elastic_peers import ours, ray_train, records, workload
from headway.testing.cluster import Cluster


class Done(NamedTuple):
    """A committed step: Unix seconds, its number, and how many workers committed it."""

    time: float
    step: int
    size: int


class Training(Protocol):
    """One contestant, which trains on a cluster from its making on."""

    driver: subprocess.Popen[Any]

    def done(self) -> list[Done]:
        """What it has committed so far, by time; a step that is done again is there again."""


class Ours:
    """Headway, by its command line on the cluster's head.

    Args:
        cluster: where it runs.
        folder: empty, for the job and the run.
        most: workers.
        steps: that the run has.
        parameters: of the model.
    """

    def __init__(self, cluster: Cluster, folder: Path, most: int, steps: int, parameters: int) -> None:
        job = ours.write(folder, parameters, 1, steps, rows=steps * workload.GLOBAL_BATCH)
        self.run = folder / "runs" / "run"
        settings = ["reproducible=order", "tracking.enabled=false", "workers.min=1", f"workers.max={most}"]
        command = [sys.executable, "-m", "headway.cli.app", "train", str(job), "--name", "run", "--json"]
        command += ["--runs", str(self.run.parent), "--address", cluster.address]
        command += [word for setting in settings for word in ("--set", setting)]
        with (folder / "output.txt").open("ab") as output:
            self.driver = cluster.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Those of a kind that the run has told of."""
        return [event for event in _lines(self.run / "events.jsonl") if event["kind"] == kind]

    def done(self) -> list[Done]:
        sizes = [(event["time"], event["workers"]) for event in self.events("generation")]
        found = []
        for line in _lines(self.run / "steps.jsonl"):
            before = [size for at, size in sizes if at <= line["time"]]
            found.append(Done(line["time"], line["step"], before[-1] if before else 0))
        return sorted(found)


class Stock:
    """Elastic Ray Train at its best settings; arguments as of `Ours`. It has no end, and is killed."""

    def __init__(self, cluster: Cluster, folder: Path, most: int, steps: int, parameters: int) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "elastic_peers.ray_train", cluster.address, str(folder), str(parameters), "1"]
        with (folder / "output.txt").open("ab") as output:
            self.driver = cluster.run([*command, str(most)], stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def done(self) -> list[Done]:
        found = records.commits(records.read(self._folder))
        return sorted(Done(commit.time, commit.step, commit.size) for commit in found)


CONTESTANTS = {"ours": Ours, "ray_train": Stock}
ENVIRONMENT = {**ray_train.TRAIN, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}
"""Of all nodes; Headway does not look at it. Three seconds for a group to start, as elsewhere, are too short for
workers on machines that have just come."""


def fresh(done: Sequence[Done]) -> list[Done]:
    """The commits that went beyond all before them."""
    found, highest = [], -1
    for each in sorted(done):
        if each.step > highest:
            found.append(each)
            highest = each.step
    return found


def repeated(done: Sequence[Done]) -> int:
    """Commits of steps that had been committed before."""
    return len(done) - len(fresh(done))


def longest_pause(done: Sequence[Done], since: float, until: float = float("inf")) -> float:
    """The longest time between two fresh commits of which the later is in between."""
    new = fresh(done)
    return max((b.time - a.time for a, b in itertools.pairwise(new) if since < b.time <= until), default=0.0)


def grown(done: Sequence[Done], size: int) -> float | None:
    """When so many workers first committed a step; None if they never did."""
    return next((each.time for each in sorted(done) if each.size >= size), None)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
