"""Every way to see a run, on one that trained here and on one in s3:// that a cluster ran: while it trains, and after
its end from a machine that has nothing of it but the bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tests.ray.conftest import Project

from headway.testing.cluster import Cluster
from headway.testing.s3 import KEYS, S3

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

URL = "s3://bucket/runs"
PLACES = ("here", pytest.param("away", marks=pytest.mark.long))
TASK = """
import os
import time

import torch
from torch import nn

import headway


class Slow(headway.Task):
    def model(self):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 4))

    def loss(self, model, batch):
        if os.path.exists("BRAKE"):  # while somebody comes to look
            time.sleep(0.5)
        return nn.functional.cross_entropy(model(batch["image"].float() / 255), batch["label"])

    def metrics(self, model, batch):
        return {"accuracy": (model(batch["image"].float() / 255).argmax(1) == batch["label"]).double().mean()}
"""


@dataclass(frozen=True)
class Seen:
    """A run that has ended, and a machine from which it is looked at.

    Args:
        name: of the run.
        runs: where it is.
        environ: of that machine.
        folder: of its own.
        report: that the command which trained it printed.
        watched: what `headway watch --plain` said of it meanwhile, and how that ended.
        figures: what Prometheus would have read last.
    """

    name: str
    runs: str
    environ: dict[str, str]
    folder: Path
    report: dict[str, Any]
    watched: tuple[int, str]
    figures: str

    def headway(self, *words: object, code: int = 0) -> str:
        command = [*map(str, words), "--runs", self.runs]
        done = subprocess.run(
            called(command), env=self.environ, cwd=self.folder, capture_output=True, text=True, check=False, timeout=240
        )
        assert done.returncode == code, f"headway {' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout


def called(words: list[str]) -> list[str]:
    return [sys.executable, "-c", "from headway.cli.app import main; main()", *words]


def machine(folder: Path, **more: str) -> dict[str, str]:
    """The environment of one with a home of its own."""
    folder.mkdir(parents=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    return {**plain, "HOME": str(folder), "HEADWAY_CACHE": str(folder / "cache"), "MPLBACKEND": "agg", **more}


def seen(
    train: subprocess.Popen[str], name: str, runs: str, machines: tuple[dict[str, str], dict[str, str]], brake: Path
) -> Seen:
    """Look on while it trains, from the second machine; the figures from the first, where they are served. Then the run
    may be quick: the brake is let go."""
    own, other = machines
    folder = Path(other["HOME"])
    last, watch = "", None
    try:
        while train.poll() is None:
            if watch is None and name in _listed(runs, other, folder):
                words = called(["watch", name, "--plain", "--runs", runs])
                pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
                watch = subprocess.Popen(words, env=other, cwd=folder, **pipes)
            last = _figures(Path(own["HOME"]), name) or last
            if watch is not None and "\nheadway_step{" in last:
                brake.unlink(missing_ok=True)
            with suppress(subprocess.TimeoutExpired):
                train.wait(0.2)
        out, err = train.communicate()
        assert train.returncode == 0, err
        assert watch is not None, "the run was never listed while it trained"
        said, _ = watch.communicate(timeout=120)
    finally:
        for process in (train, watch):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()
    return Seen(name, runs, other, folder, json.loads(out), (watch.returncode, said), last)


def _listed(runs: str, environ: dict[str, str], folder: Path) -> set[str]:
    words = called(["runs", "--json", "--runs", runs])
    done = subprocess.run(words, env=environ, cwd=folder, capture_output=True, text=True, check=False)
    return {run["run"] for run in json.loads(done.stdout)["runs"]} if done.returncode == 0 else set()


def _figures(home: Path, name: str) -> str:
    """From where the entry leads; empty where there is none yet, or no more."""
    for entry in home.rglob(f".prometheus/{name}.json"):
        with suppress(OSError, ValueError, LookupError):
            target = json.loads(entry.read_text())[0]["targets"][0]
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
    return ""


def job(project: Project, folder: Path, data: dict[str, Any]) -> Path:
    """A task that nothing of Ray's is known to, and that is slow until it was looked at."""
    (folder / "brake").touch()
    (folder / "slow.py").write_text(TASK.replace("BRAKE", str(folder / "brake")))
    path = folder / "job.yaml"
    own = {"name": "slow", "task": f"{folder / 'slow.py'}:Slow", "data": data, "tracking": {"enabled": True}}
    path.write_text(yaml.safe_dump({**project.tree(), **own, "arguments": {}}))
    return path


@pytest.fixture(scope="module")
def here(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("here")
    own, other = machine(folder / "own"), machine(folder / "other")
    runs = folder / "own" / "runs"
    data = {part: str(project.folder / of) for part, of in (("train", "train"), ("validation", "test"))}
    made = job(project, folder, data)
    words = ["train", str(made), "--local", "--name", "here", "--json", "--runs", str(runs)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    train = subprocess.Popen(called(words), env=own, cwd=folder, **pipes)
    return seen(train, "here", str(runs), (own, other), folder / "brake")


@pytest.fixture(scope="module")
def away(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("away")
    with S3() as s3, Cluster(nodes=2, environment=KEYS) as cluster:
        for part in ("train", "test"):
            s3.put("bucket", part, project.folder / part)
        data: dict[str, Any] = {"train": "s3://bucket/train", "validation": "s3://bucket/test"}
        made = job(project, folder, {**data, "store": {"endpoint": s3.endpoint}})
        reaches = {**KEYS, "HEADWAY_STORE_ENDPOINT": s3.endpoint}
        own, other = machine(folder / "own", **reaches), machine(folder / "other", **reaches)
        words = ["train", str(made), "--name", "away", "--json", "--runs", URL, "--address", cluster.address]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        train = cluster.run(called(words), env=own, cwd=folder, **pipes)
        yield seen(train, "away", URL, (own, other), folder / "brake")


@pytest.fixture(params=PLACES)
def run(request: pytest.FixtureRequest) -> Seen:
    found: Seen = request.getfixturevalue(request.param)
    return found


def test_who_watched_was_told_until_the_end(run: Seen) -> None:
    code, said = run.watched
    assert code == 0, said
    assert str(run.report["steps"]) in said
    assert "finished" in said


def test_prometheus_was_shown_the_run_while_it_trained(run: Seen) -> None:
    lines = [line for line in run.figures.splitlines() if not line.startswith("#")]
    assert any(line.startswith("headway_step{") and f'run="{run.name}"' in line for line in lines), run.figures
    assert all("_" in line for line in lines)


def test_the_page_is_written_from_another_machine(run: Seen, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run.headway("report", run.name, "--html", page)
    text = page.read_text(encoding="utf-8")
    assert run.name in text
    assert str(run.report["weights_sha256"])[:16] in text
    sent = tmp_path / "sent.html"
    run.headway("report", run.name, "--html", sent, "--redact")
    assert "bucket/runs" not in sent.read_text(encoding="utf-8")
    assert run.environ["HOME"] not in sent.read_text(encoding="utf-8")


def test_two_runs_are_compared_on_one_page(here: Seen, tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    here.headway("report", here.name, here.name, "--html", page)
    assert page.stat().st_size > 10_000


def test_the_numbers_are_the_same_from_anywhere(run: Seen) -> None:
    told = json.loads(run.headway("report", run.name, "--json"))
    assert {name: told[name] for name in ("steps", "losses", "metrics", "weights_sha256", "state")} == {
        name: run.report[name] for name in ("steps", "losses", "metrics", "weights_sha256", "state")
    }


def test_all_steps_are_exported(run: Seen, tmp_path: Path) -> None:
    run.headway("records", "export", run.name, "--to", tmp_path / "numbers")
    (steps,) = (tmp_path / "numbers").rglob("steps*.parquet")
    table = pq.read_table(steps)
    assert table["step"].to_pylist() == list(range(run.report["steps"]))
    assert table["loss"].to_pylist() == run.report["losses"]


def test_its_records_come_to_this_machines_mlflow(run: Seen) -> None:
    """Of a run in a bucket each machine has a store of its own, unless the job names a server."""
    summary = json.loads(run.headway("sync", run.name, "--json"))
    assert (summary["waiting"], summary["error"]) == (0, "")
    assert summary["run_id"]
    assert bool(summary["sent"]) == (run.name == "away")


def test_it_is_listed_with_its_events_and_logs(run: Seen) -> None:
    assert run.name in run.headway("runs")
    assert "finished" in run.headway("events", run.name)
    run.headway("logs", run.name)
