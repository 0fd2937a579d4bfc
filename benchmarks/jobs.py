"""What it costs to submit to a cluster that is somewhere else: seconds until the first step, against the same run
started on the cluster's head, in turns.

    python benchmarks/jobs.py                   all of it
    python benchmarks/jobs.py first_step        some; what is not measured keeps its figures
    python benchmarks/jobs.py --pairs 7

The cluster is `headway.testing.cluster`'s: a head with Ray's job API and a token, two nodes, and no Headway on any but
what comes with a job. Runs and data are in an S3 service on the same machine, in a process of its own. The first
submission is not counted: it brings Headway there, as the first of a new version does. Every run is one of a few steps,
and its first step's time is what its own records say.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from measure import keep, kept, summary
from storage import BUCKET, LATENCY_S, NUM_RUNS, Service, bare, environment, fill_store
from try_out import prepared

from headway.testing.cluster import Cluster

PACKAGE = Path(__file__).parents[1] / "platform" / "headway"
RUNS = f"s3://{BUCKET}/jobs"
APP = ["-m", "headway.cli.app"]
SECTIONS = ("first_step", "echo", "listing")


class Lab:
    """A cluster, and a shell that is on no machine of it."""

    def __init__(self, cluster: Cluster, folder: Path, service: Service, job: Path) -> None:
        self.cluster, self.folder, self.service, self.job = cluster, folder, service, job
        self.numbers = iter(range(1000))
        # The head's own: there, a driver that is no job needs an installed Headway.
        shutil.copytree(PACKAGE, folder / "installed" / "headway", ignore=shutil.ignore_patterns("__pycache__"))

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        own = {"RAY_AUTH_TOKEN": self.cluster.token, "HEADWAY_RUNS": RUNS, "HEADWAY_CACHE": str(self.folder / "cache")}
        return {**kept, **own, "HOME": str(self.folder), "PYTHONPATH": str(PACKAGE.parent)}

    def headway(self, *arguments: object) -> str:
        command = [sys.executable, *APP, *map(str, arguments)]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submitted(self) -> tuple[float, float]:
        """Seconds from the command's start until the run's first step, and until the command said that it runs."""
        name = f"submitted-{next(self.numbers)}"
        begun = time.time()
        self.headway("submit", self.job, "--address", self.cluster.jobs, "--name", name)
        said = time.time() - begun
        return self.first_step(name) - begun, said

    def on_the_head(self) -> float:
        """Seconds from the start of `headway train` on the head until the first step."""
        name = f"head-{next(self.numbers)}"
        begun = time.time()
        command = [sys.executable, *APP, "train", self.job, "--address", self.cluster.address, "--name", name]
        own = {"HEADWAY_RUNS": RUNS, "PYTHONPATH": str(self.folder / "installed")}
        driver = self.cluster.run(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, said
        return self.first_step(name) - begun

    def first_step(self, name: str) -> float:
        """When it was, in Unix seconds; waits for the run's end."""
        deadline = time.monotonic() + 300
        while json.loads(self.headway("status", name, "--json"))["state"] != "finished":
            assert time.monotonic() < deadline, f"{name} does not end"
            time.sleep(0.5)
        self.headway("runs", "cp", f"{RUNS}/{name}", str(self.folder / "looked"))
        with (self.folder / "looked" / name / "steps.jsonl").open() as lines:
            return float(json.loads(next(lines))["time"])


@contextmanager
def lab(service: Service) -> Iterator[Lab]:
    """A cluster with a small job."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = prepared(folder / "project")
        tree = yaml.safe_load(job.read_text())
        tree["data"] = {**dict.fromkeys(("train", "validation"), f"s3://{BUCKET}/set")}
        tree["data"]["store"] = {"endpoint": service.endpoint}
        job.write_text(yaml.safe_dump(tree))
        store = bare()
        for path in (folder / "project" / "set").rglob("*"):
            if path.is_file():
                store.put(f"set/{path.relative_to(folder / 'project' / 'set')}", path.read_bytes())
        with Cluster(nodes=2, environment=environment(service.endpoint), jobs=True) as cluster:
            yield Lab(cluster, folder, service, job)


def first_step(lab: Lab, pairs: int) -> dict[str, Any]:
    cold, _ = lab.submitted()
    there, said, head = [], [], []
    for number in range(pairs):
        turns: list[Callable[[], None]] = [
            lambda: [kept.append(value) for kept, value in zip((there, said), lab.submitted(), strict=True)] and None,
            lambda: head.append(lab.on_the_head()),
        ]
        for turn in turns if number % 2 else reversed(turns):
            turn()
    over = [a - b for a, b in zip(there, head, strict=True)]
    figures: dict[str, Any] = {"what": "seconds until the first step, cluster warm", "pairs": pairs}
    figures |= {"submitted_s": summary(there), "said_to_run_s": summary(said), "on_the_head_s": summary(head)}
    return {**figures, "over_the_head_s": round(statistics.median(over), 3), "first_submission_s": round(cold, 3)}


def echo(lab: Lab, repeats: int) -> dict[str, Any]:
    """What Ray itself takes for a job that prints a word."""
    from headway.jobs.api.client import RayJobs

    jobs, seconds = RayJobs(lab.cluster.jobs, token=lab.cluster.token), []
    for number in range(repeats):
        begun, name = time.monotonic(), f"echo-{number}"
        jobs.submit(name, "echo hello", {}, {})
        while (job := jobs.job(name)) is None or job.alive:
            time.sleep(0.02)
        seconds.append(time.monotonic() - begun)
        assert "hello" in (jobs.logs(name) or "")
    return {"what": "a job that only echoes", "echo_s": summary(seconds)}


def listing(lab: Lab, repeats: int) -> dict[str, Any]:
    """`ls` and `status` with the cluster asked too, beside `runs`, which asks the store alone."""
    lab.service.slow(0.0, None)
    fill_store()
    place = f"s3://{BUCKET}/runs"
    commands = {
        "runs": ["runs", "--runs", place],
        "ls": ["ls", "--runs", place, "--address", lab.cluster.jobs],
        "status": ["status", "run-0007", "--runs", place, "--address", lab.cluster.jobs],
    }
    seconds: dict[str, list[float]] = {}
    requests: dict[str, dict[str, int]] = {}
    for _ in range(repeats):
        for name, arguments in commands.items():
            lab.service.slow(rate=None)
            begun = time.monotonic()
            told = json.loads(lab.headway(*arguments, "--json"))
            seconds.setdefault(f"{name}_command_s", []).append(time.monotonic() - begun)
            assert name == "status" or len(told["runs"]) >= NUM_RUNS
            requests[name] = {k: v for k, v in lab.service.counts().items() if k in ("GET", "HEAD", "PUT")}
    lab.service.slow(0.0, None)
    what = f"{NUM_RUNS:,} runs in S3 with {LATENCY_S * 1e3:.0f} ms a request, and the cluster's list of jobs"
    return {"what": what, "requests": requests, **{name: summary(values) for name, values in seconds.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="by default all")
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    figures = {name: value for name, value in kept("jobs").items() if name in SECTIONS}
    with Service() as service:
        os.environ |= environment(service.endpoint)
        with lab(service) as found:
            service.slow(0.0, None)
            for name in asked.sections or SECTIONS:
                begun = time.strftime("%Y-%m-%d"), os.getloadavg()[0]
                figures[name] = globals()[name](found, asked.pairs)
                figures[name] |= {"when": begun[0], "load": [round(begun[1], 1), round(os.getloadavg()[0], 1)]}
    keep("jobs", figures)


if __name__ == "__main__":
    main()
