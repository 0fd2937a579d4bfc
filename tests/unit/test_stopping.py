"""`headway stop`: heard wherever the run is led, waited for, never by a later start; through Ray where it must be."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.waiting import until

from headway import jobs, runs
from headway.checkpoint.store import Store
from headway.cli import app
from headway.errors import BadInput
from headway.job import Checkpoint as Policy
from headway.job import Job, parse
from headway.jobs.api.client import RayJobs
from headway.jobs.look import asking, sight, stopping
from headway.jobs.spec import Spec
from headway.runs import Place, RunFolder, audit, epochs, far
from headway.runs.epochs import Superseded
from headway.runs.requests import Box, Stop, heard, of_attempt, of_epoch
from headway.testing.rayjobs import DoubleJob, RayJobsDouble, Script
from headway.testing.s3 import S3


def job() -> Job:
    return parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_S", 0.05)
    monkeypatch.setattr(asking, "PATIENCE_S", 0.5)
    for name in asking.ADDRESSES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return Place.of(tmp_path / "runs")
    s3: S3 = request.getfixturevalue("s3")
    s3.make_bucket("stopping")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("headway.runs.requests.STORE_EVERY_S", 0.1)
    return Place.of(f"s3://stopping/{tmp_path.name}")


def checkpoints(run: RunFolder, epoch: int) -> Store:
    return Store(run.checkpoint_root, "j" * 64, Policy(), epoch, run.counting)


class Driver:
    """Leads a run in a thread, until it is asked to end."""

    def __init__(self, place: Place, deaf: bool = False, submission: dict[str, str] | None = None) -> None:
        self.place, self.deaf, self.stop = place, deaf, threading.Event()
        self.submission = submission
        self.heard: list[Stop] = []
        self.led = threading.Event()
        self.thread = threading.Thread(target=self._lead, daemon=True)
        self.thread.start()
        assert self.led.wait(30)

    def _lead(self) -> None:
        run = runs.create(self.place, "r", job(), {"submission": self.submission} if self.submission else None)
        with run.led() as epoch, heard(Box.of_run(run), [of_epoch(epoch)], self._hear):
            lines = [{"step": step, "loss": 1.0, "rows": 8, "samples": "x", "time": 1.0} for step in range(7)]
            (run.path / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            self.led.set()
            assert self.stop.wait(60)
            by = self.heard[0].by if self.heard else "a signal"
            if not any(stop.now for stop in self.heard):
                with suppress(Superseded):
                    checkpoints(run, epoch).write(7, {"model": {"w": torch.ones(3)}}, {"cursor": {}, "metrics": {}})
            run.write({**run.read(), "state": "stopped", "message": f"stopped by {by}", "ended": 5.0})

    def _hear(self, stop: Stop) -> None:
        self.heard.append(stop)
        if not self.deaf or stop.now:
            self.stop.set()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)


@pytest.fixture
def drive(place: Place) -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def begin(**options: Any) -> Driver:
        made.append(Driver(place, **options))
        return made[-1]

    yield begin
    for driver in made:
        driver.end()


def stops(place: Place) -> list[tuple[str, object]]:
    """What the place's log has of them."""
    verdict = audit.verify(place)
    assert verdict.faults == ()
    return [(entry.act.on, entry.act.details) for entry in verdict.entries if entry.act.verb == "stop"]


def test_a_run_is_ended_after_a_checkpoint_and_can_be_gone_on_with_at_once(
    place: Place, drive: Callable[..., Driver]
) -> None:
    drive()
    said: list[str] = []
    found = jobs.stop("r", runs=str(place), say=said.append)
    assert (found.run, found.state, found.step, found.checkpoint, found.asked) == ("r", "stopped", 7, 7, True)
    assert "@" in found.message
    assert found.checkpoint_path.startswith(f"{found.path}/checkpoints/step-00000007/e000001-")
    assert said == ["r is asked to end after a checkpoint"]
    assert stops(place) == [("r", {"now": False})]
    run = runs.find(place, "r")
    assert not run.is_led()
    assert Box.of(place, "r").asked(of_epoch(1)) is None
    with run.led() as epoch:
        assert epoch == 2
    again = jobs.stop(found.path)
    assert (again.state, again.asked, again.checkpoint) == ("stopped", False, 7)


def test_at_once_is_without_a_checkpoint_even_where_a_slow_end_was_asked_before(
    place: Place, drive: Callable[..., Driver]
) -> None:
    driver = drive(deaf=True)
    first = threading.Thread(target=lambda: jobs.stop("r", runs=str(place)), daemon=True)
    first.start()
    until(lambda: driver.heard)
    found = jobs.stop("r", runs=str(place), now=True)
    assert [stop.now for stop in driver.heard] == [False, True]
    assert (found.state, found.checkpoint, found.checkpoint_path) == ("stopped", None, "")
    first.join(30)
    assert not first.is_alive(), "who asked before hears of the end too"


def test_a_run_whose_leader_is_gone_is_closed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(place, "r", job())
    with run.led() as epoch:
        checkpoints(run, epoch).write(3, {"model": {}}, {"cursor": {}, "metrics": {}})
    found = jobs.stop("r", runs=str(place))
    assert (found.state, found.checkpoint) == ("interrupted", 3)
    assert "the process that led the run is gone" in found.message
    assert runs.find(place, "r").read()["state"] == "interrupted"


def test_a_leader_that_is_killed_while_it_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.create(place, "r", job())
    ready, killed = threading.Event(), threading.Event()

    def lead() -> None:
        with run.led():
            ready.set()
            assert killed.wait(30)

    thread = threading.Thread(target=lead, daemon=True)
    thread.start()
    assert ready.wait(30)

    def say(text: str) -> None:
        if "asked to end" in text:
            killed.set()

    found = jobs.stop("r", runs=str(place), say=say)
    assert found.state == "interrupted"
    thread.join(30)
    assert Box.of(place, "r").asked(of_epoch(1)) is None, "nobody will hear it any more"


def test_another_that_takes_the_lead_is_not_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place.of(tmp_path / "runs")
    driver = Driver(place, deaf=True)

    def say(text: str) -> None:
        if "asked to end" in text:
            epochs.claim(place.folder / "r")

    found = jobs.stop("r", runs=str(place), say=say)
    assert (found.state, found.message) == ("running", "another process leads it since")
    assert Box.of(place, "r").asked(of_epoch(2)) is None
    assert Box.of(place, "r").asked(of_epoch(1)) is None
    driver.end()


def test_who_waits_no_more_has_asked_all_the_same(place: Place, drive: Callable[..., Driver]) -> None:
    driver = drive(deaf=True)

    def interrupted(text: str) -> None:
        if "waiting for" in text:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sight, "SAY_EVERY_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            jobs.stop("r", runs=str(place), say=interrupted)
    assert Box.of(place, "r").asked(of_epoch(1)) is not None
    until(lambda: driver.heard)


def test_where_clocks_differ_one_that_lives_is_asked_and_waited_for(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this machine's clock its leader seems gone for minutes."""
    s3.make_bucket("stopping")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("headway.runs.requests.STORE_EVERY_S", 0.1)
    place = Place.of(f"s3://stopping/{tmp_path.name}")
    driver = Driver(place, deaf=True)
    monkeypatch.setattr(far, "LIVES_S", -1.0)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "laptop"))
    assert far.glance(place, "r").state == "interrupted"  # type: ignore[union-attr]
    found: list[stopping.Stopped] = []
    thread = threading.Thread(target=lambda: found.append(jobs.stop("r", runs=str(place))), daemon=True)
    thread.start()
    until(lambda: driver.heard)
    assert far.FarRun(place.folder / "r", place).remote.head().epoch == 1, "nobody took the lead"
    driver.stop.set()
    thread.join(60)
    assert [(each.state, each.checkpoint) for each in found] == [("stopped", 7)]


# -- submissions -----------------------------------------------------------------------------------------------------


def submit(ray: RayJobsDouble, runs: str | None, attempt: str = "ab12") -> Spec:
    spec = Spec("train", "r", attempt, "mary@laptop", "0", (3, 11), runs=runs)
    RayJobs.at(ray.address).submit(spec.submission, "true", {}, spec.metadata)
    return spec


def waits(place: Place) -> Script:
    """A driver that has made no run yet, and looks for what it is asked."""

    def script(job: DoubleJob) -> None:
        until(lambda: Box.of(place, "r").asked(of_attempt("ab12")) or job.stop_asked.is_set(), within_s=30)
        by_ray = job.stop_asked.is_set()
        message = "ended by a signal after step 13" if by_ray else "stopped by x before it began; nothing was started"
        if by_ray:
            job.tell("began", run="r", where="/there/r")
        job.tell("ended", state="interrupted" if by_ray else "stopped", message=message)
        job.end(130 if by_ray else 4)

    return script


def test_a_submission_that_has_no_run_yet_is_ended(place: Place) -> None:
    place.folder.mkdir(parents=True)
    with RayJobsDouble(waits(place)) as ray:
        submit(ray, str(place))
        found = jobs.stop("r", runs=str(place), address=ray.address)
        assert (found.state, found.checkpoint, found.path) == ("stopped", None, "")
        assert found.message == "stopped by x before it began; nothing was started"
        assert ("POST", "/api/jobs/headway-r-ab12/stop") not in ray.asked, "Ray's stop is a signal and a kill"
        assert Box.of(place, "r").asked(of_attempt("ab12")) is None
        assert place.url is not None or [path.name for path in place.folder.iterdir()] == [".audit"]
        assert stops(place) == [("r", {"now": False, "submission": "headway-r-ab12"})]


def test_a_submission_whose_run_cannot_be_seen_from_here_is_ended_by_ray(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "here")
    with RayJobsDouble(waits(place), token="word") as ray, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", "word")
        submit(ray, str(tmp_path / "only-there"))
        ray.fail("POST", "/api/jobs/headway-r-ab12/stop", "503", 2)
        ray.fail("GET", "/api/jobs/headway-r-ab12", "lost", 2)
        said: list[str] = []
        found = jobs.stop("r", runs=str(place.folder), address=ray.address, say=said.append)
        assert (found.state, found.message) == ("interrupted", "ended by a signal after step 13")
        assert found.path == "/there/r"
        assert f"{ray.address} is asked to end headway-r-ab12, after a checkpoint" in said[0]


def test_where_a_folder_of_that_path_is_not_the_clusters_ray_is_asked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "RAY_TOO_S", 0.2)
    with RayJobsDouble(waits(Place.of(tmp_path / "on-a-node"))) as ray:
        submit(ray, str(tmp_path))
        assert jobs.stop("r", runs=str(tmp_path), address=ray.address).state == "interrupted"


def test_ray_is_not_believed_of_a_job_that_is_pending(tmp_path: Path) -> None:
    with RayJobsDouble(pending=True) as ray:
        spec = submit(ray, None)
        stop = ("POST", f"/api/jobs/{spec.submission}/stop")
        found: list[stopping.Stopped] = []
        thread = threading.Thread(
            target=lambda: found.append(jobs.stop("r", runs=str(tmp_path), address=ray.address)), daemon=True
        )
        thread.start()
        looked = ("GET", f"/api/jobs/{spec.submission}")
        until(lambda: ray.asked.count(looked) > 3)
        assert stop not in ray.asked
        ray.jobs[spec.submission].status = "RUNNING"
        until(lambda: stop in ray.asked)
        ray.jobs[spec.submission].end(130)
        thread.join(30)
        assert [each.state for each in found] == ["interrupted"]


def test_a_submission_that_begins_meanwhile_is_waited_for_as_a_run(place: Place) -> None:
    """It leads its run by the time it hears that it is to end."""

    def script(job: DoubleJob) -> None:
        until(lambda: Box.of(place, "r").asked(of_attempt("ab12")), within_s=30)
        driver = Driver(place, submission={"id": "headway-r-ab12", "attempt": "ab12", "by": "mary@laptop"})
        driver.end()
        assert gone.wait(30)  # Ray still shows it as running

    gone = threading.Event()
    place.folder.mkdir(parents=True)
    with RayJobsDouble(script) as ray:
        submit(ray, str(place))
        found = jobs.stop("r", runs=str(place), address=ray.address)
        gone.set()
        assert (found.state, found.step, found.checkpoint) == ("stopped", 7, 7)


def test_a_run_that_ended_is_not_confused_with_its_job_that_is_about_to_go(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    Driver(place, submission={"id": "headway-r-ab12", "attempt": "ab12", "by": "x"}).end()
    with RayJobsDouble(pending=True) as ray:
        spec = submit(ray, str(place))
        ray.jobs[spec.submission].status = "RUNNING"
        found = jobs.stop("r", runs=str(place), address=ray.address)
        assert (found.state, found.asked) == ("stopped", False)
        second = submit(ray, str(place), "cd34")
        ray.jobs[second.submission].status = "RUNNING"

        def end() -> None:
            until(lambda: Box.of(place, "r").asked(of_attempt("cd34")), "it is asked to end")
            ray.jobs[second.submission].end(4)

        ending = threading.Thread(target=end, daemon=True)
        ending.start()
        again = jobs.stop("r", runs=str(place), address=ray.address)
        ending.join(30)
        assert (again.state, again.asked) == ("stopped", True), "another submission is to go on with it"


def test_a_run_whose_leader_is_gone_and_that_is_about_to_be_gone_on_with(tmp_path: Path) -> None:
    """Its head was lost, `headway resume` is on its way, and somebody thinks better of it."""
    place = Place.of(tmp_path / "runs")
    with runs.create(place, "r", job()).led():
        pass  # and it was killed
    with RayJobsDouble(waits(place)) as ray:
        submit(ray, str(place))
        found = jobs.stop("r", runs=str(place), address=ray.address)
        assert ray.jobs["headway-r-ab12"].exit_code == 4, "it was asked"
        assert (found.state, found.asked) == ("interrupted", True)
        assert runs.find(place, "r").read()["state"] == "interrupted"


# -- what cannot be --------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    Driver(place).end()
    with pytest.raises(BadInput, match="no run 'q'") as none:
        jobs.stop("q", runs=str(place))
    assert "r" in none.value.remedy
    with RayJobsDouble() as ray, pytest.raises(BadInput, match=f"and on {ray.address}"):
        jobs.stop("q", runs=str(place), address=ray.address)
    with pytest.raises(BadInput, match=r"no run 'q'.*http://127\.0\.0\.1:1 could not be asked"):
        jobs.stop("q", runs=str(place), address="http://127.0.0.1:1")
    (tmp_path / "other").mkdir()
    with pytest.raises(BadInput, match=r"no run '\.\./runs/r'"):
        jobs.stop("../runs/r", runs=str(tmp_path / "other"))


def test_a_name_is_one_of_the_place_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though this folder has a run of that name: `cd runs; headway stop r --runs elsewhere`."""
    for folder in ("here", "elsewhere"):
        with runs.create(Place.of(tmp_path / folder), "r", job()).led():
            pass
    monkeypatch.chdir(tmp_path / "here")
    there = str(tmp_path / "elsewhere")
    assert asking.place_of("r", there)[0].folder == tmp_path / "elsewhere"
    monkeypatch.setenv("HEADWAY_RUNS", there)
    assert asking.place_of("r", None)[0].folder == tmp_path / "elsewhere"
    assert asking.place_of("./r", there)[0].folder == tmp_path / "here", "a path is a path"
    monkeypatch.delenv("HEADWAY_RUNS")
    assert asking.place_of("r", None)[0].folder == tmp_path / "here"
    with runs.create(Place.of(None), "r", job()).led():
        pass
    assert asking.place_of("r", None)[0].folder.resolve() == tmp_path / "here" / "runs"


def test_what_is_no_whole_run_is_not_waited_for(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.make_bucket("stopping")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    place = Place.of(f"s3://stopping/{tmp_path.name}")
    lease = far.FarRun(place.folder / "r", place).begin({"state": "finished", "created": 1.0})
    lease.offer(removed=True)
    lease.settle()
    with pytest.raises(BadInput, match="is no whole run: its removal was broken off") as error:
        jobs.stop("r", runs=str(place))
    assert f"headway runs prune r --runs {place}" in error.value.remedy


def test_where_nothing_answers_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "0")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="nothing could be asked") as error:
        jobs.stop("r", runs="s3://stopping-away/x", address="http://127.0.0.1:1")
    assert "That says nothing of the runs" in error.value.remedy


def test_a_store_that_is_lost_while_it_is_waited_for(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.make_bucket("stopping")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "0")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("headway.runs.requests.STORE_EVERY_S", 0.1)
    place = Place.of(f"s3://stopping/{tmp_path.name}")
    driver = Driver(place, deaf=True)
    look, fails, said = stopping.look, [3], list[str]()

    def sometimes(place: Place, name: str) -> Any:
        if driver.heard and fails[0]:
            fails[0] -= 1
            if not fails[0]:
                driver.stop.set()
            raise BadInput("the store", "the network is down", "")
        return look(place, name)

    monkeypatch.setattr(stopping, "look", sometimes)
    found = jobs.stop("r", runs=str(place), say=said.append)
    assert found.state == "stopped"
    assert [text for text in said if "cannot be asked" in text] == [
        f"{place} cannot be asked (the network is down); asking on"
    ]


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_where_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    place = Place.of(tmp_path / "runs")
    driver = Driver(place)
    done = CliRunner().invoke(app.app, ["stop", "r", "--runs", str(place)])
    assert done.exit_code == 0, done.output
    assert "r stopped (stopped by " in done.output
    assert f"its newest checkpoint is of step 7: {place.folder / 'r' / 'checkpoints'}" in done.output
    assert f"headway resume {place.folder / 'r'} goes on with it" in done.output
    driver.end()
    again = CliRunner().invoke(app.app, ["stop", "r", "--runs", str(place), "--json"])
    tree = json.loads(again.stdout)
    assert (tree["run"], tree["state"], tree["asked"], tree["checkpoint"]) == ("r", "stopped", False, 7)


def test_the_client_needs_neither_ray_nor_torch() -> None:
    import subprocess
    import sys

    program = (
        "import sys, headway.jobs.look.stopping; print([m for m in ('ray', 'torch', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
