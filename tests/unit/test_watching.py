"""A run is watched from another process: by what its place tells, in a terminal of any size, until it is at its end."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.waiting import until
from typer.testing import CliRunner

from headway import runs
from headway.cli.app import app
from headway.cli.live_run import drawn
from headway.cli.sparkline import cells, sparkline
from headway.elastic.lead.recorder import Recorder
from headway.errors import BadInput
from headway.job import parse
from headway.jobs.look.tail import END_BYTES, PLACES, Tail
from headway.jobs.look.watching import POINTS, Curve, Watched, Watching
from headway.runs import Place, RunFolder
from headway.sweeps.events import Over, Reported, Start, Suggested
from headway.sweeps.seen.history import History
from headway.sweeps.seen.view import Subject
from headway.testing.s3 import S3, Faults

JOB: dict[str, Any] = {"name": "digits", "task": "task.py:Digits", "data": {"train": "/data"}, "steps": 40}


class Led:
    """A run that is led by this process."""

    def __init__(self, place: Place, name: str = "one") -> None:
        self.run = runs.create(place, name, parse(JOB))
        self._led = self.run.led()
        self.epoch = self._led.__enter__()
        self.recorder = Recorder(str(self.run.path), None, {}, 10, epoch=self.epoch)
        self.recorder.push("w1", [self._record("began", 0, total_steps=40, steps_per_epoch=20)])
        self.step_ = 0

    def _record(self, kind: str, step: int, **more: Any) -> dict[str, Any]:
        return {"kind": kind, "step": step, "time": time.time(), **more}

    def steps(self, count: int) -> None:
        for _ in range(count):
            told = {"epoch": self.step_ // 20, "loss": 1 / (1 + self.step_), "lr": 0.1, "rows": 8, "samples": "x"}
            self.recorder.push("w1", [self._record("step", self.step_, **told)])
            self.step_ += 1

    def members(self, *workers: str) -> None:
        lanes = [list(range(at, 8, len(workers))) for at in range(len(workers))]
        shown = [
            {"id": name, "rank": at, "phase": "member", "lanes": lanes[at], "node_ip": "10.0.0.1"}
            for at, name in enumerate(workers)
        ]
        self.recorder.event({"kind": "members", "time": time.time(), "generation": 1, "workers": shown})
        event = {"kind": "generation", "time": time.time(), "generation": 1, "members": list(workers), "lanes": lanes}
        self.recorder.event({**event, "workers": len(workers), "step": self.step_, "reason": "they are ready"})
        self.recorder.event({"kind": "waits", "reason": ""})
        seconds = {"compute": 6.0, "communication": 1.0, "idle": 1.0}
        told = {"kind": "ledger", "seconds": seconds, "goodput": 0.875, "workers": len(workers)}
        self.recorder.event({**told, "lane_s": {}, "exchanged_bytes": 0})

    def lose(self, worker: str, cause: str) -> None:
        event = {"kind": "recovery", "time": time.time(), "cause": cause, "workers": [worker], "generation": 2}
        now = time.time()
        self.recorder.event(
            {**event, "step": 7, "detected_at": now, "resumed_at": now, "silent_s": 0.1, "pause_s": 0.25}
        )

    def end(self, state: str = "finished", message: str = "", cause: str | None = None) -> None:
        self.recorder.finish(state, message, 0.0, cause)
        self.leave()

    def leave(self) -> None:
        if self._led is not None:
            self.recorder.release()
            self._led.__exit__(None, None, None)
            self._led = None  # type: ignore[assignment]


@pytest.fixture
def led(tmp_path: Path) -> Iterator[Callable[..., Led]]:
    made: list[Led] = []

    def make(name: str = "one", place: Place | None = None) -> Led:
        made.append(Led(place or Place.of(str(tmp_path)), name))
        return made[-1]

    yield make
    for each in made:
        if each._led is not None:
            each.recorder.leave()
            each.leave()


def looked(watching: Watching, sure: Callable[[Watched], Any]) -> Watched:
    """What is seen as soon as this is so."""
    found: list[Watched] = []

    def look() -> bool:
        found.append(watching.look())
        return bool(sure(found[-1]))

    until(look, "it is seen")
    return found[-1]


def text_of(seen: Watched, width: int = 120, height: int = 40, unicode: bool = True) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), highlight=False)
    console.print(drawn(seen, width, height, unicode))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# Files that grow


def test_a_file_that_cannot_be_read_has_no_lines_yet(tmp_path: Path) -> None:
    """A disk that does not answer for a while ends no watching."""
    (tmp_path / "r").write_text("no folder")
    tail = Tail(tmp_path / "r" / "steps.jsonl")
    assert tail.more() == []
    (tmp_path / "r").unlink()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "steps.jsonl").write_text("{}\n")
    assert tail.more() == [b"{}"]


def test_lines_are_read_on_and_a_torn_one_waits(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    assert tail.more() == []
    path.write_bytes(b"one\ntwo\nthr")
    assert tail.more() == [b"one", b"two"]
    assert tail.more() == []
    with path.open("ab") as file:
        file.write(b"ee\nfour\n")
    assert tail.more() == [b"three", b"four"]
    assert not tail.anew
    (tmp_path / "other").write_bytes(b"five\n")
    (tmp_path / "other").replace(path)
    assert tail.more() == [b"five"]
    assert tail.anew


def test_of_a_long_file_some_lines_stand_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    count = 8 * END_BYTES // 16
    path.write_bytes(b"".join(b"%015d\n" % number for number in range(count)))
    tail = Tail(path, sparse=True)
    found = [int(line) for line in tail.more()]
    assert found == sorted(set(found))
    assert found[0] == 0
    end = END_BYTES // 16 - 1
    assert found[-end:] == list(range(count - end, count)), "all of its end"
    assert PLACES // 2 < len(found) - end <= PLACES
    with path.open("ab") as file:
        file.write(b"%015d\n" % count)
    assert [int(line) for line in tail.more()] == [count]


def test_a_curve_stays_short_and_keeps_its_extremes() -> None:
    curve = Curve()
    for step in range(5 * POINTS):
        curve.add(step, 100.0 if step == 777 else 1.0)
    assert len(curve.points) < 2 * POINTS
    assert (777, 100.0) in curve.points
    curve.add(10, 5.0)
    assert curve.points[-1] == (10, 5.0), "it goes on from an earlier step"
    assert all(step < 10 for step, _ in curve.points[:-1])
    curve.add(11, "no number")
    assert curve.points[-1] == (10, 5.0)


def test_sparklines() -> None:
    assert sparkline([(step, float(step)) for step in range(8)], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([(step, float(step)) for step in range(8)], 8, unicode=False) == "_.,-=+*#"
    assert sparkline([(0, 1.0), (1, 1.0)], 8) == "▁▁"
    assert sparkline([], 8) == sparkline([(0, float("nan"))], 8) == sparkline([(0, 1.0)], 0) == ""
    assert len(sparkline([(step, 1.0 / (step + 1)) for step in range(10_000)], 60)) == 60
    assert sparkline([(0, 1000.0), (1, 1.0), (2, 0.001)], 3) == "█▅▁", "by its logarithm"
    assert cells([3.0, 1.0], 8) == [6, 2]
    assert sum(cells([1.0, 1.0, 1.0], 100)) == 100
    assert cells([], 10) == []


# A run


def test_a_run_is_seen_as_it_goes(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led()
    watching = Watching(Place.of(str(tmp_path)), "one")
    assert watching.look().brief.state == "running"
    run.members("w1", "w2")
    run.steps(12)
    metrics = {"kind": "metrics", "step": 12, "time": time.time(), "values": {"accuracy": 0.75}}
    run.recorder.push("w1", [metrics])
    run.lose("w2", "process_died")
    checkpoint = {
        "kind": "checkpoint",
        "step": 10,
        "time": time.time() - 30,
        "bytes": 10**6,
        "path": "x",
        "metrics": {},
    }
    run.recorder.push("w1", [checkpoint])
    seen = looked(watching, lambda seen: seen.brief.steps == 12 and seen.lost and seen.workers and seen.ledger_s)
    seen = looked(watching, lambda seen: seen.brief.workers == 2 and seen.brief.checkpoint == 10 and seen.metrics)
    assert [(step, round(loss, 4)) for step, loss in seen.loss[:3]] == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    assert seen.metrics == {"accuracy": ((12, 0.75),)}
    assert {worker.name: len(worker.lanes) for worker in seen.workers} == {"w1": 4, "w2": 4}
    assert (seen.lost, seen.lost_s) == ({"process_died": 1}, 0.25)
    assert seen.ledger_s["compute"] == 6.0
    text = text_of(seen)
    for words in ("12 of 40 steps", "30%", "epoch 0", "accuracy", "w1 ■■■■", "compute 75%", "1: its process ended (1)"):
        assert words in text, words
    assert re.search(r"of step 10, 0:0\d:", text)
    assert "lost w2: its process ended" in text
    run.end()
    ended = looked(watching, lambda seen: seen.over)
    assert (ended.brief.state, ended.workers) == ("finished", ())


def test_why_it_waits_and_what_goes_wrong_is_seen(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led()
    run.recorder.event({"kind": "waits", "reason": "for workers: 1 of 2 is ready"})
    failed = {"kind": "checkpoint_failed", "step": 1, "time": time.time(), "error": "No space left on device"}
    run.recorder.push("w1", [failed])
    seen = looked(Watching(Place.of(str(tmp_path)), "one"), lambda seen: seen.brief.waits and seen.brief.trouble)
    text = text_of(seen)
    assert "for workers: 1 of 2 is ready" in text
    assert "No space left on device" in text


def test_a_run_that_goes_back_is_one_curve(led: Callable[..., Led], tmp_path: Path) -> None:
    run, watching = led(), Watching(Place.of(str(tmp_path)), "one")
    run.steps(9)
    looked(watching, lambda seen: len(seen.loss) == 9)
    began = {"kind": "began", "step": 5, "time": time.time(), "total_steps": 40, "steps_per_epoch": 20}
    run.recorder.push("w1", [began])
    run.step_ = 5
    run.steps(2)
    seen = looked(watching, lambda seen: seen.brief.steps == len(seen.loss) == 7)
    assert [step for step, _ in seen.loss] == [1, 2, 3, 4, 5, 6, 7]


def test_the_picture_fits_any_terminal(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led("a-run-with-a-very-long-name-" * 3)
    run.members(*(f"w{number + 1}" for number in range(8)))
    run.steps(9)
    for number in range(30):
        run.lose(f"w{number}", "link_cut")
    watching = Watching(Place.of(str(tmp_path)), "a-run-with-a-very-long-name-" * 3)
    seen = looked(watching, lambda seen: seen.brief.steps == 9 and seen.workers)
    for width, height in itertools.product((20, 40, 79, 120, 300), (3, 8, 24, 60)):
        lines = text_of(seen, width, height).rstrip("\n").split("\n")
        assert len(lines) <= height, (width, height)
        assert max(map(len, lines)) <= width, (width, height)
        plain = text_of(seen, width, height, unicode=False)
        assert max(map(len, plain.split("\n"))) <= width, (width, height)
        assert plain.replace("…", "").isascii()


def test_a_run_whose_leader_is_gone_is_closed_and_over(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led()
    run.steps(3)
    until(lambda: run.run.last_step() == 2)
    run.recorder._standing.close()
    run.recorder._scribe.close(5.0)
    run.leave()  # as if it had been killed
    seen = Watching(Place.of(str(tmp_path)), "one").look()
    assert (seen.over, seen.brief.state) == (True, "interrupted")
    assert RunFolder(tmp_path / "one").read()["state"] == "interrupted"


def test_damaged_records_are_passed_over(led: Callable[..., Led], tmp_path: Path) -> None:
    run = led()
    run.steps(3)
    run.end()
    with (tmp_path / "one" / "events.jsonl").open("ab") as file:
        file.write(b'not json\n{"kind": 5}\n["a"]\n{"kind": "recovery", "pause_s": "x"}\n')
    with (tmp_path / "one" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": "x", "values": {}}\n\xff\xfe\n')
    (tmp_path / "one" / "members.json").write_text("[")
    seen = Watching(Place.of(str(tmp_path)), "one").look()
    assert seen.over
    assert text_of(seen)


def test_there_is_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run 'nobody'"):
        Watching(Place.of(str(tmp_path)), "nobody").look()


def test_a_run_that_is_removed_meanwhile_is_said(led: Callable[..., Led], tmp_path: Path) -> None:
    run, watching = led(), Watching(Place.of(str(tmp_path)), "one")
    run.steps(3)
    run.end()
    assert watching.look().over
    run.run.remove()
    with pytest.raises(BadInput, match="run one is gone"):
        watching.look()


# In a store


def test_a_run_in_a_store_is_watched_from_another_machine(
    s3: S3, led: Callable[..., Led], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "1")
    s3.make_bucket("runs")
    url = f"s3://runs/watched-{tmp_path.name}"
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "there"))
    run = led(place=Place.of(url))
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "here"))
    watching = Watching(Place.of(url), "one")
    run.members("w1", "w2")
    run.steps(5)
    seen = looked(watching, lambda seen: len(seen.loss) == 5 and seen.brief.workers == 2 and seen.workers)
    seen = looked(watching, lambda seen: seen.ledger_s)
    assert {worker.name for worker in seen.workers} == {"w1", "w2"}
    assert seen.ledger_s["compute"] == 6.0
    run.steps(2)
    s3.faults = Faults(busy=1.0)
    gone = watching.look()
    s3.faults = Faults()
    assert gone.lacks
    assert len(gone.loss) == 5
    assert "cannot be read" in text_of(gone)


# The command


@pytest.mark.parametrize(
    ("state", "message", "cause", "code"),
    [
        ("finished", "", None, 0),
        ("failed", "the task raised X", "task", 1),
        ("failed", "Ray is gone", "platform", 3),
        ("stopped", "stopped by me after step 3", None, 4),
        ("interrupted", "ended by a signal after step 3", None, 130),
    ],
)
def test_it_ends_as_the_run_did(
    state: str, message: str, cause: str | None, code: int, led: Callable[..., Led], tmp_path: Path
) -> None:
    run = led()
    run.steps(3)
    run.end(state, message, cause)
    done = CliRunner().invoke(app, ["watch", "one", "--runs", str(tmp_path), "--plain"])
    assert done.exit_code == code, done.output
    said = f"{state}: {message}" if message else state
    assert done.output.endswith(f"run one is at its end: {said} (step 3 of 40)\n")


def test_lines_tell_of_a_run_until_its_end(led: Callable[..., Led], monkeypatch: pytest.MonkeyPatch) -> None:
    run = led()
    run.members("w1")
    run.steps(5)

    def look(watching: Watching) -> Watched:
        found = looks(watching)
        seen.set()
        return found

    def goes_on() -> None:
        assert seen.wait(20.0)
        run.lose("w2", "link_cut")
        run.steps(35)
        run.end()

    looks, seen = Watching.look, threading.Event()
    monkeypatch.setattr(Watching, "look", look)
    thread = threading.Thread(target=goes_on)
    thread.start()
    done = CliRunner().invoke(app, ["watch", str(run.run.path), "--plain"])
    thread.join()
    assert done.exit_code == 0, done.output
    assert re.search(r"\d\d:\d\d:\d\d  lost w2: the link to it is cut", done.output), done.output
    assert "finished (step 40 of 40)" in done.output
    assert done.output.count("lost w2") == 1


def test_a_run_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["watch", "nobody", "--runs", str(tmp_path)])
    assert isinstance(done.exception, BadInput)


def test_a_sweep_is_watched_as_its_board(tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "sweep.json").write_text(
        json.dumps({"sweep": "tuned", "state": "finished", "created": 1.0, "ended": 9.0})
    )
    kept = History(folder / "history.jsonl")
    kept.begun(1.0, Subject("tuned", "accuracy", "max", trials=1))
    kept.heard(2.0, 1, Suggested(1, {"optimizer.lr": 0.5}), [Start(1, {"optimizer.lr": 0.5}, 20)])
    kept.heard(3.0, 2, Reported(1, 20, {"accuracy": 0.9}, False), [Over("finished", "all trials are over")])
    kept.over(4.0, "finished", "all trials are over")
    kept.close()
    done = CliRunner().invoke(app, ["watch", "tuned", "--runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "best accuracy 0.9 (trial 1)" in done.output
    assert "finished: all trials are over" in done.output


class Terminal:
    """A command of ours in a terminal."""

    def __init__(self, *command: str) -> None:
        self._file, theirs = pty.openpty()
        self.size(30, 100)
        code = "from headway.cli.app import main; main()"
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "COLUMNS": "", "LINES": ""}
        environ = {name: value for name, value in environ.items() if value}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.shown = ""

    def size(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> str:
        """All that it has shown since the last time."""
        found = b""
        while select.select([self._file], [], [], 0.02)[0]:
            try:
                piece = os.read(self._file, 65536)
            except OSError:
                break
            if not piece:
                break
            found += piece
        text = found.decode(errors="replace")
        self.shown += text
        return text

    def shows(self, words: str) -> bool:
        self.read()
        return words in self.shown

    def press(self, key: str) -> None:
        os.write(self._file, key.encode())

    def ended(self) -> int:
        until(lambda: (self.read() or True) and self.process.poll() is not None, "the command ends", 60.0)
        self.read()
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._file)


@pytest.mark.slow  # three commands are started
@pytest.mark.parametrize("way", ["q", "\x03", "end"])
def test_in_a_terminal(way: str, led: Callable[..., Led], tmp_path: Path) -> None:
    run = led()
    run.members("w1", "w2")
    run.steps(5)
    terminal = Terminal("watch", "one", "--runs", str(tmp_path))
    try:
        until(lambda: terminal.shows("of 40 steps") and terminal.shows("the run goes on"), "it is drawn", 60.0)
        terminal.size(12, 50)
        terminal.shown = ""
        until(lambda: terminal.shows("─" * 50 + "\x1b"), "it is drawn anew, in the new size", 60.0)
        if way == "end":
            run.end("failed", "the task raised X", "task")
        else:
            terminal.press(way)
        assert terminal.ended() == {"q": 0, "\x03": 130, "end": 1}[way]
        assert "\x1b[?1049l" in terminal.shown, "the terminal is as it was"
        if way == "end":
            assert "run one is at its end: failed: the task raised X (step 5 of 40)" in terminal.shown
        else:
            assert RunFolder(tmp_path / "one").read()["state"] == "running", "the run hears nothing of it"
    finally:
        terminal.close()
