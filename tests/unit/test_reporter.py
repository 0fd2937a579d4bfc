"""Records reach the recorder in order, once, whoever leads, and before the checkpoint that follows them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker.journal import DriverLost, Reporter
from headway.runs import RunFolder


class Actor:
    """Stands for the recorder's actor handle: `push.remote` answers at once with what `ray.get` would give."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.leader = "w0"
        self.gone = self.deaf = False
        self.push = self

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        import ray

        if self.gone:
            raise ray.exceptions.RayActorError()
        self.got += records
        places = [tuple(r["place"]) for r in records if "place" in r]
        self.next = (places[-1][0], places[-1][1] + 1) if places else getattr(self, "next", (0, 0))
        return {"stop": False, "current": worker == self.leader, "next": self.next}


@pytest.fixture(autouse=True)
def _ray_get(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)


def reporter(recorder: Any, leads: bool = True, worker: str = "w0") -> Reporter:
    """In a generation; its thread is not started, so that nothing is sent but by `settle`."""
    made = Reporter(recorder, worker)
    made._thread.start = lambda: None  # type: ignore[method-assign]
    made.restart(1)
    made.enter(leads)
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


def test_a_leader_that_was_replaced_may_not_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.elastic.worker.journal.SETTLE_S", 0.3)
    recorder = Actor()
    leader = reporter(recorder)
    recorder.leader = "w1"
    leader.note("something")
    assert not leader.settle()
    assert len(leader._own) == 1, "what it alone knows is kept, should it lead after all"


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


# With the real recorder: each entry is taken once, whoever sends it


class Real:
    """A recorder in this process, behind an actor's handle."""

    def __init__(self, folder: Path) -> None:
        self.run = RunFolder(folder)
        self.run.write({"name": "run"})
        self.recorder = Recorder(str(folder), None, {}, 10)
        self.push = self
        self.loses_answers = False

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        import ray

        answer = self.recorder.push(worker, records)
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


def lead(actor: Real, reporter: Reporter) -> None:
    """A new generation begins, which this worker leads."""
    actor.recorder.event({"kind": "generation", "members": [reporter._worker], "workers": 1, "step": 0, "time": 0.0})
    reporter.enter(leads=True)


def test_the_next_leader_sends_what_the_dead_one_kept(actor: Real) -> None:
    first, second = reporter(actor), reporter(actor, leads=False, worker="w1")
    began(first, second)
    say(first, 0, 1, 2)
    say(second, 0, 1, 2)
    first.settle()
    say(second, 3, 4)  # the first commits step 3 and 4 as well, and dies before it has said so
    lead(actor, second)
    say(second, 5)
    assert second.settle()
    assert actor.steps() == [0, 1, 2, 3, 4, 5]


def test_what_was_taken_before_the_answer_was_lost_is_not_taken_twice(actor: Real) -> None:
    first, second = reporter(actor), reporter(actor, leads=False, worker="w1")
    began(first, second)
    for each in (first, second):
        say(each, 0, 1, 2)
    actor.loses_answers = True
    assert not first.settle()
    actor.loses_answers = False
    lead(actor, second)
    assert second.settle()
    assert actor.steps() == [0, 1, 2]


def test_a_leader_of_the_past_is_not_heard(actor: Real) -> None:
    first, second = reporter(actor), reporter(actor, leads=False, worker="w1")
    began(first, second)
    lead(actor, second)
    say(second, 0)
    assert second.settle()
    say(first, 0, 1)
    first._leads = False
    assert not first.settle()
    assert actor.steps() == [0]


def test_one_that_joined_can_lead(actor: Real) -> None:
    """It has the journal of the worker whose state it took; it commits and dies, and the joiner is all that is left."""
    first = reporter(actor)
    began(first)
    say(first, 0, 1)
    first.settle()
    say(first, 2, 3)
    joiner = Reporter(actor, "w1")
    joiner._thread.start = lambda: None  # type: ignore[method-assign]
    joiner.take(first.journal())
    joiner.enter(leads=False)
    say(joiner, 4)
    lead(actor, joiner)
    assert joiner.settle()
    assert actor.steps() == [0, 1, 2, 3, 4]


def test_who_is_behind_takes_the_journal_once(actor: Real) -> None:
    ahead, behind = reporter(actor), reporter(actor, leads=False, worker="w1")
    began(ahead, behind)
    say(ahead, 0, 1, 2)
    say(behind, 0, 1)
    behind.take(ahead.journal())
    lead(actor, behind)
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
    leader.enter(leads=True)
    say(leader, 2, 3, 4)
    assert leader.settle()
    assert actor.steps() == [0, 1, 2, 3, 4]
    assert any("2 steps are done again" in m for m in actor.recorder._messages)
