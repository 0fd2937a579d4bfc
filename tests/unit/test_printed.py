"""`headway logs`: what a run printed, wherever it is kept, while it runs and afterwards, with what breaks meanwhile."""

from __future__ import annotations

import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway import jobs, runs
from headway.cli import app
from headway.errors import BadInput
from headway.job import parse
from headway.jobs import told
from headway.jobs.api import log
from headway.jobs.look import asking, printed
from headway.logs import sinks, writer
from headway.logs.reading import Line, Reader
from headway.logs.writer import Writer
from headway.runs import Place, RunFolder, copying
from headway.runs import far as far_runs
from headway.storage.protocol import OutOfReach
from headway.testing.rayjobs import DoubleJob, RayJobsDouble
from headway.testing.s3 import S3, Faults

JOB = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(writer, "SOON_S", 0.01)
    monkeypatch.setattr(writer, "FOLDER_EVERY_S", 0.01)
    monkeypatch.setattr(writer, "AGAIN_S", 0.05)
    monkeypatch.setattr(printed, "FOLDER_S", 0.02)
    monkeypatch.setattr(printed, "STORE_S", 0.05)
    monkeypatch.setattr(printed, "STATE_S", 0.2)
    monkeypatch.setattr(log, "LOOK_S", 0.02)
    monkeypatch.setattr(asking, "PATIENCE_S", 2.0)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "HEADWAY_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def print_all(run: RunFolder, source: str, *lines: str) -> None:
    """As a process that prints and ends."""
    kept = Writer(source, 0.05)
    kept.open(run.where, None if run.far is None else run.far["options"])
    kept.write("".join(f"{line}\n" for line in lines).encode())
    assert kept.close()


def texts(found: Iterator[Line]) -> list[tuple[str, str]]:
    return [(line.source, line.text) for line in found]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """One that was resumed once, and has ended."""
    made = runs.create(tmp_path / "runs", "r", JOB)
    print_all(made, "driver", "first start", told.line("plan").strip())
    print_all(made, "worker-w0", "one", "two")
    print_all(made, "driver", "second start")
    print_all(made, "worker-w0", "three")
    made.write({**made.read(), "state": "finished"})
    return made


def test_all_starts_and_all_processes_are_shown_by_time(run: RunFolder) -> None:
    found = list(jobs.logs(run.where))
    assert texts(iter(found)) == [
        ("driver", "first start"),
        ("worker-w0", "one"),
        ("worker-w0", "two"),
        ("driver", "second start"),
        ("worker-w0", "three"),
    ], "and what is told to whoever submitted is for nobody else"
    assert all(line.time is not None and abs(line.time - time.time()) < 60 for line in found)
    place = str(run.path.parent)
    for name in ("w0", "worker-w0"):
        assert [line.text for line in jobs.logs("r", runs=place, worker=name)] == ["one", "two", "three"]
    assert [line.text for line in jobs.logs("r", runs=place, tail=2)] == ["second start", "three"]
    assert [line.text for line in jobs.logs("r", runs=place, worker="w0", tail=2)] == ["two", "three"]
    assert [line.text for line in jobs.logs("r", runs=place, worker="driver", tail=7)] == [
        "first start",
        "second start",
    ]
    assert list(jobs.logs("r", runs=place, tail=0)) == []


def test_logs_of_an_earlier_release_are_read(run: RunFolder) -> None:
    (run.logs / "worker-w0.log").write_text("the beginning\n")
    (run.logs / "worker-w0.end.old.log").write_text("the middle\n")
    (run.logs / "worker-w0.end.log").write_text("the end, torn")
    found = [line.text for line in jobs.logs(run.where, worker="w0")]
    assert found == ["the beginning", "the middle", "the end, torn", "one", "two", "three"]
    assert [line.text for line in jobs.logs(run.where, worker="w0", tail=4)] == found[-4:]


def test_the_command(run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def headway(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["headway", "logs", *arguments, "--runs", str(run.path.parent)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    assert headway("r", "--tail", "2") == (0, "driver | second start\n    w0 | three\n", "")
    assert headway("r", "--worker", "w0")[1] == "one\ntwo\nthree\n"
    shown = [json.loads(line) for line in headway("r", "--json")[1].splitlines()]
    assert shown[-1]["text"] == "three"
    assert set(shown[0]) == {"source", "time", "text", "note"}
    assert headway("r", "-f", "--tail", "1")[2] == "r finished\n"
    code, out, said = headway("r", "--worker", "w7")
    assert (code, out) == (2, "")
    assert "r has no log of 'w7'. Known: driver, w0." in said
    code, _, said = headway("q")
    assert code == 2
    assert "no run 'q' in" in said
    assert "Did you mean 'r'?" in said or "Known: r" in said


def test_a_log_that_never_was(tmp_path: Path) -> None:
    made = runs.create(tmp_path / "runs", "quiet", JOB)
    made.write({**made.read(), "state": "finished"})
    with pytest.raises(BadInput, match=r"quiet has no log: nothing is in .*quiet/logs"):
        list(jobs.logs(made.where))
    with pytest.raises(BadInput, match="quiet has no log of 'w0'"):
        list(jobs.logs(made.where, worker="w0", follow=True))


class Watched:
    """Follows a log in a thread."""

    def __init__(self, name: str, **options: Any) -> None:
        self.said: list[str] = []
        self.lines: list[Line] = []
        self.failed: queue.Queue[BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._follow, args=(name, options), daemon=True)
        self._thread.start()

    def _follow(self, name: str, options: dict[str, Any]) -> None:
        try:
            for line in jobs.logs(name, follow=True, say=self.said.append, **options):
                self.lines.append(line)
        except BaseException as error:
            self.failed.put(error)

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]

    def ended(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), self.said
        if not self.failed.empty():
            raise self.failed.get()


def test_who_follows_gets_what_comes_and_is_told_how_it_ended(tmp_path: Path) -> None:
    made = runs.create(tmp_path / "runs", "r", JOB)
    with made.led():
        watched = Watched(made.where)
        print_all(made, "driver", "begun")
        until(lambda: watched.texts == ["begun"])
        late = Writer("worker-w0")
        late.open(made.where)
        late.write(b"trains\n")
        until(lambda: "trains" in watched.texts)
        made.write({**made.read(), "state": "failed", "message": "the task raised"})
    late.write(b"last words\n")
    late.close()
    watched.ended()
    assert watched.texts == ["begun", "trains", "last words"]
    assert watched.said == ["r failed: the task raised"]


def test_a_run_that_is_being_resumed_is_not_over(tmp_path: Path) -> None:
    made = runs.create(tmp_path / "runs", "r", JOB)
    made.write({**made.read(), "state": "interrupted"})
    with made.led():
        watched = Watched(made.where)
        print_all(made, "driver", "again")
        until(lambda: watched.texts == ["again"])
        made.write({**made.read(), "state": "running"})
        print_all(made, "driver", "and on")
        until(lambda: watched.texts == ["again", "and on"])
        made.write({**made.read(), "state": "finished"})
    watched.ended()
    assert watched.said == ["r finished"]


@pytest.fixture
def place(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "0")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    s3.make_bucket("runs")
    return Place.of(f"s3://runs/{tmp_path.name}")


@pytest.mark.parametrize("_again", range(2))
def test_over_a_bad_network_no_line_is_lost_or_comes_twice(
    _again: int, s3: S3, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are lost, cut and refused, to who writes and to who reads; processes come and go; the store is away."""
    seed = int(os.environ.get("HEADWAY_SEED") or random.randrange(2**32))
    print(f"seed {seed}")
    draw = random.Random(seed)
    monkeypatch.setattr(sinks, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(sinks, "PIECES", 5)
    made = runs.create(place, "r", JOB)
    assert made.far is not None
    with made.led():
        print_all(made, "driver", "begun")
        watched = Watched("r", runs=str(place))
        until(lambda: watched.texts == ["begun"])
        number = 0
        sent = {"driver": ["begun"]}
        s3.faults = Faults(busy=0.1, reset=0.1, lost=0.1, cut=0.1, seed=seed)
        for start in range(3):
            writers = {source: Writer(source, 0.02) for source in ("driver", "worker-w0", "worker-w1")}
            for kept in writers.values():
                kept.open(made.where, made.far["options"])
            for round_number in range(6):
                for source, kept in writers.items():
                    for _ in range(draw.randrange(20)):
                        number += 1
                        text = f"{source} {start} {number}"
                        sent.setdefault(source, []).append(text)
                        kept.write(f"{text}\n".encode())
                if round_number == 3 and start == 1:
                    s3.faults = Faults(denied=("GET", "PUT"))  # for a while nobody gets through
                    until(lambda: any("cannot be read" in line for line in watched.said), "it is told")
                    s3.faults = Faults(busy=0.1, reset=0.1, lost=0.1, cut=0.1, seed=seed + 1)
                time.sleep(draw.uniform(0, 0.1))  # the moments are what is random
            closing = [threading.Thread(target=kept.close, args=(30.0,)) for kept in writers.values()]
            for each in closing:
                each.start()
            for each in closing:
                each.join()
        s3.faults = Faults()
        made.write({**made.read(), "state": "finished"})
    watched.ended()
    for source, lines in sent.items():
        assert [line.text for line in watched.lines if line.source == source] == lines, f"seed {seed}"
    assert watched.said[-1] == "r finished"
    assert watched.said.count(next(line for line in watched.said if "cannot be read" in line)) >= 1
    assert any("can be read again" in line for line in watched.said)
    again = list(jobs.logs("r", runs=str(place)))
    assert sorted(line.text for line in again) == sorted(line for lines in sent.values() for line in lines)


def test_the_last_lines_are_waited_for_where_the_place_is_away_at_the_end(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    news, tries, back = Reader.news, [0], threading.Event()

    def away(reader: Reader) -> Iterator[Line]:
        tries[0] += 1
        if not back.is_set():
            raise OutOfReach("away", "for a while")
        return news(reader)

    monkeypatch.setattr(Reader, "news", away)
    monkeypatch.setattr(printed, "GRACE_S", 0.0)
    watched = Watched(run.where)
    until(lambda: tries[0] >= 5, "it is tried on")
    back.set()
    watched.ended()
    assert watched.texts == ["first start", "one", "two", "second start", "three"]
    assert watched.said[0].endswith("cannot be read (for a while); it is tried again")
    assert watched.said[1].endswith("can be read again")
    assert watched.said[2:] == ["r finished"]


def test_reading_needs_no_working_copy(place: Place) -> None:
    made = runs.create(place, "r", JOB)
    with made.led():
        print_all(made, "driver", "begun")
        made.write({**made.read(), "state": "finished"})
    assert not (place.folder / "r").exists() or not list((place.folder / "r").glob("logs"))
    far_runs.storage_of.cache_clear()
    assert texts(jobs.logs(f"{place}/r")) == [("driver", "begun")]


def test_a_copied_run_has_its_logs(run: RunFolder, place: Place, tmp_path: Path) -> None:
    there = copying.copy(run, place)
    back = copying.copy(runs.find(place, "r"), Place.of(tmp_path / "back"))
    expected = texts(jobs.logs(run.where))
    assert texts(jobs.logs(there.path)) == texts(jobs.logs(back.path)) == expected
    assert len(expected) == 5


# -- where the run's place cannot be read -----------------------------------------------------------------------------


@pytest.fixture
def ray() -> Iterator[RayJobsDouble]:
    with RayJobsDouble(lambda job: None) as double:
        yield double


def submitted(ray: RayJobsDouble, name: str = "r", place: str = "", **options: Any) -> DoubleJob:
    told_of = {"headway_run": name, "headway_kind": "train", "headway_attempt": "a", "headway_runs": place}
    job = DoubleJob(f"headway-{name}-a", {"entrypoint": "x", "metadata": told_of}, {}, [], status="RUNNING", **options)
    ray.jobs[job.id] = job
    return job


def test_rays_own_log_is_shown_where_the_place_cannot_be_read(
    ray: RayJobsDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(ray, place="/of/the/nodes/runs")
    job.print("one")
    job.tell("plan")
    job.print("two")
    said: list[str] = []
    found = jobs.logs("r", runs=tmp_path, address=ray.address, say=said.append)
    assert [line.text for line in found] == ["one", "two"]
    assert said == [
        "r cannot be read where it is kept (/of/the/nodes/runs is a folder of the cluster's machines): this is Ray's "
        "own log of its driver"
    ]
    assert [line.text for line in jobs.logs("r", runs=tmp_path, address=ray.address, tail=1)] == ["two"]
    with pytest.raises(BadInput, match="the log of w0 cannot be read from here"):
        list(jobs.logs("r", runs=tmp_path, address=ray.address, worker="w0"))
    with pytest.raises(BadInput, match=r"no run 'other' in .* and on http"):
        list(jobs.logs("other", runs=tmp_path, address=ray.address))
    monkeypatch.setattr(asking, "PATIENCE_S", 0.2)
    with pytest.raises(BadInput, match=r"no run 'r' in .*: http://127.0.0.1:1 cannot be asked"):
        list(jobs.logs("r", runs=tmp_path, address="http://127.0.0.1:1"))


def test_rays_log_is_followed_over_a_lost_network_and_a_new_submission(ray: RayJobsDouble, tmp_path: Path) -> None:
    job = submitted(ray, place="/of/the/nodes/runs")
    job.print("one")
    watched = Watched("r", runs=tmp_path, address=ray.address)
    until(lambda: watched.texts == ["one"])
    ray.is_down = True
    until(lambda: any("asking on" in line for line in watched.said))
    ray.is_down = False
    job.print("two")
    until(lambda: watched.texts == ["one", "two"])
    ray.jobs.clear()
    again = submitted(ray, place="/of/the/nodes/runs", logs="one more start\n")  # under the same name
    until(lambda: "one more start" in watched.texts)
    again.print("three")
    again.end(0)
    watched.ended()
    assert watched.texts == ["one", "two", "one more start", "three"]
    assert any("answers again" in line for line in watched.said)
    assert watched.said[-1] == "r: Ray says SUCCEEDED"


def test_a_run_that_is_kept_elsewhere_is_found_by_its_submission(
    ray: RayJobsDouble, run: RunFolder, tmp_path: Path
) -> None:
    submitted(ray, place=str(run.path.parent))
    said: list[str] = []
    found = jobs.logs("r", runs=tmp_path / "empty", address=ray.address, say=said.append)
    assert [line.text for line in found][-1] == "three"
    assert said == [f"r is kept in {run.path.parent}"]


def test_a_run_that_has_not_begun_is_waited_for(ray: RayJobsDouble, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    place.mkdir()
    submitted(ray, place=str(place)).print("installing")
    watched = Watched("r", runs=place, address=ray.address)
    until(lambda: watched.said == ["r was submitted, and has not begun; it is waited for"])
    made = runs.create(place, "r", JOB)
    with made.led():
        print_all(made, "driver", "installing", "begun")
        until(lambda: watched.texts == ["installing", "begun"])
        made.write({**made.read(), "state": "finished"})
    watched.ended()


def test_nobody_answers(s3: S3, place: Place, ray: RayJobsDouble) -> None:
    s3.faults = Faults(denied=("GET", "PUT"))
    with pytest.raises(BadInput, match="nothing could be asked: s3://"):
        list(jobs.logs("r", runs=str(place)))
    submitted(ray, place=str(place)).print("of Ray")
    assert [line.text for line in jobs.logs("r", runs=str(place), address=ray.address)] == ["of Ray"]
