"""A queue on a real cluster: workers are borrowed and given back live, a job is paused and goes on, the keeper is
killed meanwhile, and each job ends with the bits of one that nothing happened to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Project, wait_until
from tests.ray.head import Head, head

SHORT = ("--set", "epochs=null", "--set", "steps=10")
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


class Shell:
    """A shell that reaches the cluster, with a queue beside its runs."""

    def __init__(self, cluster: Head, folder: Path, job: Path) -> None:
        self.cluster, self.folder, self.job = cluster, folder, job
        self.runs = folder / "runs"

    def headway(self, *arguments: object, code: int = 0) -> str:
        own = {"HEADWAY_RUNS": str(self.runs), "RAY_API_SERVER_ADDRESS": self.cluster.dashboard}
        own |= {"HEADWAY_CACHE": str(self.folder / "cache"), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        done = subprocess.run(
            [sys.executable, "-m", "headway.cli.app", *map(str, arguments)],
            env=self.cluster.environment(**self.cluster.known, **own),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def submit(self, name: str, *more: object, code: int = 0) -> str:
        return self.headway("submit", self.job, "--queue", "--name", name, *more, code=code)

    def entries(self) -> dict[str, dict[str, Any]]:
        """By run; of the queue's book itself, which costs no process."""
        from headway.core import enqueued
        from headway.queues import asking

        found = asking.ls(self.runs)
        return {entry.run: {**enqueued.to_tree(entry), "state": entry.state} for entry in found.entries}

    def state(self, run: str) -> str:
        return str(self.entries().get(run, {}).get("state", ""))

    def report(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.headway("report", run, "--json"))
        return found

    def keeper(self) -> int:
        """The process that keeps the queue."""
        from headway.queues.place import QueuePlace, storage_of
        from headway.runs import Place

        found = QueuePlace(storage_of(Place.of(self.runs))).read()
        assert found is not None
        return found[1].owner.pid


@pytest.fixture(scope="module")
def shell(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with head(cpus=4) as cluster:
        yield Shell(cluster, tmp_path_factory.mktemp("queue"), project.job)


def same(report: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    assert report["state"] == "finished"
    for name in ("weights_sha256", "samples_sha256", "losses", "steps"):
        assert report[name] == undisturbed[name], name


def steps(shell: Shell, run: str) -> int:
    return int(shell.entries()[run].get("steps", 0))


def test_workers_are_borrowed_live_and_given_back_though_the_keeper_is_killed(
    shell: Shell, undisturbed: dict[str, Any]
) -> None:
    slow = ("--set", "workers.max=4", "--set", "arguments.pause=0.5")
    shell.submit("low", *slow)
    shell.headway("queue", "quotas", "--set", "snooze_s=1")
    wait_until(lambda: shell.state("low") == "running", "it trains")
    assert shell.entries()["low"]["workers"] == 4
    more = ("--priority", "5", "--team", "ml", "--set", "workers.min=2", "--set", "epochs=null", "--set", "steps=20")
    shell.submit("high", *more)
    entries = shell.entries()
    assert (entries["low"]["workers"], entries["high"]["workers"]) == (2, 2)
    killed = shell.keeper()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: shell.keeper() != killed, "another keeper")
    wait_until(lambda: shell.state("high") in ("running", "finished"), "the other trains")
    assert shell.state("low") == "running"
    wait_until(lambda: shell.state("high") == "finished", "the other ends")
    wait_until(
        lambda: shell.entries()["low"].get("workers") == 4 or shell.state("low") == "finished", "it has them back"
    )
    wait_until(lambda: shell.state("low") == "finished", "its end")
    assert shell.entries()["low"]["starts"] == 1
    same(shell.report("low"), undisturbed)
    told = shell.headway("events", "low")
    for text in ("the queue asks for 2 workers", "the queue asks for 4 workers"):
        assert text in told, told
    log = [json.loads(line) for line in shell.headway("queue", "log", "--json").splitlines()]
    done = [(each["do"], each["run"]) for each in log if each["do"] in ("start", "resize")]
    assert done == [("start", "low"), ("resize", "low"), ("start", "high"), ("resize", "low")]
    assert all(each["why"] for each in log)


def test_a_job_is_paused_where_shrinking_is_not_enough_and_ends_with_the_same_bits(
    shell: Shell, undisturbed: dict[str, Any]
) -> None:
    shell.submit("broad", "--set", "workers.min=3", "--set", "workers.max=4", "--set", "arguments.pause=0.2")
    wait_until(lambda: shell.state("broad") == "running" and steps(shell, "broad") >= 6, "it trains")
    shell.submit("first", "--priority", "1", "--set", "workers.min=4", "--set", "workers.max=4", *SHORT)
    wait_until(lambda: shell.state("broad") == "paused", "it is paused")
    before = steps(shell, "broad")
    wait_until(lambda: shell.state("first") == "finished", "the first ends")
    wait_until(lambda: shell.state("broad") == "finished", "it goes on, and ends")
    same(shell.report("broad"), undisturbed)
    entry = shell.entries()["broad"]
    assert entry["starts"] == 2
    told = shell.headway("events", "broad")
    assert "stopped by the queue" in told or "the queue asks" in told, told
    assert before >= 6


def test_what_no_size_of_the_cluster_can_hold_is_refused_and_leaves_nothing(shell: Shell) -> None:
    vast = ("--set", "lanes=8", "--set", "workers.min=8", "--set", "workers.max=8")
    said = shell.submit("vast", *vast, code=2)
    assert "8 workers" in said
    assert "4" in said, said
    assert "vast" not in shell.entries()

    said = shell.headway("queue", "quotas", "--set", "ml.workers=-1", code=2)
    assert "ml.workers=-1" in said, said
    assert "nobody is not in the queue" in shell.headway("queue", "rm", "nobody", code=2)
