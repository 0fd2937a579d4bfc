"""Does anything grow while workers come and go? One run of Headway under churn, looked at every ten seconds.

    python benchmarks/churn.py [--minutes 30] [--seed 1]

On a local cluster of three nodes, every few seconds a worker is killed, or a node is killed or drained and another one
added; node 0 and its worker are left alone. Of driver, controller, recorder and that worker: memory, threads, file
descriptors, sockets; of the cluster: living actors and placement groups. Flat means that a line through the samples,
the first fifth left out, rises by less than 5 % (or by less than a few MB or pieces) over the time measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from elastic_peers import ours
from measure import keep

from headway.runs import RunFolder
from headway.testing.cluster import Cluster, Node

LOOK_S, BETWEEN_S, DRAIN_S = 10.0, (5.0, 15.0), 3.0
START_S = 180.0
NODES = 3
ROLES = {"controller": "ray::ElasticController", "recorder": "ray::Recorder"}
SLACK = {"memory_mb": 10.0, "threads": 2.0, "files": 3.0, "sockets": 3.0, "actors": 1.5, "placement_groups": 1.5}


def members(run: RunFolder) -> list[dict[str, Any]]:
    """The workers that train, as members.json has them."""
    try:
        tree = json.loads((run.path / "members.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [worker for worker in tree["workers"] if worker["phase"] == "member"]


def pids_on(node: Node, run: RunFolder) -> list[int]:
    """Of the workers that train on a node; members.json has them as they are on the node itself."""
    found = [node.process_of(worker["pid"]) for worker in members(run) if worker["node_id"] == node.node_id]
    return [pid for pid in found if pid is not None]


def of_process(pid: int) -> dict[str, float]:
    """Memory (resident), threads, file descriptors and sockets of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(str(entry.readlink()))
    return {
        "memory_mb": int(status["VmRSS"].split()[0]) / 1024,
        "threads": float(status["Threads"]),
        "files": float(len(links)),
        "sockets": float(sum(link.startswith("socket:") for link in links)),
    }


def of_cluster() -> dict[str, float]:
    """Actors that live, and placement groups that have not been removed."""
    import ray
    from ray._private.state import actors

    groups = ray.util.placement_group_table().values()
    return {
        "actors": float(sum(actor["State"] == "ALIVE" for actor in actors().values())),
        "placement_groups": float(sum(group["state"] != "REMOVED" for group in groups)),
    }


def look(cluster: Cluster, driver: int, run: RunFolder) -> dict[str, float]:
    """One sample: `role.measure` for all of them."""
    pids = {"driver": driver}
    for pid in cluster.processes():
        with suppress(OSError):
            title = Path(f"/proc/{pid}/cmdline").read_text()
            pids.update({role: pid for role, begins in ROLES.items() if title.startswith(begins)})
    kept = pids_on(cluster.nodes[0], run)
    if kept:
        pids["worker"] = kept[0]
    sample = {f"cluster.{name}": value for name, value in of_cluster().items()}
    for role, pid in pids.items():
        with suppress(OSError):
            sample.update({f"{role}.{name}": value for name, value in of_process(pid).items()})
    return sample


def disturb(cluster: Cluster, run: RunFolder, chance: random.Random) -> str | None:
    """Do one thing to the cluster, never to node 0; what it was."""
    up = [node for node in cluster.nodes[1:] if node.state == "up" and node.node_id]
    if len(up) < NODES - 1:
        return f"node {cluster.add_node().number} added"
    kind = chance.choice(("worker killed", "worker killed", "node killed", "node drained"))
    node = chance.choice(up)
    if kind == "node killed":
        cluster.kill_node(node.number)
    elif kind == "node drained":
        cluster.drain_node(node.number, DRAIN_S)
    else:
        pids = pids_on(node, run)
        if not pids:
            return None  # its worker is still on its way
        with suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGKILL)
    return kind


def slope(times: list[float], values: list[float]) -> float:
    """Rise per second of the line of least squares."""
    return statistics.linear_regression(times, values).slope if len(set(times)) > 1 else 0.0


def judged(samples: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """For each measure: its median, how much it rises per hour, and whether that is flat."""
    late = samples[len(samples) // 5 :]
    found = {}
    for name in sorted(set().union(*samples) - {"time"}):
        points = [(sample["time"], sample[name]) for sample in late if name in sample]
        if len(points) < 3:
            continue
        times, values = (list(column) for column in zip(*points, strict=True))
        rise, median = slope(times, values), statistics.median(values)
        growth = rise * (times[-1] - times[0])
        flat = growth <= max(0.05 * median, SLACK[name.rpartition(".")[2]])
        found[name] = {
            "median": round(median, 2),
            "first": round(values[0], 2),
            "last": round(values[-1], 2),
            "per_hour": round(rise * 3600, 2),
            "flat": flat,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="churn-") as folder, Cluster(NODES, guarded=False) as cluster:
        figures = churn(Path(folder), cluster, options.minutes * 60, random.Random(options.seed))
    keep("churn", {"what": f"{options.minutes:g} minutes of churn, seed {options.seed}", **figures})


def churn(folder: Path, cluster: Cluster, seconds: float, chance: random.Random) -> dict[str, Any]:
    """Train, disturb and look; figures."""
    import ray

    job = ours.write(folder, parameters=200_000, seed=1, steps=1_000_000, rows=100_000)
    settings = ["--set", f"workers.max={NODES}", "--set", "tracking.enabled=false"]
    command = [sys.executable, "-m", "headway.cli.app", "train", job, "--runs", folder, "--name", "churn"]
    with (folder / "output.txt").open("w") as output:
        driver = cluster.run([*command, "--address", cluster.address, *settings], stdout=output, stderr=output)
    run = RunFolder(folder / "churn")
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        wait_until_training(run, driver, folder / "output.txt")
        done, samples = [], []
        begun = time.monotonic()
        next_look, next_fault = begun, begun + LOOK_S
        while (now := time.monotonic()) < begun + seconds and driver.poll() is None:
            if now >= next_look:
                samples.append({"time": now - begun, **look(cluster, driver.pid, run)})
                next_look += LOOK_S
            if now >= next_fault:
                done += filter(None, [disturb(cluster, run, chance)])
                next_fault = time.monotonic() + chance.uniform(*BETWEEN_S)
            time.sleep(0.2)
        ended = driver.poll()
    finally:
        driver.kill()
        driver.wait()
        ray.shutdown()
    result = judged(samples)
    return {
        "flat": ended is None and all(figure["flat"] for figure in result.values()),
        "driver": "still running" if ended is None else f"ended with {ended}: {tail(folder / 'output.txt')}",
        "steps": max((step["step"] for step in run.steps()), default=-1) + 1,
        "disturbances": {kind: sum(d.split(" ")[-1] == kind for d in done) for kind in ("killed", "drained", "added")},
        "measures": result,
        "samples": samples,
    }


def wait_until_training(run: RunFolder, driver: subprocess.Popen[Any], output: Path) -> None:
    deadline = time.monotonic() + START_S
    while len(members(run)) < NODES:
        if driver.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the run did not start: {tail(output)}")
        time.sleep(0.2)


def tail(file: Path) -> str:
    return " ".join(file.read_text(errors="replace").splitlines()[-5:])


if __name__ == "__main__":
    main()
