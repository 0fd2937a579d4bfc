"""A sweep's own folder, near and in a store: made, led, fenced, found again; and what is asked of it from elsewhere."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests import waiting

from headway import jobs, runs
from headway.carried import code
from headway.driver import run as driven
from headway.errors import BadData, BadInput, RunFailed
from headway.job import load, parse
from headway.runs import Led, Place, Taken, far
from headway.runs.epochs import Superseded, claim
from headway.runs.folder import usable
from headway.runs.remote import RemoteRun
from headway.runs.requests import Box, Stop, heard, of_epoch
from headway.runs.swept import leave_alone
from headway.sweeps import book as books
from headway.sweeps import control, earlier, file, folder, run
from headway.sweeps.book import Book, entries
from headway.sweeps.events import Action, Again, Event, Failed, Over, Reported, Start, Suggested, Width
from headway.sweeps.events import Stop as End
from headway.sweeps.folder import FarSweep, NearSweep, NoSweep
from headway.sweeps.names import run_of
from headway.sweeps.search import Known
from headway.sweeps.seen.keeping import Seen
from headway.sweeps.seen.view import Subject
from headway.testing.s3 import S3

until = partial(waiting.until, within_s=30.0)
URL = "s3://runs/some/place"
FACTS: dict[str, Any] = {"metric": "loss", "mode": "min", "trials": 4, "over": 0, "best": None}
Machine = Callable[[str], Place]


@pytest.fixture(params=["near", "far"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Be on the machine of that name from now on."""
    if request.param == "near":
        return lambda name: Place.of(tmp_path / "runs")
    s3: S3 = request.getfixturevalue("s3")
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "1")
    s3.make_bucket("runs")

    def on(name: str) -> Place:
        monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / name))
        return Place.of(URL)

    return on


def made(place: Place, name: str | None = "digits") -> NearSweep | FarSweep:
    return folder.create(place, name, "words", "name: digits\n", FACTS)


def written(sweep: NearSweep | FarSweep, epoch: int, *events: Event) -> Book:
    book = Book(sweep.book, partial(sweep.secure, epoch))
    book.begin(sweep.name, sweep.read()["key"], "terms")
    for event in events:
        book.append(event)
    book.secure()
    return book


def test_a_sweep_is_made_led_and_found_on_another_machine(machine: Machine) -> None:
    sweep = made(machine("a"))
    with folder.leading(sweep) as epoch:
        assert sweep.is_led()
        book = written(sweep, epoch, Width(2), Suggested(1, {"lr": 0.1}))
        sweep.tell(state="finished", message="all trials are over", over=4)
        book.close()
    there = machine("b")
    found = folder.find(there, "digits")
    assert not found.is_led()
    assert found.read()["state"] == "finished"
    assert {name: found.read()[name] for name in ("sweep", "mode", "over")} == {
        "sweep": "digits",
        "mode": "min",
        "over": 4,
    }
    assert found.file.read_text() == "name: digits\n"
    assert [entry.event for entry in entries(found.book)] == [Width(2), Suggested(1, {"lr": 0.1})]
    assert folder.every(there) == ["digits"]
    assert control.is_sweep(there, "digits")
    assert not control.is_sweep(there, "others")


def test_who_leads_it_is_alone(machine: Machine) -> None:
    sweep = made(machine("a"))
    with (
        folder.leading(sweep),
        pytest.raises(Led, match="digits is"),
        folder.leading(folder.find(machine("a"), "digits")),
    ):
        pass


def test_what_is_written_is_there_for_others_while_it_is_led(machine: Machine) -> None:
    """What `secure` has returned for is not lost with this machine."""
    sweep = made(machine("a"))
    with folder.leading(sweep) as epoch:
        book = written(sweep, epoch, Width(2))
        assert [entry.event for entry in entries(folder.find(machine("b"), "digits").book)] == [Width(2)]
        machine("a")
        book.close()


def test_who_was_superseded_decides_nothing_more(machine: Machine) -> None:
    place = machine("a")
    sweep = made(place)
    with folder.leading(sweep) as epoch:
        book = written(sweep, epoch, Width(2))
        if place.url is None:
            claim(sweep.path)
        else:  # as where this machine was away for longer than its lease
            other = RemoteRun(far.storage_of(URL), "digits")
            lease = other.join(epoch)
            lease.release()
            other.claim()
        book.append(Width(3))
        with pytest.raises(Superseded):
            book.secure()
        book.close()


def test_names_are_a_runs_or_a_sweeps(machine: Machine) -> None:
    place = machine("a")
    sweep = made(place)
    with folder.leading(sweep):
        pass
    with pytest.raises(Taken, match="is taken"):
        made(place)
    job = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3})
    with pytest.raises(Taken):
        runs.create(place, "digits", job)
    with pytest.raises(BadInput, match="a run's name"):
        made(place, "no/name")
    with pytest.raises(NoSweep, match=r"no sweep 'digit' .*Did you mean 'digits'"):
        folder.find(place, "digit")
    assert made(place, None).name.startswith("words-2")


def test_a_run_is_no_sweep(tmp_path: Path) -> None:
    job = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3})
    runs.create(tmp_path, "alone", job)
    with pytest.raises(NoSweep, match=r"alone is no sweep: it is a run\. headway report alone"):
        folder.find(Place.of(tmp_path), "alone")


def test_a_sweep_is_stopped_from_elsewhere(machine: Machine) -> None:
    place = machine("a")
    sweep = made(place)
    asked: list[Stop] = []
    ended = threading.Event()
    with folder.leading(sweep) as epoch:
        written(sweep, epoch, Width(2)).close()
        found: list[control.Stopped] = []
        asking = threading.Thread(target=lambda: found.append(control.stop(sweep.where, runs=str(place))), daemon=True)
        with heard(Box.of_run(sweep), [of_epoch(epoch)], lambda stop: (asked.append(stop), ended.set())):  # type: ignore[arg-type, func-returns-value]
            asking.start()
            assert ended.wait(30.0)
            assert not found  # it is led still
            sweep.tell(state="stopped", message=f"stopped by {asked[0].by}")
    asking.join(30.0)
    assert found == [control.Stopped("digits", "stopped", f"stopped by {asked[0].by}", True, sweep.where)]
    again = control.stop("digits", runs=str(place))
    assert (again.state, again.asked) == ("stopped", False)


def test_one_whose_driver_is_gone_was_interrupted(machine: Machine) -> None:
    place = machine("a")
    with folder.leading(made(place)):
        pass
    told = control.stop("digits", runs=str(place))
    assert (told.state, told.message, told.asked) == ("interrupted", control.GONE, False)


def test_failed_trials_are_tried_again(machine: Machine) -> None:
    place = machine("a")
    sweep = made(place)
    history: list[Event] = [
        Failed(1, 3, "task", "no"),
        Failed(2, 3, "diverged", "no number"),
        Failed(3, 3, "platform", "once"),
        Reported(3, 10, {"loss": 1.0}, waits=False),
        Failed(4, 3, "platform", "twice"),
        Failed(4, 3, "platform", "twice"),
        Failed(5, 3, "platform", "is tried again by itself"),
    ]
    with folder.leading(sweep) as epoch:
        written(sweep, epoch, *history).close()
        if place.url is None:
            with pytest.raises(Led):
                control.retry("digits", runs=str(place))
    assert control.retry("digits", runs=str(place)) == [1, 4]
    found = folder.find(machine("b"), "digits")
    assert [entry.event for entry in entries(found.book)] == [*history, Again(1), Again(4)]
    assert found.read()["state"] == "stopped"
    with pytest.raises(BadInput, match="no trial of sweep digits failed"):
        control.retry("digits", runs=str(machine("b")))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=r"sweeps cannot be kept in .*Give another folder"):
        made(Place.of(tmp_path / "file" / "runs"))
    sweep = made(Place.of(tmp_path / "runs"))
    (sweep.path / folder.FACTS).unlink()
    with pytest.raises(BadInput, match="is not a sweep"):
        sweep.tell(state="failed")


def test_a_store_that_is_away_is_waited_for_and_then_told(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_STORE_RETRIES", "1")
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "a"))
    monkeypatch.setattr(folder, "FLUSH_S", 0.2)
    monkeypatch.setattr(folder, "PATIENCE_S", 0.0)
    s3.make_bucket("runs")
    sweep = made(Place.of(URL))
    said: list[str] = []
    with folder.leading(sweep) as epoch:
        book = Book(sweep.book, partial(sweep.secure, epoch, said.append))
        book.begin("digits", sweep.read()["key"], "terms")
        with monkeypatch.context() as off:
            off.setattr("headway.runs.mirror.Mirror.flush", lambda self, timeout_s: False)
            book.append(Width(1))
            with pytest.raises(
                RunFailed, match=r"the decisions of digits cannot be kept in s3://runs/some/place/digits"
            ):
                book.secure()
        book.secure()
        book.close()
    assert books.read(sweep.book)[1][0].event == Width(1)


def swept(folder_: Path) -> NearSweep | FarSweep:
    """A sweep with a best trial."""
    job = {"name": "n", "task": "/t.py:T", "data": {"train": "/d", "validation": "/v"}, "steps": 30}
    tree = {"job": job, "metric": "loss", "trials": 2, "space": {"optimizer.lr": {"loguniform": [1e-3, 1e-1]}}}
    space = file.taken({**tree, "job": {**job, "optimizer": {"name": "sgd", "lr": 0.1}}, "name": "digits"})
    found = folder.create(Place.of(folder_), "digits", "digits", file.to_yaml(space), FACTS)
    seen = Seen.begin(found.path, Subject("digits", "loss", "min", 2))
    told: list[tuple[Event, list[Action]]] = [
        (Suggested(1, {"optimizer.lr": 0.01}), [Start(1, {"optimizer.lr": 0.01}, 30)]),
        (Suggested(2, {"optimizer.lr": 0.05}), [Start(2, {"optimizer.lr": 0.05}, 30)]),
        (Reported(1, 30, {"loss": 0.5}, waits=True), [End(1, "finished", "")]),
        (Reported(2, 30, {"loss": 0.25}, waits=True), [End(2, "finished", ""), Over("finished", "all are over")]),
    ]
    for number, (event, actions) in enumerate(told, 1):
        seen.heard(number, event, actions)
    seen.close("finished", "all are over")
    found.tell(state="finished", message="all are over", ended=1.0)
    return found


def test_the_best_is_given_and_written_as_a_job(tmp_path: Path) -> None:
    swept(tmp_path / "runs")
    best = control.best("digits", runs=tmp_path / "runs")
    assert (best.trial, best.run, best.step, best.value) == (2, "digits.0002", 30, 0.25)
    assert best.settings == {"optimizer.lr": 0.05}
    path = tmp_path / "mine.yaml"
    assert control.write_best("digits", path, runs=tmp_path / "runs").trial == 2
    job = load(path)
    assert job.optimizer is not None
    assert (job.optimizer.lr, job.steps) == (0.05, 30)
    assert f"headway train {path}" in path.read_text()


def test_no_file_is_overwritten_by_the_best(tmp_path: Path) -> None:
    swept(tmp_path / "runs")
    path = tmp_path / "best.yaml"
    path.write_text("mine")
    with pytest.raises(BadInput, match=r"best\.yaml exists: nothing is overwritten"):
        control.write_best("digits", path, runs=tmp_path / "runs")
    assert path.read_text() == "mine"
    with pytest.raises(BadInput, match="cannot be written"):
        control.write_best("digits", tmp_path / "none" / "best.yaml", runs=tmp_path / "runs")


def test_there_is_no_best_before_anything_was_evaluated(tmp_path: Path) -> None:
    made(Place.of(tmp_path))
    with pytest.raises(BadInput):
        control.best("digits", runs=tmp_path)


def test_a_name_that_its_trials_cannot_have_is_refused(machine: Machine) -> None:
    place = machine("a")
    with pytest.raises(BadInput, match="that is how trial 7 of a sweep digits is called"):
        folder.create(place, "digits.0007", "digits", "", {})
    with pytest.raises(BadInput, match=r"such a name would be too long\. Choose one that is 10 characters shorter"):
        folder.create(place, "x" * 120, "digits", "", {})
    sweep = folder.create(place, "x" * 110, "digits", "", {})
    assert usable(run_of(sweep.name, 999_999, 999))


def test_a_trial_is_left_to_its_sweep_while_that_is_led(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    place = machine("a")
    sweep = made(place)
    job = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 100})
    trial = runs.create(place, "digits.0007", job, {"sweep": {"name": "digits", "key": "k", "trial": 7}})
    with trial.led():
        pass
    at = str(place)
    verbs = {
        "stop": lambda: jobs.stop("digits.0007", runs=at),
        "resize": lambda: jobs.resize("digits.0007", 2, runs=at),
        "resume": lambda: driven.resume("digits.0007", runs_folder=at),
    }
    with folder.leading(sweep) as epoch:
        written(sweep, epoch, Width(2)).close()
        for verb, do in verbs.items():
            with pytest.raises(BadInput, match=r"digits\.0007 is a trial of sweep digits, which is running") as refused:
                do()
            assert f"nobody else can {verb} it" in str(refused.value)
            assert "headway stop digits" in str(refused.value)
    leave_alone(place, "digits.0007", "stop")
    assert jobs.stop("digits.0007", runs=at).state == "interrupted"


def small(tracking: dict[str, Any] | None = None) -> file.Sweep:
    job: dict[str, Any] = {"name": "n", "task": "/t.py:T", "data": {"train": "/d", "validation": "/v"}, "steps": 100}
    job |= {"optimizer": {"name": "sgd"}, "tracking": tracking or {}, "evaluate_every_steps": 10}
    return file.taken({"name": "digits", "job": job, "trials": 4, "space": {"optimizer.lr": {"uniform": [0.1, 1]}}})


def keep(sweep: NearSweep | FarSweep, *settings: str) -> None:
    lead = run.Lead.__new__(run.Lead)
    lead._found, lead._key, lead._sweep = sweep, sweep.read()["key"], file.load(sweep.file, list(settings))
    lead._book = Book(sweep.book, lambda: None)
    lead.keep()


def test_what_is_set_at_a_resume_is_kept(machine: Machine) -> None:
    place = machine("a")
    wanted = small({"uri": "postgresql://ann:secret@db.example/mlflow"})
    text = file.to_yaml(run._without_secrets(wanted))
    assert "secret" not in text
    sweep = folder.create(place, "digits", "digits", text, FACTS)
    with folder.leading(sweep) as epoch:
        book = Book(sweep.book, partial(sweep.secure, epoch))
        book.begin("digits", sweep.read()["key"], run.terms_of(wanted))
        keep(sweep, "trials=32", "max_failures=9")
        with pytest.raises(BadInput, match="another one by now"):
            keep(sweep, "space.optimizer.lr={uniform: [0.1, 2]}")
        book.secure()
        book.close()
    found = folder.find(machine("b"), "digits")
    again = file.load(found.file)
    assert (again.trials, again.max_failures) == (32, 9)
    assert run.terms_of(again) == run.terms_of(wanted)
    assert "secret" not in found.file.read_text()


def test_a_resume_writes_down_what_is_set_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = small()
    sweep = folder.create(Place.of(tmp_path), "digits", "digits", file.to_yaml(wanted), FACTS)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    sweep.book.touch()  # its driver was killed at once
    monkeypatch.setattr(run.Lead, "follow", killed)
    monkeypatch.setattr(run.attach, "admit", lambda address: None)
    monkeypatch.setattr(run.kept_code, "source", lambda *_: None)  # there is no task
    with pytest.raises(KeyboardInterrupt):
        run.resume("digits", runs_folder=tmp_path, settings=["trials=32"])
    assert file.load(sweep.file).trials == 32


def test_a_sweep_that_is_resumed_records_with_the_password_it_was_kept_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_TRACKING_PASSWORD", "secret")
    wanted = small({"uri": "postgresql://ann:secret@db.example/mlflow"})
    sweep = folder.create(
        Place.of(tmp_path), "digits", "digits", file.to_yaml(run._without_secrets(wanted)), {**FACTS, "key": "k"}
    )
    monkeypatch.setattr("headway.tracking.store.check_uri", lambda uri: uri)  # which asks for its driver
    lead = run.Lead.__new__(run.Lead)
    lead._sweep, lead._key = file.load(sweep.file), "k"
    tracking = lead._tracking()
    assert tracking is not None
    assert tracking.uri == "postgresql://ann:secret@db.example/mlflow"


def test_a_sweep_whose_trials_would_be_anothers_runs_is_refused(machine: Machine) -> None:
    place = machine("a")
    folder.admit(place, "digits")
    with runs.create(
        place, "digits.0003-2", parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 3})
    ).led():
        pass
    for name in ("digits.0003", "dig", "digits.00"):
        folder.admit(place, name)
    with pytest.raises(BadInput, match=r"digits\.0003-2"):
        folder.admit(place, "digits")


def test_what_was_known_at_the_beginning_is_what_is_known_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, mine = Place.of(tmp_path), tmp_path / "mine"
    mine.mkdir()
    first = [Known({"x": 1}, 10, 0.5, True), Known({"x": 2}, 10, math.inf, False)]
    monkeypatch.setattr(earlier, "known", lambda names, place: first)
    assert earlier.kept(["before"], place, mine) == first

    def gone(names: object, place: object) -> list[Known]:
        raise NoSweep("no sweep 'before'")

    monkeypatch.setattr(earlier, "known", gone)
    assert earlier.kept(["before"], place, mine) == first
    (mine / earlier.FILE).write_text("[{]")
    with pytest.raises(BadData, match=r"known\.json is damaged"):
        earlier.kept(["before"], place, mine)


@pytest.mark.parametrize("order", ["async", "strict"])
def test_a_sweep_whose_code_changed_is_resumed_with_a_word_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "t.py").write_text("class T: ...\n")
    wanted = small()
    tree = {**wanted.model_dump(by_alias=True), "order": order, "width": 2, "search": "random", "scheduler": "none"}
    tree["job"] = {**wanted.job, "task": f"{tmp_path / 'mine' / 't.py'}:T", "reproducible": "bitwise"}
    sweep = folder.create(Place.of(tmp_path), "digits", "digits", file.to_yaml(file.taken(tree)), FACTS)
    code.carry(code.locate(tree["job"]["task"]), sweep.code)
    (tmp_path / "mine" / "t.py").write_text("class T: pass\n")
    given: list[Any] = []

    class Lead:
        def __init__(self, *more: Any) -> None:
            given.extend(more[-2:])

        def follow(self, verb: str, address: str | None) -> None:
            return None

    monkeypatch.setattr(run, "Lead", Lead)
    monkeypatch.setattr(run.attach, "admit", lambda address: None)
    if order == "strict":
        with pytest.raises(BadInput, match="changed since the sweep began"):
            run.resume("digits", runs_folder=tmp_path)
        assert not given
        return
    run.resume("digits", runs_folder=tmp_path)
    assert "t.py changed" in given[0][0]
    assert given[1] is None
    (tmp_path / "mine" / "t.py").unlink()
    run.resume("digits", runs_folder=tmp_path)
    assert given[3].folder == sweep.code
