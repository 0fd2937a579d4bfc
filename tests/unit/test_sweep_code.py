"""The task's code of a sweep that is taken up again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headway import plan
from headway.carried import code
from headway.carried.cargo import Cargo
from headway.elastic.crew import legs
from headway.errors import BadInput
from headway.job import Job, parse
from headway.runs import RunFolder
from headway.sweeps import kept_code
from headway.sweeps.file import taken
from headway.sweeps.ways import Ways

TASK = "import headway\nfrom other import WIDTH\n\n\nclass Task(headway.Task):\n    ...\n"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "task.py").write_text(TASK)
    (tmp_path / "mine" / "other.py").write_text("WIDTH = 8\n")
    (tmp_path / "mine" / "words.yaml").write_text("a: 1\n")
    task = f"{tmp_path / 'mine' / 'task.py'}:Task"
    return parse({"name": "digits", "task": task, "data": {"train": "/d", "validation": "/v"}, "steps": 8})


@pytest.fixture
def kept(tmp_path: Path, job: Job) -> Path:
    code.carry(code.locate(job.task), tmp_path / "digits" / "code")
    return tmp_path / "digits" / "code"


@pytest.mark.parametrize("strict", [True, False])
def test_code_that_is_where_it_was_is_run_from_there(job: Job, kept: Path, strict: bool, tmp_path: Path) -> None:
    (tmp_path / "mine" / "notes.yaml").write_text("written since\n")
    said: list[str] = []
    assert kept_code.source(job, kept, strict, said.append) is None
    assert said == []


def test_code_that_is_not_there_any_more_is_run_from_the_sweeps_copy(job: Job, kept: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "mine")
    said: list[str] = []
    found = kept_code.source(job, kept, True, said.append)
    assert found is not None
    assert (found.folder, found.copied) == (kept, True)
    assert str(kept) in said[0]
    with pytest.raises(BadInput, match="does not exist"):
        kept_code.source(job, tmp_path / "nowhere", True, said.append)


def test_code_that_changed_is_said_and_refused_in_strict_order(job: Job, kept: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "mine" / "words.yaml").write_text("a: 2\n")
    assert kept_code.source(job, kept, True, said.append) is None
    assert "words.yaml changed" in said.pop()
    (tmp_path / "mine" / "other.py").write_text("WIDTH = 9\n")
    with pytest.raises(BadInput, match=r"the task.s code has changed since the sweep began: other\.py"):
        kept_code.source(job, kept, True, said.append)
    assert kept_code.source(job, kept, False, said.append) is None
    assert "other.py, words.yaml changed" in said[0]


def test_a_run_of_a_sweeps_copy_has_one_of_its_own(job: Job, kept: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "mine")
    run = RunFolder(tmp_path / "digits.0001")
    run.path.mkdir()
    found = legs._carried(run, job, _checked(code.kept(job.task, kept), Cargo(kept)))
    assert found.source.folder == run.code
    assert (run.code / "other.py").read_text() == "WIDTH = 8\n"
    again = legs._carried(run, job, _checked(code.kept(job.task, kept), Cargo(kept)))
    assert again.source.folder == run.code


def _checked(source: code.Source, cargo: Cargo) -> plan.Plan:
    return plan.Plan(8, 8, 1, 8, 8, 8, {1: [1]}, None, None, "", source, {}, None, cargo)  # type: ignore[arg-type]


ROWS = """
import headway
from torch.utils.data import TensorDataset
import torch


def rows():
    return TensorDataset(torch.zeros(80, 2))


class Task(headway.Task): ...
"""


def test_data_of_ones_own_are_counted_by_the_sweeps_copy_too(tmp_path: Path) -> None:
    """Where the code is that they were made by when it began may be gone: what was by value goes after a week."""
    file = tmp_path / "mine" / "task.py"
    file.parent.mkdir()
    file.write_text(ROWS)
    data = {"train": f"{file}:rows", "validation": f"{file}:rows"}
    job = {"task": f"{file}:Task", "data": data, "epochs": 3, "lanes": 2, "lane_batch": 4}
    wanted = taken({"job": {"name": "n", **job}, "space": {"clip_norm": {"uniform": [0.1, 1.0]}}, "trials": 2})
    code.carry(code.locate(wanted.example.task), tmp_path / "code")
    shutil.rmtree(file.parent)
    found = kept_code.source(wanted.example, tmp_path / "code", True, lambda _: None)
    assert (Ways(wanted, found).lengths.steps, found is None) == (30, False)
