"""What a run says of itself while it is led, in its folder and in its store's head, and what a listing makes of it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway import runs
from headway.elastic.lead import standing as standings
from headway.elastic.lead.recorder import Recorder
from headway.elastic.lead.standing import Standing, per_second, step_s
from headway.job import parse
from headway.runs import Place, RunFolder, briefs, epochs, far, glance, now
from headway.runs.listing import LIVES_S, of_folder
from headway.runs.now import Now
from headway.testing.s3 import S3, Faults

JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(now, "EVERY_S", 0.02)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    made: list[Recorder] = []

    def make(folder: Path = tmp_path / "r", **options: Any) -> Recorder:
        folder.mkdir(exist_ok=True)
        if not (folder / "run.json").exists():
            RunFolder(folder).write({"run": "r", "created": 1.0, "total_steps": 100})
        made.append(Recorder(str(folder), None, {}, 10, **options))
        return made[-1]

    yield make
    for each in made:
        each._standing.close()
        each._scribe.close(5.0)
        each._hold.close()


def steps(recorder: Recorder, numbers: range, at: float) -> None:
    made = [
        {"kind": "step", "step": n, "epoch": 0, "loss": 0.5, "lr": 0.1, "rows": 8, "time": at + n / 4, "samples": "x"}
        for n in numbers
    ]
    recorder.push("w0", [{"kind": "began", "step": 0, "total_steps": 100, "steps_per_epoch": 10, "time": at}, *made])


def recovery(cause: str) -> dict[str, Any]:
    return {"kind": "recovery", "cause": cause, "workers": ["w1"], "step": 5, "pause_s": 0.5, "time": time.time()}


def test_a_run_says_how_it_is(recorded: Callable[..., Recorder], tmp_path: Path) -> None:
    run, place = RunFolder(tmp_path / "r"), tmp_path
    recorder = recorded(run.path)
    until(lambda: (said := now.read(run.path)) is not None and said.waits == "for Ray Train to begin")
    recorder.event({"kind": "waits", "reason": "for workers: 0 of 1 are ready", "time": 1.0})
    until(lambda: (said := now.read(run.path)) is not None and said.waits.startswith("for workers"))
    (brief,) = briefs(place)
    assert (brief.state, brief.workers, brief.left_s) == ("interrupted", 0, None), "nobody holds the run's lock here"
    recorder.event({"kind": "waits", "reason": "", "time": 2.0})
    recorder.event({"kind": "ledger", "seconds": {}, "goodput": 0.9125, "workers": 3})
    for cause in ("joined", "node_died", "rebalanced", "hung"):
        recorder.event(recovery(cause))
    steps(recorder, range(20), time.time())
    with run.led():
        until(
            lambda: (said := now.read(run.path)) is not None and said.steps_per_s is not None and len(said.lately) == 4
        )
        until(lambda: run.read().get("recoveries") == 2 and run.last_step() == 19)
        (brief,) = briefs(place)
    assert (brief.state, brief.waits, brief.workers, brief.goodput) == ("running", "", 3, 0.9125)
    assert (brief.recoveries, brief.steps, brief.total_steps, brief.steps_per_s) == (2, 20, 100, 4.0)
    assert brief.left_s == 20.0
    assert brief.lately[0][1].startswith("w1 joined")
    assert brief.last == pytest.approx(time.time(), abs=30)
    recorder.finish("finished", "", 1.0)
    (brief,) = briefs(place)
    assert (brief.state, brief.workers, brief.waits, brief.left_s) == ("finished", None, "", None)
    assert (brief.recoveries, len(brief.lately)) == (2, 4), "what happened is known afterwards"
    assert not (run.path / now.FILE).exists()


def test_what_happened_is_counted_over_all_starts(recorded: Callable[..., Recorder], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    run.path.mkdir()
    run.write({"run": "r", "created": 1.0})
    lines = [recovery("joined"), recovery("node_died"), recovery("hung")]  # of a release that counted nothing
    run.events_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recorder = recorded(run.path)
    recorder.event(recovery("node_died"))
    recorder.finish("interrupted", "", 1.0)
    recorder._hold.close()
    assert of_folder(run).recoveries == 3
    again = recorded(run.path)
    again.event(recovery("process_died"))
    again.finish("finished", "", 1.0)
    assert of_folder(run).recoveries == 4
    kinds = [event["kind"] for event in run.events()]
    assert kinds == [*["recovery"] * 3, "start", "recovery", "end", "start", "recovery", "end"]


def test_the_start_says_by_whom_it_was_submitted(recorded: Callable[..., Recorder], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    run.path.mkdir()
    submission = {"id": "headway-r-1", "attempt": "1", "by": "anna@laptop"}
    run.write({"run": "r", "created": 1.0, "state": "finished", "ended": 2.0, "submission": submission})
    recorder = recorded(run.path)
    recorder._scribe.flush(5.0)
    (start,) = run.events()
    assert (start["kind"], start["by"], start["submission"]) == ("start", "anna@laptop", "headway-r-1")
    assert start["host"] == socket.gethostname()
    with run.led():
        brief = of_folder(run)
    assert (brief.state, brief.by, brief.submission) == ("running", "anna@laptop", "headway-r-1")
    assert brief.since == pytest.approx(time.time(), abs=30), "since it was started again, and not since it ended"


def test_checkpoints_are_told_of(recorded: Callable[..., Recorder], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "r")
    recorder = recorded(run.path)
    at = time.time()
    for record in (
        {"kind": "checkpoint", "step": 10, "path": "p", "bytes": 5, "metrics": {}, "time": at},
        {"kind": "checkpoint_failed", "error": "full", "time": at + 1},
        {"kind": "checkpoint_failed", "error": "full", "time": at + 2},
    ):
        recorder.push("w0", [record])
    recorder._scribe.flush(5.0)
    until(lambda: (said := now.read(run.path)) is not None and said.trouble == "full")
    assert [(e["kind"], e.get("step")) for e in run.events()][1:] == [("checkpoint", 10), ("checkpoint_failed", None)]
    brief = of_folder(run)
    assert (brief.checkpoint, brief.checkpoint_at, brief.trouble) == (10, at, "full")


def test_it_is_written_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not more often than every so many seconds while there is news; a sign of life where there is none."""
    monkeypatch.setattr(now, "EVERY_S", 0.05)
    monkeypatch.setattr(now, "LEAST_S", 0.2)
    written: list[Now] = []

    def write(folder: Path, said: Now) -> None:
        if folder == tmp_path:  # a recorder that an earlier test left says its own
            written.append(said)

    monkeypatch.setattr(now, "write", write)
    recent: deque[tuple[float, int]] = deque()
    standing = Standing(tmp_path, 0, lambda: "", recent)
    begun = time.monotonic()
    standing.start()
    for number in range(200):
        standing.happened(f"{number}")
        time.sleep(0.001)
    standing.waits("for nothing")
    until(lambda: bool(written) and written[-1].waits == "for nothing")
    assert len(written) <= (time.monotonic() - begun) / 0.05 + 1
    assert len(written[-1].lately) == standings.LATELY
    quiet = len(written)
    until(lambda: len(written) >= quiet + 2)
    assert written[-1].at - written[-2].at >= 0.19  # by the clock on the wall, which may be set
    standing.close()


def test_who_does_not_lead_any_more_says_nothing(tmp_path: Path) -> None:
    epochs.claim(tmp_path)
    standing = Standing(tmp_path, 1, lambda: "", deque())
    standing.start()
    until(lambda: now.read(tmp_path) is not None)
    epochs.claim(tmp_path)
    theirs = Now(5.0, workers=7)
    now.write(tmp_path, theirs)
    standing._say(Now(6.0))
    standing.close()
    assert now.read(tmp_path) == theirs


def test_a_place_that_cannot_be_written_to_harms_nobody(tmp_path: Path) -> None:
    standing = Standing(tmp_path / "nowhere", 0, lambda: "", deque())
    standing.start()
    now.say(tmp_path / "nowhere", "for machines")
    standing.close()
    assert not (tmp_path / "nowhere").exists()


def test_who_leads_says_why_it_waits_before_there_is_a_recorder(tmp_path: Path) -> None:
    now.say(tmp_path, "for machines: 0 of 1 workers have room")
    first = now.read(tmp_path)
    assert first is not None
    now.say(tmp_path, "for machines: 0 of 1 workers have room")
    again = now.read(tmp_path)
    assert again is not None
    assert again.at > first.at
    assert again.since == first.since
    assert [path.name for path in tmp_path.iterdir()] == [now.FILE]


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"workers": 3}', '{"at": 1, "lately": 5}', '{"at": 1, "lately": [1]}']
)
def test_what_is_damaged_is_not_said(damage: str, tmp_path: Path) -> None:
    (tmp_path / now.FILE).write_text(damage)
    assert now.read(tmp_path) is None


def test_fields_of_a_newer_release_are_left_out(tmp_path: Path) -> None:
    (tmp_path / now.FILE).write_text('{"at": 1.0, "workers": 2, "moon": "full"}')
    assert now.read(tmp_path) == Now(1.0, 2)


def test_rates() -> None:
    assert per_second(deque(), 5.0) == per_second(deque([(1.0, 8)]), 5.0) == (0.0, 0.0)
    assert per_second(deque([(0.0, 8), (1.0, 8), (1.5, 4)]), 5.0) == (8.0, 4 / 3)
    assert per_second(deque([(0.0, 8), (100.0, 8), (101.0, 8)]), 5.0) == (8.0, 1.0)
    assert per_second(deque([(1.0, 8), (1.0, 8)]), 5.0) == (0.0, 0.0)
    assert step_s(deque([(0.0, 8), (1.0, 8), (1.5, 4)]), 5.0) == 0.75
    assert step_s(deque([(0.0, 8), (90.0, 8), (150.0, 8)]), 5.0) == 60.0, "none but the newest is within 5 s"
    assert step_s(deque(), 5.0) == step_s(deque([(1.0, 8)]), 5.0) == 0.0


# -- in a folder that other machines write to -------------------------------------------------------------------------


def test_a_lock_that_does_not_reach_tells_nothing(tmp_path: Path) -> None:
    """The leader's machine is another: its run lives while it is heard, and is not dead for being unheard."""
    run = RunFolder(tmp_path / "r")
    run.path.mkdir()
    run.write({"run": "r", "created": 1.0, "state": "running"})
    epoch = epochs.claim(run.path)
    assert (of_folder(run).state, of_folder(run).unheard) == ("interrupted", False), "this machine's, and it is gone"
    leaders = run.path / epochs.FOLDER / f"epoch-{epoch:06d}"
    leaders.write_text(json.dumps({"host": "another", "pid": 1, "time": 1.0}))
    now.write(run.path, Now(time.time(), workers=2))
    assert (of_folder(run).state, of_folder(run).workers) == ("running", 2)
    old = time.time() - 2 * LIVES_S
    now.write(run.path, Now(old, workers=2))
    os.utime(run.path / "run.json", (old, old))
    brief = of_folder(run)
    assert (brief.state, brief.unheard, brief.last) == ("interrupted", True, pytest.approx(old))


# -- in a store -------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "1")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    s3.make_bucket("runs")
    return Place.of(f"s3://runs/now-{tmp_path.name}")


def test_in_a_store_the_head_says_it_and_no_record_is_made_of_it(place: Place, s3: S3) -> None:
    run = runs.create(place, "r", parse(JOB))
    with run.led():
        mirror = run._led.mirror  # type: ignore[attr-defined]
        assert mirror.flush(20.0)
        before = run.remote.head().position  # type: ignore[attr-defined]
        for number in range(5):
            now.write(run.path, Now(time.time(), workers=number, goodput=0.5, waits="", lately=((1.0, "so"),)))
            assert mirror.flush(20.0)
        assert run.remote.head().position == before  # type: ignore[attr-defined]
        s3.faults = Faults()
        brief = glance(place, "r")
        assert s3.counts["GET"] == 1
        assert brief is not None
        assert (brief.state, brief.workers, brief.goodput, brief.lately) == ("running", 4, 0.5, ((1.0, "so"),))
        elsewhere = Place(place.said, place.folder.parent / "another machine's", place.url)
        assert not (runs.find(elsewhere, "r").path / now.FILE).exists(), "it is of no working copy"
    assert glance(place, "nobody") is None
    assert glance(place, "../r") is None


def test_a_run_of_a_store_that_is_not_heard_of_is_not_called_dead(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create(place, "r", parse(JOB))
    assert run._led.lease is not None  # type: ignore[attr-defined]
    later = time.time() + 2 * LIVES_S
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(far.time, "time", lambda: later)
        brief = glance(place, "r")
    assert brief is not None
    assert (brief.state, brief.unclosed, brief.unheard) == ("interrupted", True, True)
    with run.led():
        pass
    (released,) = briefs(place)
    assert (released.state, released.unclosed, released.unheard) == ("interrupted", True, False), "it said that it went"
