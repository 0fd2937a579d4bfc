"""A leg of a run on the driver's side: whose run it is, and what it begins with."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from tests.waiting import until

from headway import runs
from headway.driver.names import Names
from headway.elastic.crew import crew as module
from headway.elastic.crew import legs, told
from headway.elastic.crew.crew import RealCrew
from headway.errors import BadInput, RunFailed
from headway.job import parse
from headway.runs.place import Place
from headway.sweeps.crew import Left, Leg, Origin

JOB = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 4})


def wish(key: str) -> Leg:
    return Leg("s.0001", JOB, 4, facts={"sweep": {"name": "s", "key": key, "trial": 1}})


def test_a_run_of_another_sweep_is_not_gone_on_with(tmp_path: Path) -> None:
    place = Place.of(str(tmp_path))
    made, new = legs._run(wish("mine"), place, JOB)
    assert (new, made.read()["sweep"]["key"]) == (True, "mine")
    assert legs._run(wish("mine"), place, JOB) == (made, False)
    with pytest.raises(BadInput, match=r"none of this sweep's.*prune s\.0001"):
        legs._run(wish("another's"), place, JOB)
    made.write({"run": "s.0001"})
    with pytest.raises(BadInput, match="none of this sweep's"):
        legs._run(wish("mine"), place, JOB)


@pytest.mark.parametrize("source", ["s.0002", "s.0003"])
def test_a_state_that_is_not_there_is_nobodys_mistake(tmp_path: Path, source: str) -> None:
    """Of a run that is there, or is not: the trial is tried again, and is not the user's fault."""
    place = Place.of(str(tmp_path))
    run, _ = legs._run(wish("mine"), place, JOB)
    runs.create(place, "s.0002", JOB)
    with pytest.raises(RunFailed, match=rf"s\.0001 cannot begin with {source}") as failed:
        legs._begin_with(Origin(source, 10, exact=False), run, place, "a" * 64, 1)
    assert not isinstance(failed.value, BadInput)


def leg(number: int, tracked: bool, led: ExitStack | None = None) -> Any:
    name = f"s.{number:04d}"
    job = SimpleNamespace(tracking=SimpleNamespace(enabled=tracked))
    run = SimpleNamespace(name=name, read=dict)
    return SimpleNamespace(number=number, run=run, job=job, led=led or ExitStack(), step=0)


def test_those_that_have_left_are_told_while_a_tracking_store_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are waited for at a time; and who may go on is led by nobody then."""
    goes_on, paused = threading.Event(), ExitStack()
    state = ["led"]
    paused.callback(state.pop)
    monkeypatch.setattr(legs, "closed", lambda leg, over: Left(leg.run.name, 4, over.failure["why"]))
    monkeypatch.setattr(legs, "sent", lambda leg: goes_on.wait(60.0))
    crew = RealCrew(Names("s"), tmp_path, Place.of(str(tmp_path)), JOB, None, 1)  # type: ignore[arg-type]
    try:
        for number in range(1, 10):
            crew._end(leg(number, True), told.Ended(number, 4, {"why": "finished"}))
        crew._end(leg(10, True, paused), told.Ended(10, 4, {"why": "paused"}))
        left: list[str] = []
        until(lambda: len(left.extend(each.run for each in crew.news(0.1)) or left) == 10, "all are told")
        assert state == []
    finally:
        goes_on.set()


def test_figures_go_nowhere_once_the_crew_is_closed(tmp_path: Path) -> None:
    given: list[Any] = []
    crew = RealCrew(Names("s"), tmp_path, Place.of(str(tmp_path)), JOB, None, 1)  # type: ignore[arg-type]
    crew._recorders = SimpleNamespace(figures=SimpleNamespace(remote=given.append))
    crew.figures([("sweep_workers", (), 1.0)])
    crew._over.set()
    crew.figures([("sweep_workers", (), 2.0)])
    assert given == [[("sweep_workers", (), 1.0)]]


def test_where_the_recorders_are_gone_the_sweep_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise ray.exceptions.ActorDiedError

    monkeypatch.setattr(ray, "get", gone)
    monkeypatch.setattr(module, "PROGRESS_S", 0.01)
    crew = RealCrew(Names("s"), tmp_path, Place.of(str(tmp_path)), JOB, None, 1)  # type: ignore[arg-type]
    crew._recorders = SimpleNamespace(progress=SimpleNamespace(remote=lambda seen: None))
    one = leg(1, False)
    one.seat, one.seen = SimpleNamespace(key="s.0001/1"), 0
    crew._legs[1] = one
    threading.Thread(target=crew._look, daemon=True).start()
    with pytest.raises(RunFailed, match="records cannot be kept"):
        crew.news(20.0)


def test_records_that_cannot_be_begun_are_told_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise ray.exceptions.RaySystemError("disk full")

    monkeypatch.setattr(ray, "get", full)
    monkeypatch.setattr(legs.equipment, "recorder_options", lambda *_: {})
    monkeypatch.setattr(legs.variables, "given", lambda job: {})
    one = leg(1, False)
    one.seat = SimpleNamespace(open=lambda options: None)
    one.checked = one.epoch = None
    with pytest.raises(RunFailed, match="disk full"):
        legs.record(one)
