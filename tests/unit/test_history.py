"""headway events: what happened, while it happens and afterwards, in a folder, in a store, and where that is away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Run
from tests.waiting import until

from headway import jobs, runs
from headway.durable import Lines
from headway.errors import BadInput
from headway.job import parse
from headway.jobs.look import asking, history
from headway.jobs.look.history import Event, events
from headway.runs import Brief, Place, RunFolder
from headway.runs.listing import of_folder
from headway.storage.protocol import OutOfReach
from headway.testing.rayjobs import DoubleJob, RayJobsDouble
from headway.testing.s3 import S3, Faults

JOB = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100}
AWAY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE_S", 0.3)
    monkeypatch.setattr(history, "FOLDER_S", 0.01)
    monkeypatch.setattr(history, "STORE_S", 0.02)
    monkeypatch.setattr(history, "GRACE_S", 0.3)
    for name in (*asking.ADDRESSES, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "HEADWAY_RUNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ray() -> Iterator[RayJobsDouble]:
    with RayJobsDouble() as double:
        yield double


def listed(ray: RayJobsDouble, place: str, status: str = "RUNNING", **more: Any) -> DoubleJob:
    told = {"headway_run": "r", "headway_kind": "train", "headway_by": "anna@laptop", "headway_runs": place}
    job = DoubleJob("headway-r-1", {"entrypoint": "sh x", "metadata": told}, {}, [], status=status, started=5.0, **more)
    ray.jobs[job.id] = job
    return job


def made(place: Path) -> RunFolder:
    run = RunFolder(place / "r")
    run.path.mkdir(parents=True)
    run.write({"run": "r", "created": 1.0, "state": "running"})
    return run


def record(run: RunFolder, *lines: dict[str, Any]) -> None:
    file = Lines(run.events_file)
    file.append(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    file.close()


def saved(step: int) -> dict[str, Any]:
    return {"kind": "checkpoint", "step": step, "bytes": 1_000_000, "time": 10.0 + step}


class Follower:
    """`events -f` in a thread of its own."""

    def __init__(self, run: str, **options: Any) -> None:
        self.found: list[Event] = []
        self.said: list[str] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._follow, args=(run, options), daemon=True)
        self.thread.start()

    def _follow(self, run: str, options: dict[str, Any]) -> None:
        try:
            for event in events(run, follow=True, say=self.said.append, **options):
                self.found.append(event)
        except BaseException as error:
            self.error = error

    def has(self, number: int) -> None:
        until(lambda: len(self.found) >= number or self.error is not None, f"{number} events")
        assert self.error is None
        assert len(self.found) == number

    def ended(self) -> None:
        self.thread.join(10.0)
        assert not self.thread.is_alive()
        assert self.error is None

    @property
    def steps(self) -> list[int]:
        return [event.fields["step"] for event in self.found]


def test_what_happened_with_what_ray_says_of_it(tmp_path: Path, ray: RayJobsDouble) -> None:
    run = made(tmp_path)
    listed(ray, str(tmp_path), "FAILED", ended=60.0, message="so")
    record(run, {"kind": "start", "time": 7.0, "host": "head", "by": "anna@laptop", "step": 0}, saved(4))
    with run.events_file.open("a") as file:
        file.write('{"kind": "checkpoint", "st')  # torn
    found = list(events("r", runs=tmp_path, address=ray.address))
    assert [(event.time, event.kind, event.text) for event in found] == [
        (5.0, "submission", "submitted to the cluster: by anna@laptop; headway-r-1"),
        (7.0, "start", "started on head: submitted by anna@laptop"),
        (14.0, "checkpoint", "the checkpoint of step 4 is written (1.0 MB)"),
        (60.0, "submission", "Ray says that headway-r-1 has ended: FAILED: so"),
    ]
    assert found[2].fields == {"step": 4, "bytes": 1_000_000}
    assert list(events(str(run.path), runs="nowhere")) == found[1:3], "no cluster was asked"


def test_following_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(history.time, "sleep", lambda seconds: (slept.append(seconds), sleep(seconds)))
    run = made(tmp_path)
    record(run, saved(0))
    with run.led():
        follower = Follower("r", runs=tmp_path)
        follower.has(1)
        with run.events_file.open("ab") as file:  # a line that comes in pieces is told when it is whole
            text = json.dumps(saved(1)).encode() + b"\n"
            file.write(text[:20])
            file.flush()
            sleeps = len(slept)
            until(lambda: len(slept) >= sleeps + 3)
            file.write(text[20:])
        follower.has(2)
        monkeypatch.setattr(history, "GRACE_S", 20.0)
        run.write({**run.read(), "state": "finished"})
        sleeps = len(slept)
        until(lambda: len(slept) >= sleeps + 3)  # that it has ended is known, and the last event is still on its way
        record(run, {"kind": "end", "time": 99.0, "state": "finished", "message": "", "step": 2})
    follower.ended()
    assert follower.steps == [0, 1, 2]
    assert follower.said == []
    assert [event.kind for event in follower.found][-1] == "end"


def test_a_run_that_has_ended_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path)
    run.write({**run.read(), "state": "stopped", "ended": 5.0})
    record(run, saved(0))
    begun = time.monotonic()
    monkeypatch.setattr(history, "GRACE_S", 60.0)
    assert len(list(events("r", runs=tmp_path, follow=True))) == 1
    assert time.monotonic() - begun < 30.0, "it ended long ago: no more is waited for"


def test_why_following_ends_is_said_where_the_run_did_not_say_so(tmp_path: Path) -> None:
    run = made(tmp_path)
    record(run, saved(0))
    with run.led():
        follower = Follower("r", runs=tmp_path)
        follower.has(1)
    follower.ended()
    assert follower.said == ["run r is interrupted: the process that led the run is gone"]


def test_there_is_no_such_run(tmp_path: Path, ray: RayJobsDouble) -> None:
    made(tmp_path)
    for follow in (False, True):
        for address in (None, AWAY, ray.address):
            with pytest.raises(BadInput, match="no run 'q'"):
                list(events("q", runs=tmp_path, address=address, follow=follow))


def test_a_submission_that_has_no_run_yet_is_waited_for(tmp_path: Path, ray: RayJobsDouble) -> None:
    job = listed(ray, str(tmp_path), "PENDING")
    assert [event.kind for event in events("r", runs=tmp_path, address=ray.address)] == ["submission"]
    follower = Follower("r", runs=tmp_path, address=ray.address)
    follower.has(1)
    run = made(tmp_path)
    with run.led():
        record(run, saved(0))
        follower.has(2)
        run.write({**run.read(), "state": "finished"})
    follower.ended()
    job.end(1)
    again = Follower("s", runs=tmp_path, address=ray.address)
    again.thread.join(10.0)
    assert isinstance(again.error, BadInput), "nothing of that name was ever submitted"


def test_one_that_is_refused_is_waited_for_no_more(tmp_path: Path, ray: RayJobsDouble) -> None:
    job = listed(ray, str(tmp_path))
    follower = Follower("r", runs=tmp_path, address=ray.address)
    follower.has(1)
    job.end(2, "refused")
    follower.ended()


# -- in a store -------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "0")
    monkeypatch.setenv("HEADWAY_STORE_TIMEOUT_S", "2")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cluster"))
    s3.make_bucket("runs")
    return Place.of(f"s3://runs/events-{tmp_path.name}")


def test_a_network_that_fails_loses_and_doubles_nothing(
    place: Place, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create(place, "r", parse(JOB))
    with run.led():
        mirror = run._led.mirror  # type: ignore[attr-defined]
        monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "laptop"))
        record(run, saved(0))
        assert mirror.flush(20.0)
        follower = Follower(f"{place}/r")
        follower.has(1)
        s3.faults = Faults(reset=1.0)
        until(lambda: follower.said)
        assert "cannot be read" in follower.said[0]
        assert follower.said[0].endswith("it is tried again")
        s3.faults = Faults(reset=0.3, lost=0.2, cut=0.2, seed=7)
        for step in range(1, 6):
            record(run, saved(step))
            until(lambda: mirror.flush(1.0), within_s=30.0)
        s3.faults = Faults()
        until(lambda: len(follower.found) == 6)
        assert follower.steps == list(range(6))
        run.write({**run.read(), "state": "finished"})
        assert mirror.flush(20.0)
    follower.ended()
    assert follower.steps == list(range(6))
    assert any("can be read again" in text for text in follower.said)


def test_it_is_followed_over_a_change_of_the_leader(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create(place, "r", parse(JOB))
    with run.led():
        record(run, saved(0))
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "laptop"))
    monkeypatch.setattr(history, "OVER", ("finished",))  # its end is only closed when it has gone on
    follower = Follower(f"{place}/r")
    follower.has(1)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "another cluster"))
    again = runs.find(Place.of(str(place)), "r")
    with again.led():
        record(again, saved(1), saved(2))
        again.write({**again.read(), "state": "finished"})
    follower.ended()
    assert follower.steps == [0, 1, 2]


def test_a_store_that_is_away_is_said(place: Place, s3: S3, ray: RayJobsDouble) -> None:
    listed(ray, str(place))
    s3.faults = Faults(reset=1.0)
    with pytest.raises(Exception, match=r"does not answer|cannot be|reach") as none:
        list(events("r", runs=str(place)))
    assert getattr(none.value, "fact", "")
    assert [event.kind for event in events("r", runs=str(place), address=ray.address)] == ["submission"]


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(name="run")
def _run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Times are shown in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return run


def test_events_as_lines_and_as_json(run: Run, tmp_path: Path) -> None:
    kept = made(tmp_path / "runs")
    kept.write({**kept.read(), "state": "finished"})
    record(kept, saved(0), {"kind": "workers", "step": 0, "workers": 2, "time": 11.0})
    code, out, err = run("events", "r", "-f", "--address", AWAY)
    assert (code, out) == (0, "1970-01-01 00:00:10  the checkpoint of step 0 is written (1.0 MB)\n")
    assert AWAY in err
    record(kept, {"kind": "pause", "reason": "so", "time": 20.0}, *map(saved, (11, 12, 13)))
    code, out, err = run("events", "r")
    assert [line[21:] for line in out.splitlines()] == [
        "the checkpoint of step 0 is written (1.0 MB)",
        "training pauses: so",
        "the checkpoint of step 13 is written (1.0 MB), after 2 earlier ones",
    ]
    code, out, err = run("events", "r", "--json")
    first, second, *rest = map(json.loads, out.splitlines())
    assert len(rest) == 4
    assert (first["kind"], first["what"], first["fields"]["step"], err) == ("checkpoint", first["text"], 0, "")
    assert second["kind"] == "workers"
    code, out, err = run("events", "q")
    assert (code, out) == (2, "")
    assert err.startswith("headway: no run 'q' in runs")


def test_it_is_called_as_the_command_is() -> None:
    assert jobs.events is events


def test_what_a_cluster_lists_is_found_by_its_name_alone(place: Place, tmp_path: Path, ray: RayJobsDouble) -> None:
    run = runs.create(place, "r", parse(JOB))
    with run.led():
        record(run, saved(0))
    job = listed(ray, str(place))
    said: list[str] = []
    found = list(events("r", runs=tmp_path / "none", address=ray.address, say=said.append))
    assert [event.kind for event in found] == ["submission", "checkpoint"]
    assert said == [f"r is kept in {place}"]
    job.request["metadata"]["headway_runs"] = "/on/the/cluster"
    found = list(events("r", runs=tmp_path / "none", address=ray.address, say=said.append))
    assert [event.kind for event in found] == ["submission"]
    assert said[1].endswith("a folder that is not on this machine; only what Ray says of it is shown")


def test_the_last_events_are_waited_for_where_the_place_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a run has ended may be known before a place that fails gives its last events."""
    run = made(tmp_path)
    record(run, saved(0))
    away = threading.Event()

    def refresh(_: RunFolder) -> None:
        if away.is_set():
            raise OutOfReach("the place is away")

    monkeypatch.setattr(RunFolder, "refresh", refresh)
    with run.led():
        follower = Follower("r", runs=tmp_path)
        follower.has(1)
        away.set()
        record(run, saved(1))
        run.write({**run.read(), "state": "finished", "ended": 5.0})
    until(lambda: follower.said)
    follower.thread.join(3 * history.GRACE_S)
    assert follower.thread.is_alive()
    away.clear()
    follower.ended()
    assert follower.steps == [0, 1]


def test_a_run_that_is_not_heard_of_is_followed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is no end: whoever goes on with it is followed too."""
    run = made(tmp_path)
    record(run, saved(0))
    looks: list[str] = []
    monkeypatch.setattr(history, "GRACE_S", 0.0)
    silent = [True]

    def glance(place: Place, name: str) -> Brief:
        looks.append(name)
        state = "interrupted" if silent[0] else "finished"
        return replace(of_folder(run), state=state, unclosed=silent[0], unheard=silent[0], message="gone")

    monkeypatch.setattr(history.kept, "glance", glance)
    follower = Follower("r", runs=tmp_path)
    follower.has(1)
    until(lambda: len(looks) > 5)
    record(run, saved(1))
    follower.has(2)
    silent[0] = False
    follower.ended()
    assert follower.steps == [0, 1]
