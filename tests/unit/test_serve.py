"""A pool's process takes one run after the other, and says when it is back from each."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.waiting import until

from headway.carried.code import Source
from headway.elastic.wire import place
from headway.elastic.wire.messages import Raised
from headway.elastic.wire.place import Assignment, Place
from headway.elastic.worker import garbage, main, serve


class House:
    """Stands for the actor that leads the pool."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, str]] = []
        self.back = self

    def remote(self, *said: Any) -> Any:
        self.told.append(said)
        return said


def assignment(number: int, folder: Path) -> Assignment:
    where = Place(f"w{number}", "127.0.0.1", 1, 2, "token")
    return Assignment(number, where, lambda spot: None, {"source": Source(folder, "task", "T", "")})


def test_it_works_for_each_as_new_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    house, seen = House(), []

    def work(config: dict[str, Any], attendant: Any, used: bool) -> str:
        assert used == bool(seen)
        seen.append((place.current().worker, os.environ.get("OF_A_RUN"), "of_a_run" in sys.modules, attendant.pid))
        os.environ["OF_A_RUN"] = "yes"
        sys.path.insert(0, str(tmp_path))
        __import__("of_a_run")
        return "it had better be replaced" if used else ""

    (tmp_path / "of_a_run.py").touch()
    monkeypatch.setattr(main, "work", work)
    monkeypatch.setattr(ray, "get", lambda said: said)
    serve.enter(house, "p3")
    for number in (7, 9):
        serve.give(assignment(number, tmp_path))
    serve.give(None)
    try:
        serve.serve({})
    finally:
        garbage.take_in()
    assert house.told == [("p3", 7, ""), ("p3", 9, "it had better be replaced")]
    assert [each[:3] for each in seen] == [("w7", None, False), ("w9", None, False)]
    assert seen[0][3] == seen[1][3] > 0, "one process is beside it, for all of them"
    until(lambda: not Path(f"/proc/{seen[0][3]}").exists(), "it ends with the last")


@pytest.mark.parametrize(("used", "entered", "fault"), [(0, 0, "user"), (1, 0, "machine"), (1, 1, "user")])
def test_what_a_task_raises_at_its_start_in_a_used_process_is_no_word_on_it(
    used: bool, entered: bool, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come of what another run has left: some things can be done once in a process. A new one tries again."""
    import ray

    told: list[Raised] = []
    nothing = SimpleNamespace(open=lambda: None, close=lambda: None, warned=None)
    job = {"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 4}
    line = SimpleNamespace(
        **{name: lambda *_: None for name in ("connect", "over", "close")},
        tell=told.append,
        entered=entered,
        dismissed=False,
    )

    def fails(*_: Any) -> None:
        raise RuntimeError("only a single TORCH_LIBRARY can be used to register the namespace")

    monkeypatch.setattr(ray, "get", lambda said: {})
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setattr(main, "Ears", lambda warned: nothing)
    monkeypatch.setattr(main, "Line", lambda *_, **more: line)
    monkeypatch.setattr(main, "_context", lambda *_: SimpleNamespace(job=None, journal=nothing, rank=0, at="set-up"))
    monkeypatch.setattr(main, "close", lambda *_, **more: None)
    monkeypatch.setattr(main.code, "load", lambda source: None)
    monkeypatch.setattr(main, "run", fails)
    place.enter(Place("w0", "127.0.0.1", 1, 2, "token"), lambda spot: None)
    recorder = SimpleNamespace(given=SimpleNamespace(remote=lambda: None))
    config = {"recorder": recorder, "job": job, "source": None}
    remark = main.work(config, SimpleNamespace(), bool(used))  # type: ignore[arg-type]
    assert [(each.fault, each.failure["kind"]) for each in told] == [(fault, "task")]
    assert (remark != "", "other runs" in told[0].failure["fact"]) == (fault == "machine", fault == "machine")
