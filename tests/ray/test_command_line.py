"""The whole command line, as a user drives it: train, kill, resume, interrupt, report."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Command, Project, wait_until

from headway.runs import now

pytestmark = pytest.mark.ray


def steps(run: Path) -> int:
    path = run / "steps.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_a_run_is_reported_whole(undisturbed: dict[str, Any], headway: Callable[..., Command]) -> None:
    report = undisturbed
    assert report["state"] == "finished"
    assert report["steps"] == len(report["losses"]) == 64
    assert report["samples_seen"] == 2 * 1003
    assert report["epoch"] == 2.0
    assert report["losses"][-1] < report["losses"][0] / 2
    assert report["metrics"]["accuracy"] > 0.9
    assert [w["workers"] for w in report["workers"]] == [2]
    before, last = [c["step"] for c in report["checkpoints"]]
    assert last == 64
    assert before % 5 == 0, "the newest before: on a slow disk one that is due is skipped"
    assert len(report["samples_sha256"]) == len(report["weights_sha256"]) == 64
    folder = Path(report["path"])
    assert headway("report", folder, "--json").report() == report
    listed = headway("runs", "--runs", folder.parent, "--json").report()
    assert [r["run"] for r in listed["runs"]] == ["quiet"]


def test_a_run_is_in_mlflow(undisturbed: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    tracking = undisturbed["tracking"]
    assert tracking["waiting"] == 0
    assert tracking["error"] == ""
    run = MlflowClient(tracking["uri"]).get_run(tracking["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["lanes"] == "4"
    assert run.data.metrics["loss"] == pytest.approx(undisturbed["losses"][-1])
    assert run.data.metrics["validation/accuracy"] == pytest.approx(undisturbed["metrics"]["accuracy"])
    assert {d.dataset.name for d in run.inputs.dataset_inputs} == {"train", "test"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.long, id="then killed")])
def test_interrupted_and_resumed(
    killed: bool, undisturbed: dict[str, Any], project: Project, headway: Callable[..., Command], tmp_path: Path
) -> None:
    """Ctrl-C to `train`, and `resume` ends the run. At length SIGKILL to that, and the next one ends it; in CI that is
    held by tests/ray/test_ends.py, of a run that is killed and closed, and tests/ray/test_far_cluster.py, of its bits.
    """
    run, brake = tmp_path / "runs" / "stopped", tmp_path / "brake"
    brake.touch()
    slowed = ["--set", "arguments.pause=0.1", "--set", f"arguments.brake={brake}"]  # the machine may be slow too
    command = headway("train", project.job, "--name", "stopped", "--json", *slowed)
    wait_until(lambda: steps(run) >= 7, "step 7")
    wait_until(lambda: (said := now.read(run)) is not None and said.workers == 2, "that it says how it is")
    (row,) = headway("ls", "--json").report()["runs"]
    assert (row["run"], row["state"], row["waits"], row["workers"], row["recoveries"]) == (
        "stopped",
        "running",
        "",
        2,
        0,
    )
    assert row["step"] >= 7
    assert row["total_steps"] == 64
    os.killpg(command.process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
    code, out, err = command.end()
    assert code == 130, err
    assert '"state":"interrupted"' in out
    assert "headway resume stopped" in err
    at = steps(run)
    assert 7 <= at < 48
    assert any((run / "checkpoints" / f"step-{at:08d}").glob("*/manifest.json"))

    if killed:
        seed = random.randrange(10**6)
        when = random.Random(seed).randint(at + 3, at + 12)
        print(f"killed after step {when} (seed {seed})")
        command = headway("resume", "stopped")
        wait_until(lambda: steps(run) >= when, f"step {when}")
        command.process.kill()
        command.process.wait()
        (row,) = headway("ls", "--json").report()["runs"]
        assert (row["state"], row["message"]) == ("interrupted", "the process that led the run is gone")
        told = headway("status", "stopped", "--json").report()
        assert told["state"] == "interrupted"
        assert told["leader"].startswith(f"process {command.process.pid} on ")

    brake.unlink()
    resumed = headway("resume", "stopped", "--json").report()
    assert resumed["state"] == "finished"
    assert resumed["samples_sha256"] == undisturbed["samples_sha256"]
    assert resumed["weights_sha256"] == undisturbed["weights_sha256"]
    assert resumed["losses"] == undisturbed["losses"]
    assert len(resumed["workers"]) == 2 + killed
    code, out, err = headway("events", "stopped", "-f").end()
    assert code == 0, err
    ends = [line[21:] for line in out.splitlines() if line[21:].startswith(("started", "interrupted", "finished"))]
    stops = ["started", "interrupted"] * (1 + killed)
    assert [line.split()[0].rstrip(":") for line in ends] == [*stops, "started", "finished"]
    assert ("(found by " in ends[-3]) == killed, "who looked closed what a SIGKILL had left"
    code, _, err = headway("resume", "stopped").end()
    assert code == 2
    assert "has finished" in err
