"""SIGTERM and SIGHUP at random moments of a run on a Ray of its own: a checkpoint, 130, and nothing that stays."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ray.conftest import Command, Project, wait_until
from tests.tiers import SOAK

from headway.testing.processes import session_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SEEDS = [random.randrange(10**6) for _ in range(20)] if SOAK else [11, 12]
START_S = 15.0
"""About what a run takes to its first step here."""


def steps(run: Path) -> int:
    path = run / "steps.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def begin(headway: Callable[..., Command], project: Project) -> tuple[Command, Path]:
    # A process that has not come to the first line of its own yet ends as any other does.
    command = headway("train", project.job, "--name", "r", "--set", "arguments.pause=0.05")
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
    time.sleep(0.5)
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(15) == 130
    wait_until(lambda: not session_of(command.process.pid), "the end of every process", 10)


def test_a_run_that_waits_for_workers_in_vain_can_be_ended(headway: Callable[..., Command], project: Project) -> None:
    command = headway("train", project.job, "--name", "r", "--set", "workers.memory=900GiB")
    run = Path(f"/proc/{command.process.pid}/cwd").readlink() / "runs" / "r"
    wait_until(lambda: (run / "ray").exists() or (run / "events.jsonl").exists(), "Ray Train's start")
    command.process.send_signal(signal.SIGTERM)
    code, _, err = command.end(120)
    assert code == 130, err
    assert "Interrupted" in err
