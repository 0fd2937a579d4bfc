"""Runs of a folder as a whole: listed at a glance, removed, copied."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from headway import report, runs
from headway.errors import BadInput
from headway.job import parse
from headway.runs import Place, RunFolder, briefs, copying
from headway.runs.pruning import age_s, prune

JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3}


def made(folder: Path, name: str, steps: int = 3, **facts: Any) -> RunFolder:
    run = runs.create(folder, name, parse(JOB))
    lines = [{"step": s, "epoch": 0, "loss": 1 / (s + 1), "lr": 0.1, "rows": 8, "samples": "x"} for s in range(steps)]
    (run.path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = [{"step": 1, "values": {"a": 1.0, "b": 2.0}}, {"step": 3, "values": {"a": 3.0}}]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    run.write({**run.read(), "state": "finished", "total_steps": 3, "ended": time.time(), **facts})
    part = run.checkpoints / "step-00000003" / "part-0"
    part.parent.mkdir(parents=True)
    part.write_bytes(os.urandom(1000))
    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def place(folder: Path) -> Place:
    return Place.of(folder, {})


def test_a_listing_says_what_the_reports_say(tmp_path: Path) -> None:
    made(tmp_path, "b", created=2.0)
    made(tmp_path, "a", created=1.0, state="running")
    made(tmp_path, "c", steps=0, created=3.0, state="failed", message="why")
    (tmp_path / "none").mkdir()
    (tmp_path / "file").touch()
    found = briefs(place(tmp_path))
    assert [brief.run for brief in found] == ["a", "b", "c"]
    for brief in found:
        whole = report.load(runs.find(tmp_path, brief.run))
        told = (whole.state, whole.message, whole.steps, whole.total_steps, whole.metrics, whole.path)
        assert told == (brief.state, brief.message, brief.steps, brief.total_steps, brief.metrics, brief.path)
        assert brief.loss == (whole.losses[-1] if whole.losses else None)
    assert found[0].message == "the process that led the run is gone"


def bytes_read() -> int:
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_listing_of_long_runs_reads_their_ends(tmp_path: Path) -> None:
    run = made(tmp_path, "long", steps=50_000)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"step": s, "values": {"a": float(s)}}) + "\n" for s in range(20_000))
        file.write('{"step": 1, "val')  # torn
    before = bytes_read()
    (brief,) = briefs(place(tmp_path))
    assert bytes_read() - before < (run.path / "steps.jsonl").stat().st_size / 4
    assert (brief.steps, brief.metrics["a"]) == (50_000, 19_999.0)


def test_lengths_of_time() -> None:
    assert [age_s(text) for text in ("90m", "12 h", "30d", "2w", "0.5d")] == [5400, 43200, 2592000, 1209600, 43200]
    for text in ("", "30", "d", "-1d", "1y"):
        with pytest.raises(BadInput, match="no length of time"):
            age_s(text)


def test_the_chosen_runs_are_removed_and_no_others(tmp_path: Path) -> None:
    now = time.time()
    for day, name in enumerate(("new", "mid", "old", "oldest")):
        made(tmp_path, name, created=now - 86400 * 10 * day, ended=now - 86400 * 10 * day)
    with pytest.raises(BadInput, match="nothing that was not chosen"):
        prune(place(tmp_path))
    dry = prune(place(tmp_path), older_s=86400 * 15, dry_run=True)
    assert (dry.removed, dry.bytes > 2000) == (["oldest", "old"], True)
    assert len(briefs(place(tmp_path))) == 4
    assert prune(place(tmp_path), older_s=86400 * 15, keep=3).removed == ["oldest"]
    assert prune(place(tmp_path), ["mid"], checkpoints_only=True).removed == ["mid"]
    mid = runs.find(tmp_path, "mid")
    assert (mid.checkpoints.exists(), mid.last_step()) == (False, 2)
    assert prune(place(tmp_path), keep=1).removed == ["old", "mid"]
    assert names(tmp_path) == ["new"]
    with pytest.raises(BadInput, match="no run 'old'"):
        prune(place(tmp_path), ["old"])


def test_a_led_run_is_neither_removed_nor_copied(tmp_path: Path) -> None:
    led, other = made(tmp_path, "led"), made(tmp_path, "other")
    with led.led():
        with pytest.raises(BadInput, match=rf"another process leads it \(process {os.getpid()} on .*since"):
            prune(place(tmp_path), ["other", "led"])
        assert other.path.exists(), "all or nothing of what was named"
        done = prune(place(tmp_path), keep=0)
        assert (done.removed, list(done.left)) == (["other"], ["led"])
        with pytest.raises(BadInput, match="another process leads it"):
            copying.copy(led, place(tmp_path / "there"))
    assert led.path.exists()
    assert not (tmp_path / "there").exists()


def test_what_a_killed_prune_left_is_no_run_and_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a")
    made(tmp_path, "b")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        prune(place(tmp_path), ["a"])
    assert len(names(tmp_path)) == 2
    assert [run.name for run in runs.every(tmp_path)] == [brief.run for brief in briefs(place(tmp_path))] == ["b"]
    made(tmp_path, "a")
    prune(place(tmp_path), ["b"])
    assert names(tmp_path) == ["a"]


def test_a_copy_is_the_run_and_one_of_its_own(tmp_path: Path) -> None:
    run = made(tmp_path / "here", "r")
    (run.path / "ray").mkdir()
    (run.path / "ray" / "x").touch()
    (run.path / "tracking.json").write_text(
        json.dumps({"format": "headway-tracking/1", "stores": {"runs folder": {"key": "k"}, "http://m": {"key": "l"}}})
    )
    done = copying.copy(run, place(tmp_path / "there"), "s")
    copied = runs.find(tmp_path / "there", "s")
    assert done.path == str(copied.path)
    assert copied.read() == {**run.read(), "run": "s"}
    for name in ("steps.jsonl", "metrics.jsonl", "job.yaml", "checkpoints/step-00000003/part-0"):
        assert (copied.path / name).read_bytes() == (run.path / name).read_bytes()
    assert not (copied.path / "ray").exists()
    assert list(json.loads((copied.path / "tracking.json").read_text())["stores"]) == ["http://m"]
    with pytest.raises(BadInput, match="is taken"):
        copying.copy(run, place(tmp_path / "there"), "s")
    with pytest.raises(BadInput, match="a run's name"):
        copying.copy(run, place(tmp_path / "there"), "../s")
    with copied.led():
        pass


def test_a_copy_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "here", "r")

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "_copied", full)
    with pytest.raises(BadInput, match="No space left on device; nothing was left there"):
        copying.copy(run, place(tmp_path / "there"))
    assert names(tmp_path / "there") == []
