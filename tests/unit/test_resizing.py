"""`headway resize`: heard by whoever leads the run, in folders and in stores; refused in words where it cannot be."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until
from typer.testing import CliRunner

from headway import jobs, runs
from headway.cli import app
from headway.driver import sizes
from headway.driver.names import Names
from headway.driver.sizes import Sizes
from headway.errors import BadInput
from headway.job import Job, load, parse
from headway.jobs.api.client import RayJobs
from headway.jobs.look import asking, resizing
from headway.jobs.spec import Spec
from headway.runs import Place, audit
from headway.runs.requests import Box, Resize, heard, of_attempt, of_epoch
from headway.testing.rayjobs import RayJobsDouble
from headway.testing.s3 import S3


def job(**workers: Any) -> Job:
    tree = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100, "lanes": 8}
    return parse({**tree, "workers": {"min": 2, "max": 2, **workers}})


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in asking.ADDRESSES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "folder":
        return Place.of(tmp_path / "runs")
    s3: S3 = request.getfixturevalue("s3")
    s3.make_bucket("resizing")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("headway.runs.requests.STORE_EVERY_S", 0.1)
    return Place.of(f"s3://resizing/{tmp_path.name}")


class Driver:
    """Leads a run in a thread, and takes the sizes that it is asked for into its records, as the recorder does."""

    def __init__(self, place: Place, deaf: bool = False, **workers: Any) -> None:
        self.place, self.deaf = place, deaf
        self.heard: list[Resize] = []
        self.over, self.led = threading.Event(), threading.Event()
        self._job = job(**workers)
        self.thread = threading.Thread(target=self._lead, daemon=True)
        self.thread.start()
        assert self.led.wait(30)

    def _lead(self) -> None:
        run = runs.create(self.place, "r", self._job)
        run.write({**run.read(), **sizes.noted(run, self._job.workers.min, self._job.workers.max)})

        def take(wish: Resize) -> None:
            self.heard.append(wish)
            if not self.deaf:
                target = {"min": wish.min, "max": wish.max, "request": wish.id, "at_once": wish.at_once}
                run.write({**run.read(), "target": target})

        with run.led() as epoch, heard(Box.of_run(run), [of_epoch(epoch)], lambda _: None, take):
            self.led.set()
            assert self.over.wait(60)
            run.write({**run.read(), "state": "finished", "ended": 5.0})

    def end(self) -> None:
        self.over.set()
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


def test_another_size_is_heard_noted_and_kept(place: Place, drive: Callable[..., Driver]) -> None:
    driver = drive()
    said: list[str] = []
    found = jobs.resize("r", 4, runs=str(place), say=said.append)
    assert (found.run, found.min, found.max, found.heard, found.by_other) == ("r", 2, 4, True, False)
    assert said == ["r is asked to have 4 workers, at least 2"]
    found = jobs.resize("r", "3..8", runs=str(place))
    assert (found.min, found.max) == (3, 8)
    found = jobs.resize("r", 1, runs=str(place))
    assert (found.min, found.max) == (1, 1), "as few as before will do, and no more than asked for"
    assert [(wish.min, wish.max, wish.at_once) for wish in driver.heard] == [(2, 4, 4), (3, 8, 3), (1, 1, 1)]
    status = jobs.status("r", runs=str(place)).row
    assert (status.least, status.most) == (1, 1)
    acts = [(entry.act.verb, entry.act.on, entry.act.details) for entry in audit.verify(place).entries]
    assert acts[0] == ("resize", "r", {"min": 2, "max": 4})
    driver.end()
    with pytest.raises(BadInput, match=r"run r is finished.*Only a run that is running"):
        jobs.resize("r", 2, runs=str(place))
    assert Box.of(place, "r").sized(of_epoch(1)) is None


@pytest.mark.parametrize(
    ("workers", "why"),
    [
        ("9", "its 8 lanes cannot be carried by more than 8 workers.*Take 8 or fewer"),
        ("4..2", "4 is more than 2.*2..4"),
        ("0", "no number of workers.*Write it like"),
        ("0..4", "no number of workers"),
        ("-1", "no number of workers"),
        ("many", "no number of workers"),
        ("2..", "no number of workers"),
    ],
)
def test_a_size_that_cannot_be_is_refused_and_nothing_is_asked(tmp_path: Path, workers: str, why: str) -> None:
    place = Place.of(tmp_path / "runs")
    driver = Driver(place)
    try:
        with pytest.raises(BadInput, match=why):
            jobs.resize("r", workers, runs=str(place))
        assert Box.of(place, "r").sized(of_epoch(1)) is None
    finally:
        driver.end()
    assert driver.heard == []


def test_what_the_job_itself_forbids_is_refused(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    driver = Driver(place, min=1, max=1, gpus=0.5)
    try:
        with pytest.raises(BadInput, match="several workers would share a GPU"):
            jobs.resize("r", 2, runs=str(place))
    finally:
        driver.end()


def test_a_run_that_is_not_there_or_whose_leader_is_gone_is_told_as_that(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    with pytest.raises(BadInput, match="no run 'r'"):
        jobs.resize("r", 2, runs=str(place))
    run = runs.create(place, "r", job())
    with run.led():
        pass
    with pytest.raises(BadInput, match=r"headway resume r --set workers.min=2 --set workers.max=3 goes on"):
        jobs.resize("r", "2..3", runs=str(place))


def test_a_leader_that_is_killed_before_it_heard_is_told(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    run, killed, ready = runs.create(place, "r", job()), threading.Event(), threading.Event()

    def lead() -> None:
        with run.led():
            ready.set()
            assert killed.wait(30)

    thread = threading.Thread(target=lead, daemon=True)
    thread.start()
    assert ready.wait(30)
    with pytest.raises(BadInput, match="the process that led it is gone"):
        jobs.resize("r", 4, runs=str(place), say=lambda text: killed.set())
    thread.join(30)
    assert Box.of(place, "r").sized(of_epoch(1)) is None, "nobody will hear it any more"


def test_of_two_at_once_the_last_counts_and_the_other_hears_of_it(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    driver = Driver(place, deaf=True)
    other = Resize("john@desk", 9.0, 1, 8, "of john", 1)
    run = runs.find(place, "r")

    def meanwhile(text: str) -> None:
        Box.of(place, "r").ask(of_epoch(1), other)
        run.write({**run.read(), "target": {"min": 1, "max": 8, "request": "of john", "at_once": 1}})

    try:
        found = jobs.resize("r", 4, runs=str(place), say=meanwhile)
        assert (found.min, found.max, found.heard, found.by_other) == (1, 8, True, True)
    finally:
        driver.end()


def test_a_leader_that_does_not_listen_yet_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    driver = Driver(place, deaf=True)
    try:
        found = jobs.resize("r", 4, runs=str(place), heard_s=0.3)
        assert (found.heard, found.waits) == (False, "whoever leads it has not heard yet")
        assert Box.of(place, "r").sized(of_epoch(1)) is not None, "it stays asked"
    finally:
        driver.end()


def test_a_submission_that_has_not_begun_begins_with_that_size(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    place.folder.mkdir()

    def script(job: Any) -> None:
        until(lambda: job.stop_asked.is_set(), within_s=30)

    with RayJobsDouble(script) as ray:
        spec = Spec("train", "r", "ab12", "mary@laptop", "0", (3, 11), runs=str(place))
        RayJobs.at(ray.address).submit(spec.submission, "true", {}, spec.metadata)
        found = jobs.resize("r", 4, runs=str(place), address=ray.address)
        assert (found.heard, found.waits) == (False, "it has not begun")
        wish = Box.of(place, "r").sized(of_attempt("ab12"))
        assert wish is not None
        assert (wish.min, wish.max) == (0, 4), "its job is not seen from here: as few as that says"
        RayJobs.at(ray.address).stop(spec.submission)


def test_by_the_command_line(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "runs")
    driver = Driver(place)
    try:
        done = CliRunner().invoke(app.app, ["resize", "r", "--workers", "2..4", "--runs", str(place)])
        assert done.exit_code == 0, done.output
        assert "r is to have 4 workers, at least 2" in done.stdout
        done = CliRunner().invoke(app.app, ["resize", "r", "--workers", "3", "--runs", str(place), "--json"])
        told = json.loads(done.stdout.splitlines()[-1])
        assert (told["min"], told["max"], told["heard"]) == (2, 3, True)
        done = CliRunner().invoke(app.app, ["status", "r", "--runs", str(place)])
        assert done.exit_code == 0
    finally:
        driver.end()
    done = CliRunner().invoke(app.app, ["resize", "r", "--workers", "3", "--runs", str(place)])
    assert isinstance(done.exception, BadInput)
    assert done.exception.exit_code == 2


# -- the leader's side -----------------------------------------------------------------------------------------------


def test_a_resume_goes_on_with_the_size_that_was_asked_for_last(tmp_path: Path) -> None:
    run = runs.create(Place.of(tmp_path / "runs"), "r", job())
    assert sizes.kept(run, ["epochs=2"]) == ["epochs=2"], "of a release that kept none"
    run.write({**run.read(), "target": {"min": 2, "max": 4, "request": "a", "at_once": 4}})
    workers = load(run.job_file, sizes.kept(run, [])).workers
    assert (workers.min, workers.max) == (2, 4)
    assert sizes.noted(run, 2, 4)["target"]["at_once"] == 4
    workers = load(run.job_file, sizes.kept(run, ["workers.max=8"])).workers
    assert (workers.min, workers.max) == (2, 8), "what a resume itself says counts"
    assert sizes.noted(run, 2, 8)["target"]["at_once"] == 2


def test_what_is_asked_for_waits_for_the_controller_and_is_handed_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    controller: list[Any] = []

    class Actor:
        class resize:  # noqa: N801
            @staticmethod
            def remote(*arguments: Any) -> None:
                told.append(arguments)

    names = Names("r")
    monkeypatch.setattr(names, "find", lambda who: controller[0] if controller else None)
    waiting = Sizes(job(), names)
    for least, most in ((1, 4), (3, 2), (-1, 2), (2, 2)):
        waiting.ask(Resize("mary", 1.0, least, most, f"{least}..{most}", least))
    waiting.hand_on()
    assert told == []
    controller.append(Actor)
    waiting.hand_on()
    waiting.hand_on()
    assert told == [(1, 4, "mary", "1..4", 1, ()), (2, 2, "mary", "2..2", 2, ())], "what is no size is not taken"


def test_what_was_asked_before_a_run_began_is_held_against_its_job() -> None:
    def taken(wish: tuple[int, int, int], **workers: Any) -> list[tuple[int, int, int]]:
        waiting = Sizes(job(**workers), Names("r"))
        waiting.ask(Resize("mary", 1.0, wish[0], wish[1], "id", wish[2]))
        return [(each.min, each.max, each.at_once) for each in waiting._asked]

    assert taken((0, 6, 6), min=4, max=4) == [(4, 6, 6)], "as few as before will do"
    assert taken((0, 2, 2), min=4, max=4) == [(2, 2, 2)]
    assert taken((0, 9, 9), min=4, max=4) == [(4, 8, 8)], "no more than the lanes can carry, and not nothing"
    assert taken((9, 9, 9)) == [(8, 8, 8)]
    assert taken((0, 2, 2), min=1, max=1, gpus=0.5) == [], "several workers would share a GPU"


def test_a_size_in_words() -> None:
    assert [resizing.words(*size) for size in ((1, 1), (2, 2), (1, 3))] == [
        "1 worker",
        "2 workers",
        "3 workers, at least 1",
    ]
    assert resizing.words(0, 3) == "3 workers, at least as many as before"
    assert resizing.size(" 2..4 ") == (2, 4)
    assert resizing.size(4) == (None, 4)
