"""Runs on disk: their names, who leads them, their steps."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from headway import runs
from headway.errors import BadInput
from headway.job import Job, load, parse
from headway.runs import epochs
from headway.runs.pruning import prune
from headway.tracking.store import redact, with_password

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


def test_one_that_is_killed_while_it_makes_a_run_leaves_the_name_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a folder that was no run: to be made anew it was taken, and to be gone on with it was not there."""
    killed: list[str] = []

    def kill(path: Path, *told: Any) -> None:
        killed.append(path.name)
        raise SystemExit

    left = tmp_path / "left"
    monkeypatch.setattr("headway.runs.folder.replace", kill)
    monkeypatch.setattr("headway.runs.folder.shutil.rmtree", lambda *told, **more: None)  # nobody tidies up
    with pytest.raises(SystemExit):
        runs.create(left, "first", job())
    monkeypatch.undo()
    assert killed == ["job.yaml"]
    with pytest.raises(runs.NoRun):
        runs.find(left, "first")
    made = runs.create(left, "first", job())
    assert runs.find(left, "first") == made
    assert runs.briefs(left)[0].run == "first"
    (beside,) = left.glob(".new-*")
    os.utime(beside, (1.0, 1.0))
    prune(runs.Place.of(str(left)), keep=1)
    assert sorted(path.name for path in left.iterdir()) == ["first"]


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


def test_looking_whether_a_run_is_led_does_not_keep_anyone_from_leading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headway.runs.folder.GLANCE_S", 20.0)  # however late the look ends
    run = runs.create(tmp_path, "r", job())
    with run.led():
        pass
    looking = (run.path / ".lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    threading.Timer(0.05, looking.close).start()
    with run.led():
        assert looking.closed


def test_steps_are_dropped_from_a_number_on_and_a_torn_line_ends_them(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "r", job())
    assert list(run.steps()) == []
    assert run.last_step() == -1
    path = run.path / "steps.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(5)) + '{"step": 5')
    assert [s["step"] for s in run.steps()] == [0, 1, 2, 3, 4]
    assert run.last_step() == 4
    run.cut("steps", 2)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2]
    before = path.stat().st_ino
    run.cut("steps", 2)
    assert path.stat().st_ino == before, "nothing to cut, nothing written"


def test_evaluations_are_merged_by_step(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "r", job())
    lines = [(2, {"a": 1.0}), (2, {"b": 2.0}), (4, {"a": 3.0}), (4, {"a": 4.0})]
    text = "".join(json.dumps({"step": step, "values": values}) + "\n" for step, values in lines)
    (run.path / "metrics.jsonl").write_text(text)
    assert run.evaluations() == [{"step": 2, "values": {"a": 1.0, "b": 2.0}}, {"step": 4, "values": {"a": 4.0}}]


def test_workers_over_time_forget_what_was_done_again(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "r", job())
    for step, workers in ((0, 2), (50, 1), (80, 2), (60, 3)):
        with run.events_file.open("a") as file:
            file.write(json.dumps({"kind": "workers", "step": step, "workers": workers, "time": 0.0}) + "\n")
    assert [(w["step"], w["workers"]) for w in run.workers()] == [(0, 2), (50, 1), (60, 3)]


# -- 2.17, 2.20: leading it on a disk that is full -------------------------------------------------------------------


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_2_17_a_full_disk_leaves_the_job_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(tmp_path, "r", job())
    before = run.job_file.read_bytes()
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os if name == "fsync" else Path, name, full)
            with pytest.raises(BadInput, match="No space left on device; nothing in it was changed"):
                runs.write_job(run, parse({**JOB, "steps": 9}))
        assert run.job_file.read_bytes() == before


def test_2_17_a_full_disk_leaves_the_facts_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(tmp_path, "r", job())
    facts = run.read()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run.write({"run": "another"})
    assert run.read() == facts


def test_2_17_leading_a_run_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(tmp_path, "r", job())
    monkeypatch.setattr("headway.runs.epochs.claim", full)
    with pytest.raises(BadInput, match="cannot be written: No space left"), run.led():
        pass


def test_2_20_each_that_leads_has_a_higher_number(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "r", job())
    for expected in (1, 2, 3):
        with run.led() as epoch:
            assert epoch == expected == epochs.newest(run.path)


# -- 2.21: passwords -------------------------------------------------------------------------------------------------


def test_what_keepers_are_known_by_is_nobody_elses_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a moment."""
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)
    run = runs.RunFolder(tmp_path)
    made = run.keeper()
    assert (tmp_path / "keeper.json").stat().st_mode & 0o777 == 0o600
    assert run.keeper() == made


def test_2_21_passwords_of_the_tracking_store_are_not_kept(tmp_path: Path) -> None:
    uri = "postgresql://me:hush@host/db?sslmode=require&sslpassword=hush2"
    run = runs.create(tmp_path, "r", parse({**JOB, "tracking": {"uri": uri}}))
    kept = load(run.job_file).tracking.uri
    assert kept == "postgresql://me:***@host/db?sslmode=require&sslpassword=***"
    assert not [path for path in run.path.rglob("*") if path.is_file() and b"hush" in path.read_bytes()]


def test_2_21_a_password_comes_back_from_the_environment_or_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = redact("mysql+pymysql://me:a/b@c@host/db")
    monkeypatch.delenv("HEADWAY_TRACKING_PASSWORD", raising=False)
    with pytest.raises(BadInput, match=r"lacks its password.*Set HEADWAY_TRACKING_PASSWORD.*--set tracking\.uri"):
        with_password(kept)
    monkeypatch.setenv("HEADWAY_TRACKING_PASSWORD", "a/b@c")
    assert with_password("postgresql://me:***@host/db") == "postgresql://me:a%2Fb%40c@host/db"
    assert with_password("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"
    assert with_password("postgresql://me:new@host/db") == "postgresql://me:new@host/db"
