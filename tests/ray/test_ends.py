"""SIGTERM and SIGHUP at random moments of a run on a Ray of its own: a checkpoint, 130, and nothing that stays."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.ray.conftest import Command, Project, wait_until
from tests.tiers import SOAK

from headway.cluster.local.processes import session_of
from headway.runs import now

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SEEDS = [random.randrange(10**6) for _ in range(20)] if SOAK else [11]
START_S = 15.0
"""About what a run takes to its first step here."""


def steps(run: Path) -> int:
    path = run / "steps.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def begin(headway: Callable[..., Command], project: Project) -> tuple[Command, Path]:
    # A process that has not come to the first line of its own yet ends as any other does.
    command = headway("train", project.job, "--name", "r", "--set", "arguments.pause=0.15")
    run = Path(f"/proc/{command.process.pid}/cwd").readlink() / "runs" / "r"
    return command, run


def moment(random: random.Random, run: Path) -> None:
    """Waits until the run is there, and then for a random while: from Ray's start until some steps are done."""
    wait_until(run.exists, "the run's folder")
    if random.random() < 0.5:
        time.sleep(random.random() * START_S)
        return
    most = random.randint(1, 12)
    wait_until(lambda: steps(run) >= most, f"step {most}")


@pytest.mark.timeout(600)
@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS)
def test_asked_to_end_at_a_random_moment(seed: int, headway: Callable[..., Command], project: Project) -> None:
    chance = random.Random(seed)
    number = chance.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGHUP])
    command, run = begin(headway, project)
    moment(chance, run)
    print(f"seed {seed}: {signal.Signals(number).name} after step {steps(run)}")
    os.killpg(command.process.pid, number)  # as `timeout` and batch systems do
    code, _, err = command.end()
    assert code == 130, err
    assert "Interrupted. Go on with: headway resume r" in err
    assert "stack" not in err.lower(), err
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    done = steps(run)
    kept = sorted(path.parts[-3] for path in (run / "checkpoints").glob("step-*/*/manifest.json"))
    assert kept[-1:] == ([f"step-{done:08d}"] if done else [])
    wait_until(lambda: not session_of(command.process.pid), "the end of every process", 30)


@pytest.mark.parametrize("seed", SEEDS[:1])
def test_asked_twice_nothing_stays(seed: int, headway: Callable[..., Command], project: Project) -> None:
    chance = random.Random(seed + 1)
    command, run = begin(headway, project)
    moment(chance, run)
    print(f"seed {seed}: twice after step {steps(run)}")
    command.process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        command.process.wait(1.0)
    for _ in range(60):  # a second one counts once the first was seen
        command.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            assert command.process.wait(1.0) == 130
            break
    assert command.process.returncode == 130
    wait_until(lambda: not session_of(command.process.pid), "the end of every process", 30)


def test_a_run_that_waits_for_workers_in_vain_can_be_ended(headway: Callable[..., Command], project: Project) -> None:
    command = headway("train", project.job, "--name", "r", "--set", "workers.memory=900GiB")
    run = Path(f"/proc/{command.process.pid}/cwd").readlink() / "runs" / "r"
    wait_until(lambda: (said := now.read(run)) is not None and "no place" in said.waits, "that it says why it waits")
    command.process.send_signal(signal.SIGTERM)
    code, _, err = command.end(120)
    assert code == 130, err
    assert "Interrupted" in err


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_stopped_by_another_process_at_a_random_moment(
    seed: int, headway: Callable[..., Command], project: Project
) -> None:
    chance = random.Random(seed + 2)
    now = chance.random() < 0.5
    command, run = begin(headway, project)
    moment(chance, run)
    print(f"seed {seed}: stop{' --now' if now else ''} after step {steps(run)}")
    told = headway("stop", "r", "--json", *(["--now"] if now else [])).report()
    code, _, err = command.end()
    assert code == 4, err
    assert "Stopped. Go on with: headway resume r" in err
    assert (told["state"], told["asked"]) == ("stopped", True)
    assert told["message"].startswith("stopped by ")
    facts = json.loads((run / "run.json").read_text())
    assert (facts["state"], facts["cause"]) == ("stopped", None)
    kept = sorted(path.parts[-3] for path in (run / "checkpoints").glob("step-*/*/manifest.json"))
    assert (f"step-{told['checkpoint']:08d}" if told["checkpoint"] is not None else None) == (
        kept[-1] if kept else None
    )
    if not now:
        assert told["checkpoint"] == (steps(run) or None), "nothing is lost"
    kinds = [json.loads(line)["kind"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert kinds[-1] == "end"
    assert "stop" in kinds
    assert not (run.parent / ".requests").exists()
    wait_until(lambda: not session_of(command.process.pid), "the end of every process", 30)


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment_it_is_closed_by_who_finds_it(
    seed: int, headway: Callable[..., Command], project: Project
) -> None:
    from mlflow import MlflowClient

    chance = random.Random(seed + 3)
    slow = ["--set", "arguments.pause=0.15", "--set", "tracking.enabled=true"]
    command = headway("train", project.job, "--name", "r", *slow)
    run = Path(f"/proc/{command.process.pid}/cwd").readlink() / "runs" / "r"
    moment(chance, run)
    print(f"seed {seed}: SIGKILL after step {steps(run)}")
    command.process.kill()
    command.process.wait()
    told = headway("stop", "r", "--json").report()
    facts = json.loads((run / "run.json").read_text())
    assert told["state"] == facts["state"] == "interrupted"
    assert "the process that led the run is gone (process " in facts["message"]
    assert facts["closed"]["by"]
    done = steps(run)
    wait_until(lambda: not session_of(command.process.pid), "the end of every process")
    assert steps(run) == done, "nobody writes to it after it was closed"
    assert json.loads((run / "run.json").read_text()) == facts
    progress = run / "tracking.json"
    if progress.exists() and (tracked := json.loads(progress.read_text()).get("run_id")):
        found = MlflowClient(f"sqlite:///{run.parent / 'mlflow.db'}").get_run(tracked)
        assert found.info.status == "KILLED"
        assert found.data.tags["headway.state"] == "interrupted"
    report = headway("report", "r", "--json").report()
    assert (report["state"], report["cause"]) == ("interrupted", None)
