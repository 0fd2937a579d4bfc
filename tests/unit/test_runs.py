"""Runs on disk: their names, who leads them, their steps."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from pathlib import Path

import pytest

from headway import runs
from headway.errors import BadInput
from headway.job import Job, load, parse

JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3}


def job() -> Job:
    return parse(JOB)


def test_a_run_is_made_and_found(tmp_path: Path) -> None:
    made = runs.create(tmp_path / "runs", "first", job())
    assert runs.find(tmp_path / "runs", "first") == made
    assert runs.find(tmp_path, str(made.path)) == made
    assert made.read()["state"] == "running"
    assert load(made.job_file) == job()
    unnamed = [runs.create(tmp_path / "runs", None, job()).name for _ in range(3)]
    assert len(set(unnamed)) == 3
    assert all(name.startswith("n-") for name in unnamed)


def test_a_taken_or_bad_name_is_refused(tmp_path: Path) -> None:
    runs.create(tmp_path, "first", job())
    with pytest.raises(BadInput, match=r"taken: a run of that name.*headway resume first"):
        runs.create(tmp_path, "first", job())
    for name in ("../up", "", ".hidden", "a/b"):
        with pytest.raises(BadInput, match="a run's name is"):
            runs.create(tmp_path, name, job())
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput):
        runs.create(tmp_path / "file", "x", job())


def test_an_unknown_run_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="headway train"):
        runs.find(tmp_path, "first")
    runs.create(tmp_path, "first", job())
    with pytest.raises(BadInput, match="Did you mean 'first'"):
        runs.find(tmp_path, "frist")


def test_one_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        runs.create(tmp_path, name, job())
    (tmp_path / "a/run.json").write_text("{")
    assert [run.name for run in runs.every(tmp_path)] == ["b"]
    with pytest.raises(BadInput, match=r"Did you mean 'b'|Known: b"):
        runs.find(tmp_path, "bb")


def test_only_one_leads(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "r", job())
    assert not run.is_led()
    with run.led():
        assert run.is_led()
        with pytest.raises(BadInput, match="run r is running"), run.led():
            pass
    assert not run.is_led()


def test_looking_whether_a_run_is_led_does_not_keep_anyone_from_leading_it(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "r", job())
    with run.led():
        pass
    looking = (run.path / ".lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.05, looking.close).start()
    begun = time.monotonic()
    with run.led():
        assert time.monotonic() - begun < runs.GLANCE_S


def test_steps_are_dropped_from_a_number_on_and_a_torn_line_ends_them(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "r", job())
    assert list(run.steps()) == []
    with run.open_steps() as file:
        for step in range(5):
            run.append_step(file, {"step": step})
        file.write('{"step": 5')
    assert [s["step"] for s in run.steps()] == [0, 1, 2, 3, 4]
    with run.open_steps(before=3) as file:
        run.append_step(file, {"step": 3})
    lines = (run.path / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]
