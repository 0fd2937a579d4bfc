"""Records reach the recorder in order, once, whoever leads, and before the checkpoint that follows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.elastic.recorder import Recorder
from headway.elastic.reporter import DriverLost, Reporter
from headway.runs import RunFolder


class Actor:
    """Stands for the recorder's actor handle: `push.remote` answers at once with what `ray.get` would give."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.generation = 1
        self.gone = self.deaf = False
        self.push = self

    def remote(self, generation: int, records: list[dict[str, Any]]) -> dict[str, Any]:
        import ray

        if self.gone:
            raise ray.exceptions.RayActorError()
        self.got += records
        places = [tuple(r["place"]) for r in records if "place" in r]
        self.next = (places[-1][0], places[-1][1] + 1) if places else getattr(self, "next", (0, 0))
        return {"stop": False, "current": generation == self.generation, "next": self.next}


@pytest.fixture(autouse=True)
def _ray_get(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)


def reporter(recorder: Any, leads: bool = True, generation: int = 1) -> Reporter:
    """In a generation; its thread is not started, so that nothing is sent but by `settle`."""
    made = Reporter(recorder)
    made._thread.start = lambda: None  # type: ignore[method-assign]
    made.restart(1)
    made.enter(generation, leads)
    return made


def say(to: Reporter, *steps: int) -> None:
    for step in steps:
        to.step(step, 0, 1.0, 0.1, 8, "00")


def test_a_checkpoint_settles_the_records_before_it() -> None:
    recorder = Actor()
    leader = reporter(recorder)
    say(leader, 0, 1, 2)
    assert recorder.got == []
    assert leader.settle()
    assert [r["step"] for r in recorder.got] == [0, 1, 2]
    assert leader.settle()
    assert len(recorder.got) == 3, "what was taken is not sent again"


def test_a_generation_that_was_replaced_may_not_commit() -> None:
    recorder = Actor()
    leader = reporter(recorder)
    recorder.generation = 2
    assert not leader.settle()


def test_a_lost_driver_stops_the_worker() -> None:
    recorder = Actor()
    leader = reporter(recorder)
    recorder.gone = True
    assert not leader.settle()
    with pytest.raises(DriverLost):
        _ = leader.stop_requested


def test_only_the_leader_speaks_for_all() -> None:
    recorder = Actor()
    follower = reporter(recorder, leads=False)
    say(follower, 0)
    follower.printed("hello")
    follower.settle()
    assert recorder.got == []


def test_what_concerns_one_worker_is_said_by_itself() -> None:
    recorder = Actor()
    follower = reporter(recorder, leads=False)
    follower.note("this one")
    follower.settle()
    assert [r["text"] for r in recorder.got] == ["this one"]


# With the real recorder: each entry is taken once, whoever sends it


class Real:
    """A recorder in this process, behind an actor's handle."""

    def __init__(self, folder: Path) -> None:
        self.run = RunFolder(folder)
        self.run.write({"name": "run"})
        self.recorder = Recorder(str(folder), None, {}, 10)
        self.push = self
        self.loses_answers = False

    def remote(self, generation: int, records: list[dict[str, Any]]) -> dict[str, Any]:
        import ray

        answer = self.recorder.push(generation, records)
        if self.loses_answers:
            raise ray.exceptions.RayActorError()
        return answer

    def steps(self) -> list[int]:
        """What was recorded; closes the books."""
        self.recorder.finish("finished", "", 1.0)
        return [line["step"] for line in self.run.steps()]


@pytest.fixture
def actor(tmp_path: Path) -> Iterator[Real]:
    made = Real(tmp_path)
    yield made
    made.recorder._hold.close()


def began(*reporters: Reporter) -> None:
    for each in reporters:
        each.restart(1)
        each.began(0, 100, 10)


def test_the_next_leader_sends_what_the_dead_one_kept(actor: Real) -> None:
    first, second = reporter(actor), reporter(actor, leads=False)
    began(first, second)
    say(first, 0, 1, 2)
    say(second, 0, 1, 2)
    first.settle()
    say(second, 3, 4)  # the first commits step 3 and 4 as well, and dies before it has said so
    second.enter(2, leads=True)
    say(second, 5)
    assert second.settle()
    assert actor.steps() == [0, 1, 2, 3, 4, 5]


def test_what_was_taken_before_the_answer_was_lost_is_not_taken_twice(actor: Real) -> None:
    first, second = reporter(actor), reporter(actor, leads=False)
    began(first, second)
    for each in (first, second):
        say(each, 0, 1, 2)
    actor.loses_answers = True
    assert not first.settle()
    actor.loses_answers = False
    second.enter(2, leads=True)
    assert second.settle()
    assert actor.steps() == [0, 1, 2]


def test_a_leader_of_the_past_is_not_heard(actor: Real) -> None:
    first, second = reporter(actor), reporter(actor, leads=False)
    began(first, second)
    second.enter(2, leads=True)
    say(second, 0)
    assert second.settle()
    say(first, 0, 1)
    assert not first.settle()
    assert actor.steps() == [0]


def test_one_that_joined_can_lead(actor: Real) -> None:
    """It has the journal of the worker whose state it took; it commits and dies, and the joiner is all that is left."""
    first = reporter(actor)
    began(first)
    say(first, 0, 1)
    first.settle()
    say(first, 2, 3)
    joiner = Reporter(actor)
    joiner._thread.start = lambda: None  # type: ignore[method-assign]
    joiner.take(first.journal())
    joiner.enter(2, leads=False)
    say(joiner, 4)
    joiner.enter(3, leads=True)
    assert joiner.settle()
    assert actor.steps() == [0, 1, 2, 3, 4]


def test_who_is_behind_takes_the_journal_once(actor: Real) -> None:
    ahead, behind = reporter(actor), reporter(actor, leads=False)
    began(ahead, behind)
    say(ahead, 0, 1, 2)
    say(behind, 0, 1)
    behind.take(ahead.journal())
    behind.enter(2, leads=True)
    say(behind, 3)
    assert behind.settle()
    assert actor.steps() == [0, 1, 2, 3]


def test_from_a_checkpoint_the_later_steps_are_taken_again(actor: Real) -> None:
    leader = reporter(actor)
    began(leader)
    say(leader, 0, 1, 2, 3)
    leader.settle()
    leader.restart(5)  # all were lost; the generation's number
    leader.began(2, 100, 10)
    leader.enter(5, leads=True)
    say(leader, 2, 3, 4)
    assert leader.settle()
    assert actor.steps() == [0, 1, 2, 3, 4]
    assert any("2 steps are done again" in m for m in actor.recorder._messages)
