"""A small job outside the repository, a command line in a process of its own, and one Ray for what needs no own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from tests.dear import once

from headway.cluster.local.processes import session_of

TASK = '''
import os
import signal
import time

import ray.train
import torch
from torch import nn

import headway
from scale import SCALE


class Digits(headway.Task):
    """Conv, batch norm, dropout; `trouble` at a step on a rank, for the tests.

    Each lane takes `pause` seconds longer; where `brake` names a file, only for as long as that is there.
    """

    def __init__(self, trouble="", rank=0, at=3, pause=0.0, brake=""):
        self.trouble, self.rank, self.at, self.pause, self.calls = trouble, rank, at, pause, 0
        self.brake = brake

    def model(self):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 36, 4)
        )

    def optimizer(self, model):
        return torch.optim.AdamW(model.parameters(), lr=0.01)

    def loss(self, model, batch):
        self.calls += 1
        if self.pause and (not self.brake or os.path.exists(self.brake)):
            time.sleep(self.pause)
        mine = ray.train.get_context().get_world_rank() == self.rank
        if mine and self.calls == self.at * 4:
            if self.trouble == "raise":
                raise KeyError("no such thing")
            if self.trouble == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        loss = nn.functional.cross_entropy(model(batch["image"][:, None].float() * SCALE), batch["label"])
        return loss * float("nan") if self.trouble == "nan" and mine and self.calls == self.at * 4 else loss

    def metrics(self, model, batch):
        scores = model(batch["image"][:, None].float() * SCALE)
        return {"accuracy": (scores.argmax(1) == batch["label"]).float().mean()}
'''


@dataclass(frozen=True)
class Project:
    """A user's folder: task, helper module, data, job.yaml."""

    folder: Path

    @property
    def job(self) -> Path:
        return self.folder / "job.yaml"

    def tree(self, **changes: Any) -> dict[str, Any]:
        from headway.job import anchor

        return {**anchor(yaml.safe_load(self.job.read_text()), self.folder), **changes}


def make_dataset(folder: Path, rows: int, seed: int) -> None:
    """Images of 8 x 8 whose bright quarter is the label; written as `headway data` writes them."""
    from headway.data.tensors import column
    from headway.data.write.writer import write_dataset

    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, rows)
    images = random.integers(0, 120, (rows, 8, 8), dtype=np.uint8)
    for i, label in enumerate(labels):
        images[i, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 60
    table = pa.table({"image": column(images), "label": pa.array(labels)})
    write_dataset(folder, [table], name=folder.name, source="made by a test", label="label")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    make_dataset(folder / "train", 1003, 1)
    make_dataset(folder / "test", 203, 2)
    (folder / "digits.py").write_text(TASK)
    (folder / "scale.py").write_text("SCALE = 1 / 255\n")
    job = {
        "name": "digits",
        "task": "digits.py:Digits",
        "data": {"train": "train", "validation": "test"},
        "lanes": 4,
        "lane_batch": 8,
        "epochs": 2,
        "seed": 3,
        # One that has no processor for some seconds is not lost: those that are to be lost are killed.
        "workers": {"min": 1, "max": 2, "silence_s": 10.0},
        "checkpoint": {"every_steps": 5},
        "reproducible": "bitwise",
        "tracking": {"enabled": False},
        "check": False,  # tests/ray/test_tryout.py is about that
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return Project(folder)


@pytest.fixture(scope="session")
def undisturbed(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of the project's quiet run, made by the command line, MLflow and all, once for all processes."""

    def train() -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("quiet")
        command = [sys.executable, "-m", "headway.cli.app", "train", str(project.job), "--name", "quiet", "--json"]
        command += ["--set", "tracking.enabled=true", "--set", "arguments.pause=0.01", "--set", "workers.min=2"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = Command(subprocess.Popen(command, cwd=folder, start_new_session=True, **pipes))
        found = process.report()
        wait_until(lambda: not session_of(process.process.pid), "nothing of it is left behind", 30)
        return found

    return once(tmp_path_factory, "digits", train)


@dataclass
class Command:
    """A `headway` command under way."""

    process: subprocess.Popen[str]

    def end(self, timeout_s: float = 240) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, out, err

    def report(self, code: int = 0) -> dict[str, Any]:
        """The one JSON object of standard output."""
        returned, out, err = self.end()
        assert returned == code, err
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def headway(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start `headway ARGUMENTS` in its own session and an empty folder; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    env = {k: v for k, v in os.environ.items() if k == "RAY_TMPDIR" or not k.startswith(("RAY_", "MLFLOW_"))}

    def start(*arguments: object) -> Command:
        command = [sys.executable, "-m", "headway.cli.app", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=env,
            start_new_session=True,
        )
        started.append(process)
        return Command(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 180) -> None:
    """Wait for a condition, looking often; fails by name when the time is up.

    A look at a run's files, or at a store, takes time that the run could use: a tenth of it all at most.
    """
    deadline = time.monotonic() + timeout_s
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(min(max(0.02, 9 * (time.monotonic() - begun)), 0.25))
        begun = time.monotonic()


@pytest.fixture
def free_port() -> int:
    """A loopback port on which nothing listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
