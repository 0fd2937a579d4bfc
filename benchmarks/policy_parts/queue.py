"""The queue for real: six jobs of three priorities on three machines, at most three at once.

    python benchmarks/policy.py queue [--steps 40] [--prepared]

The cluster is `headway.testing.cluster`'s: a head with Ray's job API, and three nodes with room for one worker each, in
namespaces of their own; runs and the queue lie in a folder that all of them see. Four jobs of low priority come first,
elastic from one to three workers; then, once they train, one of a higher priority that takes a worker of theirs, and
one of the highest that needs all three machines, for which they are paused. All of it is what `headway submit --queue`
does, from a shell outside of the cluster; times are what the runs' and the queue's own records say.

Takes some five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from measure import keep, kept

from headway.data.write.writer import write_dataset
from headway.queues import asking
from headway.testing.cluster import Cluster

PLATFORM = Path(__file__).parents[2] / "platform"
NAME = "policy_queue"
LIMIT_S = 900.0
SETTLE_S = 25.0
TASK = """
import time

import headway
from torch import nn
from torch.nn import functional


class Small(headway.Task):
    def __init__(self, pause=0.0):
        self.pause = pause

    def model(self):
        return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))

    def loss(self, model, batch):
        time.sleep(self.pause)  # each lane, so that more workers are faster, whatever this machine has
        return functional.cross_entropy(model(batch["x"]), batch["y"])
"""
JOBS = [  # name, priority, team, least, most, part of the steps
    ("low-1", 0, "ml", 1, 3, 2.0),
    ("low-2", 0, "ml", 1, 3, 1.0),
    ("low-3", 0, "vision", 1, 3, 1.0),
    ("low-4", 0, "vision", 1, 3, 0.5),
    ("mid", 5, "vision", 1, 1, 0.5),
    ("top", 9, "speech", 3, 3, 0.5),
]
WARM = ("low-3", "low-4")
"""Those of which a worker's process stands by while they are the next."""
QUOTAS = ["most_running=3", "snooze_s=3", "ml.workers=2", "vision.workers=3"]
LIMITS = {"ml": 2, "vision": 3}


class Lab:
    """A cluster, and a shell that is on no machine of it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder, self.runs = cluster, folder, folder / "runs"
        self.runs.mkdir()

    def headway(self, *arguments: object) -> str:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        own = {"RAY_AUTH_TOKEN": self.cluster.token, "HEADWAY_RUNS": str(self.runs), "PYTHONPATH": str(PLATFORM)}
        own |= {"RAY_API_SERVER_ADDRESS": self.cluster.jobs, "HEADWAY_CACHE": str(self.folder / "cache")}
        command = [sys.executable, "-m", "headway.cli.app", *map(str, arguments)]
        done = subprocess.run(command, env={**kept, **own}, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def submit(self, name: str, steps: int) -> float:
        """Returns the seconds that the command took."""
        priority, team, least, most, part = next(rest for each, *rest in JOBS if each == name)
        sizes = [f"workers.min={least}", f"workers.max={most}", f"steps={max(4, int(steps * part))}"]
        sizes += ["workers.spares=1"] if name in WARM else []
        settings = [word for setting in sizes for word in ("--set", setting)]
        begun = time.monotonic()
        self.headway(
            *("submit", self.folder / "job.yaml", "--queue", "--name", name),
            *("--priority", priority, "--team", team, *settings),
        )
        return time.monotonic() - begun

    def records(self, run: str, name: str) -> list[dict[str, Any]]:
        path = self.runs / run / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def first_step(self, run: str, after: float = 0.0) -> float | None:
        """When it was, in Unix seconds, after that moment."""
        return next((each["time"] for each in self.records(run, "steps") if each["time"] > after), None)


def watched(lab: Lab, until: Callable[[dict[str, Any]], bool], seen: list[dict[str, Any]]) -> None:
    """Look at the queue until it is so, and keep what was seen of who held what."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        entries = {entry.run: entry for entry in asking.ls(lab.runs).entries}
        held = {run: entry.workers for run, entry in entries.items() if entry.state in ("starting", "running")}
        teams: dict[str, int] = {}
        for run, workers in held.items():
            teams[entries[run].team] = teams.get(entries[run].team, 0) + workers
        seen.append({"jobs": len(held), "workers": sum(held.values()), "teams": teams})
        if until(entries):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {LIMIT_S} s: { {run: e.state for run, e in entries.items()} }")
        time.sleep(0.1)


def on_a_cluster(steps: int, only_prepared: bool) -> dict[str, Any]:
    """All of it on a cluster of its own."""
    with tempfile.TemporaryDirectory(prefix="headway-queue-") as scratch:
        folder = Path(scratch)
        prepare(folder)
        with Cluster(nodes=3, jobs=True) as cluster:
            lab = Lab(cluster, folder)
            found: dict[str, Any] = {"prepared": [prepared(lab, number, warm) for number, warm in enumerate((0, 3, 3))]}
            return {**found, **story(lab, steps)} if not only_prepared else found


def prepared(lab: Lab, number: int, warm: int) -> dict[str, Any]:
    """A job that waits until another one, which has all machines, is taken off the queue: from the decision that it
    begins to its first step. warm: so many processes of its workers stand by."""
    before, after = f"before-{number}", f"after-{number}"
    for name, steps, spares in ((before, 100_000, 0), (after, 6, warm)):
        settings = ["workers.min=2", "workers.max=3", f"steps={steps}", f"workers.spares={spares}"]
        words = [word for setting in settings for word in ("--set", setting)]
        lab.headway("submit", lab.folder / "job.yaml", "--queue", "--name", name, *words)
    seen: list[dict[str, Any]] = []
    watched(lab, lambda entries: entries[before].state == "running", seen)
    watched(lab, lambda _: (lab.runs / after / "run.json").exists(), seen)
    time.sleep(SETTLE_S)  # its controller is begun, and what stands by imports
    asked = time.time()
    lab.headway("queue", "rm", before)
    watched(lab, lambda entries: entries[after].over, seen)
    log = [each for each in asking.log(lab.runs) if each["run"] == after]
    decided = next(each["time"] for each in log if each["do"] == "start")
    first = lab.first_step(after) or float("nan")
    freed = next(each["time"] for each in lab.records(before, "events") if each["kind"] == "end")
    return {
        "stand_by": warm,
        "asked_to_freed_s": round(freed - asked, 2),
        "freed_to_first_step_s": round(first - freed, 2),
        "decided_to_first_step_s": round(first - decided, 2),
    }


def story(lab: Lab, steps: int) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []
    commands = {"low-1": lab.submit("low-1", steps)}
    lab.headway("queue", "quotas", *[word for each in QUOTAS for word in ("--set", each)])
    for name in ("low-2", "low-3", "low-4"):
        commands[name] = lab.submit(name, steps)
    watched(lab, lambda entries: sum(each.state == "running" for each in entries.values()) >= 2, seen)
    commands["mid"] = lab.submit("mid", steps)
    watched(lab, lambda entries: entries["mid"].state != "starting" and entries["mid"].steps > 0, seen)
    commands["top"] = lab.submit("top", steps)
    watched(lab, lambda entries: all(each.over for each in entries.values()), seen)
    entries = {entry.run: entry for entry in asking.ls(lab.runs).entries}
    log = list(asking.log(lab.runs))
    rows = [row(lab, name, entries[name], log) for name, *_ in JOBS]
    return {
        "jobs": rows,
        "all_end": all(each["state"] == "finished" for each in rows),
        "most_training": most_training(lab, log),
        "most_decided": max(each["jobs"] for each in seen),
        "quotas_kept": all(each["teams"].get(team, 0) <= most for each in seen for team, most in LIMITS.items()),
        "longest_wait_s": max(each["wait_s"] for each in rows),
        "freed": freed(lab, log),
        "submit_command_s": {name: round(took, 2) for name, took in commands.items()},
        "looks": len(seen),
    }


def row(lab: Lab, name: str, entry: Any, log: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A job's times: from its submission to its first start, from there to its first step, to its end."""
    mine = [each for each in log if each["run"] == name]
    starts = [each["time"] for each in mine if each["do"] in ("start", "resume")]
    first = lab.first_step(name) or float("nan")
    again = [lab.first_step(name, at) for at in starts[1:]]
    return {
        "job": name,
        "priority": entry.priority,
        "stands_by": entry.warm,
        "state": entry.state,
        "wait_s": round(starts[0] - entry.at, 2),
        "first_step_s": round(first - starts[0], 2),
        "again_s": [round(step - at, 2) for step, at in zip(again, starts[1:], strict=True) if step is not None],
        "starts": entry.starts,
        "sizes": [each["workers"] for each in mine if each["do"] in ("start", "resize", "resume")],
        "through_s": round(entry.since - entry.at, 2),
    }


def most_training(lab: Lab, log: Sequence[dict[str, Any]]) -> int:
    """Jobs that trained at once, by their own records: from the first step of a start to its last."""
    moments: list[tuple[float, int]] = []
    for name, *_ in JOBS:
        starts = [each["time"] for each in log if each["run"] == name and each["do"] in ("start", "resume")]
        times = [step["time"] for step in lab.records(name, "steps")]
        for begin, end in zip(starts, [*starts[1:], float("inf")], strict=True):
            of_start = [at for at in times if begin <= at < end]
            if of_start:
                moments += [(of_start[0], 1), (of_start[-1], -1)]
    now = most = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def freed(lab: Lab, log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How long after a decision by which a job gives workers up these were free: from the queue's record of it to the
    run's own of the first step without them, or of its end; and how long a step of it takes."""
    found = []
    size: dict[str, int] = {}
    for each in log:
        run, before = each["run"], size.get(each["run"], 0)
        if each["do"] in ("start", "resize", "resume"):
            size[run] = each["workers"]
        events = lab.records(run, "events")
        if each["do"] == "resize" and each["workers"] < before:
            after = [e["time"] for e in events if e["kind"] == "workers" and e["time"] >= each["time"]]
        elif each["do"] == "pause":
            after = [e["time"] for e in events if e["kind"] == "end" and e["time"] >= each["time"]]
        else:
            continue
        times = [step["time"] for step in lab.records(run, "steps") if step["time"] < each["time"]][-6:]
        if not times:
            continue  # it had not begun to train
        step_s = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
        seconds = round(after[0] - each["time"], 3) if after else None
        found.append({"run": run, "how": each["do"], "seconds": seconds, "step_s": step_s and round(step_s, 3)})
    return found


def prepare(folder: Path) -> None:
    """A small job whose lanes take a while."""
    x = np.random.default_rng(0).normal(size=(512, 8)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 8)
    table = pa.table({"x": column, "y": (x.sum(1) > 0).astype(np.int64)})
    write_dataset(folder / "set", [table], name="s", source="")
    (folder / "task.py").write_text(TASK)
    job = {"name": "small", "task": "task.py:Small", "data": {"train": str(folder / "set")}}
    job |= {"lanes": 6, "lane_batch": 8, "tracking": {"enabled": False}, "arguments": {"pause": 0.1}}
    job |= {"checkpoint": {"every_steps": 20}}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


def options(parser: argparse.ArgumentParser) -> None:
    """Of this part."""
    parser.add_argument("--steps", type=int, default=40, help="of a job; some have twice, some half of it")
    parser.add_argument("--prepared", action="store_true", help="only how soon one begins that has waited")


def measure(given: argparse.Namespace) -> None:
    """Measure it, and keep it in results/policy_queue.json."""
    load = round(os.getloadavg()[0], 1)
    found = on_a_cluster(given.steps, given.prepared)
    before = kept(NAME) if given.prepared else {}
    keep(NAME, {**before, "load": [load, round(os.getloadavg()[0], 1)], "steps": given.steps, **found})
