"""A run that was submitted, up to where Ray is: what it keeps of the code that came along, what a refusal leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from headway import runs
from headway.carried import code
from headway.data.write.writer import write_dataset
from headway.driver import attach, leading
from headway.driver import run as runner
from headway.driver.submission import Submission
from headway.errors import BadInput
from headway.job import parse

TASK = "import headway\nfrom {beside} import RATE\n\n\nclass Mine(headway.Task):\n    rate = RATE\n"


@dataclass
class Look:
    """A look at a cluster on which a run cannot go on."""

    began: Callable[[], None]

    def done(self, *_: Any) -> None:
        self.began()
        raise BadInput("no node reads the data", "", "")

    def close(self) -> None:
        pass


@dataclass
class Machine:
    """The cluster's head, on which a submission has arrived."""

    folder: Path

    @property
    def code(self) -> Path:
        return self.folder / "arrived" / "code"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def job(self, **changes: Any) -> dict[str, Any]:
        data = {"train": str(self.folder / "data")}
        job = {"name": "j", "task": "/home/anna/work/mine.py:Mine", "data": data, "steps": 3, "lanes": 1}
        return {**job, "tracking": {"enabled": False}, "check": False, **changes}

    def submission(self, attempt: str = "a1", seen: Callable[[], None] = lambda: None) -> Submission:
        came = self.code if self.code.is_dir() else None
        look = Look(seen)
        return Submission(f"headway-r-{attempt}", attempt, "anna@laptop", came, lambda *_: look, print, lambda: False)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    @contextmanager
    def no_ray(*_: Any, **__: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(attach, "ray_for", no_ray)
    monkeypatch.setattr(leading.attach, "ray_for", no_ray)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    found = Machine(tmp_path)
    found.code.mkdir(parents=True)
    (found.code / "mine.py").write_text(TASK.format(beside="beside"))
    (found.code / "beside.py").write_text("RATE = 0.1\n")
    write_dataset(tmp_path / "data", [pa.table({"x": [1.0, 2.0, 3.0]})], name="d", source="a test")
    return found


def content(folder: Path) -> dict[str, bytes]:
    kept = {"run.json", "job.yaml"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (path.name in kept or path.parent.name == "code")
    }


def test_a_submission_that_is_refused_on_the_cluster_leaves_nothing(machine: Machine) -> None:
    seen: list[bool] = []
    looked = machine.submission(seen=lambda: seen.append((machine.runs / "r" / "run.json").exists()))
    with pytest.raises(BadInput, match="no node reads the data"):
        runner.train(machine.job(), name="r", runs_folder=machine.runs, submission=looked)
    assert seen == [True]
    assert not machine.runs.exists()


def test_a_resume_that_is_refused_leaves_the_run_as_it_was(machine: Machine) -> None:
    run = runs.create(machine.runs, "r", parse(machine.job()), {"submission": {"attempt": "a0"}})
    code.adopt(machine.code, run.code)
    run.write({**run.read(), "state": "interrupted"})
    before = content(run.path)
    assert set(before) == {"run.json", "job.yaml", "code/mine.py", "code/beside.py"}
    (machine.code / "beside.py").write_text("RATE = broken\n")
    with pytest.raises(BadInput, match="no node reads the data"):
        runner.resume("r", runs_folder=machine.runs, settings=["steps=5"], submission=machine.submission("a2"))
    assert content(run.path) == before


def test_a_run_that_is_gone_on_with_by_hand_is_no_submissions_any_more(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create(machine.runs, "r", parse(machine.job()), {"submission": {"id": "headway-r-a0"}})
    code.adopt(machine.code, run.code)

    def led(run: runs.RunFolder, *arguments: Any) -> None:
        arguments[-1]()  # it is sure to begin

    monkeypatch.setattr(runner, "lead", led)
    runner.resume("r", runs_folder=machine.runs, submission=machine.submission("a1"))
    assert run.read()["submission"]["id"] == "headway-r-a1"
    runner.resume("r", runs_folder=machine.runs)
    assert run.read()["submission"] is None


def test_code_that_came_is_the_users_own_in_errors(machine: Machine) -> None:
    source = code.delivered("/home/anna/work/mine.py:Mine", machine.code)
    assert source.copied
    assert source.folder == machine.code
    assert code.sender("/home/anna/work/mine.py:Mine", source, machine.code) == Path("/home/anna/work")
    trace = f'File "{machine.code}/mine.py", line 2'
    assert code.own_paths(trace, machine.code, Path("/home/anna/work"))[0] == 'File "/home/anna/work/mine.py", line 2'


def test_code_below_the_top_of_what_came_is_found(machine: Machine) -> None:
    (machine.code / "tasks").mkdir()
    (machine.code / "mine.py").rename(machine.code / "tasks" / "mine.py")
    (machine.code / code.LAYOUT).write_text('{"folder": "tasks", "paths": ["."]}')
    source = code.delivered("/home/anna/work/tasks/mine.py:Mine", machine.code)
    assert source.folder == machine.code / "tasks"
    assert code.sender("/home/anna/work/tasks/mine.py:Mine", source, machine.code) == Path("/home/anna/work")
    assert code.home(source, machine.code) == machine.code / "tasks"


def test_what_is_installed_there_does_not_come(machine: Machine) -> None:
    source = code.delivered("yaml:load", machine.code)
    assert source.inside is None
    assert source.copied
    assert code.home(source, machine.code) == machine.code
    assert Path(yaml.__file__).is_relative_to(source.folder)
    with pytest.raises(BadInput, match="no module"):
        code.delivered("no_such_module_at_all:Task", machine.code)
