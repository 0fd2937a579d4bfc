"""What the command line answers to bad input: fact, reason, remedy on standard error, exit code 2, nothing started."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import yaml
from tests.conftest import Run

from headway.cli.data import _whole

TASK = """
import headway
from torch import nn


class Linear(headway.Task):
    def __init__(self, width=4):
        self.width = width

    def model(self):
        return nn.Linear(self.width, 2)

    def loss(self, model, batch):
        return model(batch["x"].float()[:, None].expand(-1, self.width)).mean()
"""
JOB = {
    "name": "small",
    "task": "small_task.py:Linear",
    "data": {"train": "train"},
    "lanes": 4,
    "lane_batch": 8,
    "epochs": 2,
    "workers": {"min": 1, "max": 3},
    "optimizer": {"name": "adamw", "lr": 0.1},
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    import pyarrow as pa

    from headway.data.write.writer import write_dataset

    write_dataset(tmp_path / "train", [pa.table({"x": [0.5] * 100})], name="train", source="a test")
    (tmp_path / "small_task.py").write_text(TASK)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    return tmp_path / "job.yaml"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lanes=2", "lanes=2 cannot be carried by workers.max=3"),
        ("workers.min=4", "min=4 is more than max=3"),
        ("lane_batch=-1", "lane_batch=-1"),
        ("lanes=many", "lanes='many'"),
        ("optimizer.name=adamm", "Did you mean 'adam"),
        ("lane=3", "Did you mean 'lanes'"),
        ("task=gone.py:Linear", "gone.py does not exist"),
        ("task=small_task.py:Linearr", "Did you mean 'Linear'"),
        ("data.train=nowhere", "headway data get"),
        ("data.columns=[y]", "no such column"),
        ("tracking.uri=carrier-pigeon://x", "tracking"),
        ("strategy=telepathy", "all_reduce"),
        ("epochs", "--set workers.max=3"),
    ],
)
def test_a_bad_job_starts_nothing(run: Run, job: Path, setting: str, said: str) -> None:
    code, out, err = run("train", str(job), "--set", setting)
    assert code == 2
    assert out == ""
    assert said in err
    assert "headway/" not in err  # none of our frames
    assert not (job.parent / "runs").exists()


def test_a_task_that_cannot_be_imported_shows_its_own_traceback(run: Run, job: Path) -> None:
    (job.parent / "broken.py").write_text("import headway\n\nnumber = 1 / 0\n")
    code, _, err = run("job", "check", str(job), "--set", "task=broken.py:Linear")
    assert code == 2
    assert err.count("Traceback") == 1
    assert "number = 1 / 0" in err
    assert "ZeroDivisionError" in err
    assert "importlib" not in err


@pytest.mark.parametrize("text", ["name: [", "- a list", "", "\x00"])
def test_what_is_no_job(run: Run, job: Path, text: str) -> None:
    job.write_text(text)
    code, out, err = run("train", str(job))
    assert (code, out) == (2, "")
    assert err.startswith("headway: ")


def test_a_task_that_cannot_be_built_is_refused_by_the_check(run: Run, job: Path) -> None:
    code, _, err = run("job", "check", str(job), "--set", "arguments.height=3")
    assert code == 2
    assert "cannot be built with arguments {'height': 3}" in err
    assert "headway/" not in err


def test_a_full_disk_is_seen_by_the_check(run: Run, job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 100, 10))
    code, _, err = run("job", "check", str(job))
    assert code == 2
    assert "0 MB free" in err
    assert not (job.parent / "runs").exists()


def test_runs_that_are_not_there(run: Run, tmp_path: Path) -> None:
    for verb in ("resume", "report"):
        code, _, err = run(verb, "yesterday")
        assert code == 2
        assert "no run 'yesterday'" in err
    code, out, _ = run("runs")
    assert code == 0
    assert "No runs" in out


def test_a_name_that_leaves_the_folder(run: Run, job: Path) -> None:
    code, _, err = run("train", str(job), "--name", "../elsewhere")
    assert code == 2
    assert "letters, digits" in err


def test_runs_that_cannot_be_kept(run: Run, job: Path) -> None:
    (job.parent / "file").write_text("")
    code, _, err = run("train", str(job), "--runs", "file")
    assert code == 2
    assert "runs cannot be kept in file" in err


def test_the_plan(run: Run, job: Path) -> None:
    code, out, _ = run("job", "check", str(job), "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["steps_per_epoch"] == 4
    assert plan["total_steps"] == 8
    assert plan["last_batch"] == 4
    assert plan["lanes_per_worker"] == {"1": [4], "2": [2, 2], "3": [2, 1, 1]}
    assert plan["parameters"] == 10
    assert plan["lanes_together"] == ""
    assert plan["memory"]["workers"] == 1
    assert plan["memory"]["together_bytes"] == 4 * plan["memory"]["lane_bytes"] > 0
    _, out, _ = run("job", "check", str(job))
    assert "lanes  those of a worker go through the model together" in out
    assert "memory  1 worker: 0.2 kB of model, optimiser and gradients" in out
    code, out, _ = run("job", "check", str(job), "--set", "check=false")
    assert "lanes 2, 1, 1 (no faster than 2)" in out
    assert "lanes 2, 2\n" in out
    assert "parameters  unknown" in out


def test_the_plan_of_a_mixture(run: Run, job: Path) -> None:
    setting = "data.train=[{path: train, weight: 3}, {path: train}]"
    untried = ("--set", "check=false")
    code, out, _ = run("job", "check", str(job), "--set", setting, *untried)
    assert code == 0
    assert "train[0]  100 rows, version 1, 75.0% of the rows" in out
    _, out, _ = run("job", "check", str(job), "--set", setting, *untried, "--json")
    assert json.loads(out)["shares"] == {"train[0]": 0.75, "train[1]": 0.25}


def test_the_schema_knows_every_key(run: Run) -> None:
    _, out, _ = run("job", "schema")
    schema = json.loads(out)
    assert {"name", "task", "data", "lanes", "workers", "checkpoint", "tracking"} <= set(schema["properties"])
    assert schema["properties"]["lanes"]["description"]


def test_an_unknown_option_is_bad_input(run: Run, job: Path) -> None:
    code, _, _ = run("train", str(job), "--workers", "3")
    assert code == 2


def test_a_dataset_is_told_alike_with_and_without_a_slash() -> None:
    assert _whole("set/", {"set": {"rows": 1}}) == _whole("set", {"set": {"rows": 1}}) == {"rows": 1}
    assert _whole("sets/", {"sets/a": {"rows": 1}}) == {"folder": "sets", "a": {"rows": 1}}
