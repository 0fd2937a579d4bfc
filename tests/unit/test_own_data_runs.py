"""Whole runs on datasets of the user's own, in the calling process: begun, stopped, gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headway
from headway.errors import BadInput, UserCodeFailed
from headway.job import load
from headway.runs import RunFolder
from headway.runs.requests import Box, Stop, of_epoch

warm = pytest.mark.usefixtures("warm_children")
TASK = """
import headway, torch

class T(headway.Task):
    def model(self):
        return torch.nn.Linear(4, 1)

    def collate(self, rows):
        return torch.stack([x for x, _ in rows]), torch.tensor([y for _, y in rows])

    def loss(self, model, batch):
        x, y = batch
        return ((model(x).squeeze(1) - y) ** 2).mean()
"""

DATA = """
import time
import torch

READ = []

def pace():  # slow enough to be stopped in time, once some steps are done
    READ.append(1)
    time.sleep(0.02 if len(READ) < 80 else 0.04)

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, row):
        PACE
        return torch.rand(4) + row / 48, float(row) / 48

def train_set():
    return Rows()

def stream():
    for row in range(48):
        PACE
        yield torch.full((4,), row / 48), float(row) / 48
"""


def tree(folder: Path, pace: str = "pass", train: str = "train_set", **fields: Any) -> dict[str, Any]:
    (folder / "task.py").write_text(TASK)
    (folder / "own_rows.py").write_text(DATA.replace("PACE", pace))
    return {
        "name": "n",
        "task": f"{folder}/task.py:T",
        "data": {"train": f"{folder}/own_rows.py:{train}", "validation": f"{folder}/own_rows.py:train_set"},
        "lanes": 2,
        "lane_batch": 4,
        "steps": 20,
        "evaluate_every_steps": 10,
        "optimizer": {"name": "adam", "lr": 0.01},
        "workers": {"min": 1, "max": 2},
        "checkpoint": {"every_steps": 5},
        "reproducible": "bitwise",
        "tracking": {"enabled": False},
        "check": False,
        **fields,
    }


def train(folder: Path, job: dict[str, Any], **more: Any) -> Any:
    return headway.train(job, runs_folder=folder / "runs", address="in-process", **more)


def cut(folder: Path, job: dict[str, Any], at: int = 7) -> None:
    """A run that is stopped after about so many steps."""

    def watch(progress: Any) -> None:
        if progress.step >= at:
            Box.of_run(RunFolder(folder / "runs" / "cut")).ask(of_epoch(1), Stop("mary@here", 0.0))

    assert train(folder, job, name="cut", watch=watch).state == "stopped"


@warm
@pytest.mark.parametrize("name", ["train_set", "stream"])
def test_one_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    whole = train(tmp_path, tree(tmp_path, train=name), name="whole")
    assert (whole.state, whole.steps) == ("finished", 20)
    assert [each["step"] for each in whole.evaluations] == [10, 20]
    assert [note.partition(":")[0] for note in whole.notes] == ["data.train=own_rows.py"] * (name == "stream")
    cut(tmp_path, tree(tmp_path, "pace()", train=name))
    (tmp_path / "own_rows.py").write_text(DATA.replace("PACE", "pass"))
    again = headway.resume("cut", runs_folder=tmp_path / "runs", address="in-process")
    assert again.state == "finished"
    assert again.weights_sha256 == whole.weights_sha256


@warm
def test_other_rows_are_no_going_on(tmp_path: Path) -> None:
    cut(tmp_path, tree(tmp_path, "pace()"))
    (tmp_path / "own_rows.py").write_text(DATA.replace("PACE", "pass").replace("return 48", "return 49"))
    with pytest.raises(BadInput, match=r"own_rows\.py:train_set has 49 rows here, and had 48 when the run began"):
        headway.resume("cut", runs_folder=tmp_path / "runs", address="in-process")
    (tmp_path / "own_rows.py").write_text(DATA.replace("PACE", "row = row + 1"))
    with pytest.raises(BadInput, match=r"own_rows\.py:train_set has other rows here than when the run began"):
        headway.resume("cut", runs_folder=tmp_path / "runs", address="in-process")


def test_datasets_as_they_are(tmp_path: Path) -> None:
    """A class that lies in no file, and arrays by name; the run keeps both."""

    class Local(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 16

        def __getitem__(self, row: int) -> Any:
            return torch.full((4,), float(row)), float(row)

    class Plain(headway.Task):
        def model(self) -> Any:
            return torch.nn.Linear(4, 1)

        def loss(self, model: Any, batch: Any) -> Any:
            x, y = batch.values() if isinstance(batch, dict) else batch
            return ((model(x).squeeze(1) - y.float()) ** 2).mean()

    job = {key: value for key, value in tree(tmp_path, steps=4, accumulate=2).items() if key not in ("data", "task")}
    arrays = {"x": np.ones((6, 4), np.float32), "y": np.arange(6)}
    report = train(tmp_path, job, task=Plain, data={"train": Local(), "validation": arrays}, name="r")
    assert (report.state, report.steps) == ("finished", 4)
    folder = tmp_path / "runs" / "r"
    kept = load(folder / "job.yaml")
    assert kept.data.own["train"].rows == 16
    assert any(path.name.startswith("by_value_") for path in (folder / "code").rglob("*.pkl"))


@warm
def test_a_row_that_raises_ends_the_run_with_its_authors_lines(tmp_path: Path) -> None:
    with pytest.raises(UserCodeFailed) as caught:
        train(tmp_path, tree(tmp_path, "assert row != 13, 'thirteen'"), name="r")
    assert "AssertionError: thirteen" in str(caught.value)
    assert "own_rows.py" in caught.value.traceback
    assert "headway/data" not in caught.value.traceback
