"""The recorders of several runs in one actor."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headway.elastic.crew.recorders import Recorders, Seat
from headway.job import parse
from headway.runs import RunFolder, create


def run(place: Path, name: str) -> RunFolder:
    job = parse({"name": "j", "task": "t.py:f", "data": {"train": "d"}, "lanes": 2, "lane_batch": 2, "steps": 4})
    return create(place, name, job)


def options(run: RunFolder) -> dict[str, Any]:
    return {"folder": str(run.path), "tracking": None, "first": {}, "every_steps": 1}


def test_each_run_has_its_own_books_and_a_second_leg_begins_when_the_first_is_closed(tmp_path: Path) -> None:
    recorders, runs = Recorders(), [run(tmp_path, name) for name in ("a", "b")]
    for each in runs:
        recorders.open(each.name, options(each))
    recorders.call("a", "event", {"kind": "note", "time": 1.0})
    recorders.call("a", "request_stop", "somebody")
    assert recorders.call("a", "push", "w0", [])["stop"]
    assert not recorders.call("b", "push", "w0", [])["stop"]
    assert set(recorders.progress({"a": 0, "b": 0, "gone": 0})) == {"a", "b"}
    assert recorders.close("a", False, "stopped", "paused", 0.0) == {}
    assert [each.read()["state"] for each in runs] == ["stopped", "running"]
    with runs[0].hold_records(0.0):
        pass
    with pytest.raises(KeyError):
        recorders.call("a", "push", "w0", [])
    recorders.open("a/2", options(runs[0]))
    recorders.close("a/2", False, "finished", "", 0.0)
    recorders.close("b", False, "finished", "", 0.0)
    assert [each.read()["state"] for each in runs] == ["finished", "finished"]


def test_books_that_cannot_be_closed_are_let_go_all_the_same(tmp_path: Path) -> None:
    recorders, one = Recorders(), run(tmp_path, "a")
    recorders.open("a", options(one))
    with pytest.raises(TypeError):
        recorders.close("a", False)
    with one.hold_records(0.0):
        pass
    with pytest.raises(KeyError):
        recorders.call("a", "failure")


class Hangs:
    """Stands for the writer to a tracking store that does not answer."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    def close(self, timeout_s: float) -> Any:
        self.waited.append(timeout_s)
        return SimpleNamespace(uri="u", run_id="r", page="", sent=len(self.waited), waiting=0, error="", whole=True)


def test_books_are_closed_before_the_tracking_store_is_waited_for(tmp_path: Path) -> None:
    recorders, one = Recorders(), run(tmp_path, "a")
    recorders.open("a", options(one))
    recorders._open["a"][0]._writer = writer = Hangs()  # type: ignore[assignment]
    recorders.close("a", True, "finished", "", 0.0)
    assert (one.read()["state"], writer.waited) == ("finished", [0.0])
    with one.hold_records(0.0):
        pass
    recorders.sent("a", 1.0, False)
    recorders.sent("a", 60.0, True)
    assert (one.read()["tracking"]["sent"], writer.waited) == (3, [0.0, 1.0, 60.0])
    assert not recorders._sending


def test_a_seat_calls_its_own_recorder_wherever_it_is_taken() -> None:
    seat = pickle.loads(pickle.dumps(Seat("the actor", "a/1")))
    called = []
    seat.push._recorders = SimpleNamespace(
        call=SimpleNamespace(remote=lambda *told: called.append(told) or "a reference")
    )
    assert seat.push.remote("w0", [{"kind": "note"}]) == "a reference"
    assert called == [("a/1", "push", "w0", [{"kind": "note"}])]
