"""Records reach the recorder in order, once, whoever leads, and before the checkpoint that follows them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.elastic.lead.recorder import Recorder
from headway.elastic.worker import journal as journals
from headway.elastic.worker.journal import DriverLost, Journal
from headway.runs import RunFolder


class Actor:
    """Stands for the recorder's actor handle: `push.remote` answers at once with what `ray.get` would give."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.leader = "w0"
        self.gone: BaseException | None = None
        self.push = self

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        if self.gone is not None:
            raise self.gone
        current = worker == self.leader
        self.got += [r for r in records if r["kind"] != "sync"] if current else []
        step = max((r["step"] + 1 for r in self.got if r["kind"] == "step"), default=-1)
        return {
            "stop": False, "current": current, "accepted": True, "start": 1, "step": step, "taken": 0, "written": 0,
            "error": "",
        }  # fmt: skip


@pytest.fixture(autouse=True)
def _ray_get(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)


def journal(recorder: Any, leads: bool = True, worker: str = "w0") -> Journal:
    """In a generation; its thread is not started, so that nothing is sent but by `settle`."""
    made = Journal(recorder, worker)
    made._begin = lambda: None  # type: ignore[method-assign]
    made.restart(1)
    made.enter(leads)
    return made


def say(to: Journal, *steps: int) -> None:
    for step in steps:
        to.step(step, 0, 1.0, 0.1, 8, "00")


def test_a_checkpoint_settles_the_records_before_it() -> None:
    recorder = Actor()
    leader = journal(recorder)
    say(leader, 0, 1, 2)
    assert recorder.got == []
    assert leader.settle()
    assert [r["step"] for r in recorder.got] == [0, 1, 2]
    assert leader.settle()
    assert len(recorder.got) == 3, "what was taken is not sent again"


def test_a_leader_that_was_replaced_may_not_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.elastic.worker.journal.SETTLE_S", 0.3)
    recorder = Actor()
    leader = journal(recorder)
    recorder.leader = "w1"
    leader.note("something")
    assert not leader.settle()
    assert len(leader._own) == 1, "what it alone knows is kept, should it lead after all"


def test_a_lost_driver_stops_the_worker() -> None:
    import ray

    recorder = Actor()
    leader = journal(recorder)
    recorder.gone = ray.exceptions.RayActorError()
    assert not leader.settle()
    with pytest.raises(DriverLost):
        _ = leader.stop_requested


def test_only_the_leader_speaks_for_all() -> None:
    recorder = Actor()
    follower = journal(recorder, leads=False)
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
        self.push, self.worker = self, ""
        self.loses_answers = False

    def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
        import ray

        answer = self.recorder.push(worker, records)
        if self.loses_answers:
            raise ray.exceptions.GetTimeoutError
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


def began(*several: Journal) -> None:
    for each in several:
        each.restart(1)
        each.began(0, 100, 10)


def lead(actor: Real, leader: Journal) -> None:
    """A new generation begins, which this worker leads."""
    actor.recorder.event({"kind": "generation", "members": [leader._worker], "workers": 1, "step": 0, "time": 0.0})
    leader.enter(leads=True)


def test_the_next_leader_sends_what_the_dead_one_kept(actor: Real) -> None:
    first, second = journal(actor), journal(actor, leads=False, worker="w1")
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
    first, second = journal(actor), journal(actor, leads=False, worker="w1")
    began(first, second)
    for each in (first, second):
        say(each, 0, 1, 2)
    actor.loses_answers = True
    assert not first.settle(0.0)
    actor.loses_answers = False
    lead(actor, second)
    assert second.settle()
    assert actor.steps() == [0, 1, 2]


def test_a_leader_of_the_past_is_not_heard(actor: Real) -> None:
    first, second = journal(actor), journal(actor, leads=False, worker="w1")
    began(first, second)
    lead(actor, second)
    say(second, 0)
    assert second.settle()
    say(first, 0, 1)
    assert not first.settle(0.0)
    assert actor.steps() == [0]


def test_one_that_joined_can_lead(actor: Real) -> None:
    """It has the journal of the worker whose state it took; it commits and dies, and the joiner is all that is left."""
    first = journal(actor)
    began(first)
    say(first, 0, 1)
    first.settle()
    say(first, 2, 3)
    joiner = Journal(actor, "w1")
    joiner._begin = lambda: None  # type: ignore[method-assign]
    joiner.take(first.journal())
    joiner.enter(leads=False)
    say(joiner, 4)
    lead(actor, joiner)
    assert joiner.settle()
    assert actor.steps() == [0, 1, 2, 3, 4]


def test_who_is_behind_takes_the_journal_once(actor: Real) -> None:
    ahead, behind = journal(actor), journal(actor, leads=False, worker="w1")
    began(ahead, behind)
    say(ahead, 0, 1, 2)
    say(behind, 0, 1)
    behind.take(ahead.journal())
    lead(actor, behind)
    say(behind, 3)
    assert behind.settle()
    assert actor.steps() == [0, 1, 2, 3]


def test_from_a_checkpoint_the_later_steps_are_taken_again(actor: Real) -> None:
    leader = journal(actor)
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


# -- 2.10: places made of content ------------------------------------------------------------------------------------


def test_2_10_what_only_the_leader_records_is_kept_and_shifts_nobody(actor: Real) -> None:
    """`if session.rank == 0: session.record(...)` in 40 steps, led by one worker and then by another."""
    first, second = journal(actor), journal(actor, leads=False, worker="w1")
    began(first, second)
    for step in range(40):
        leader = first if step < 20 else second
        if step == 20:
            assert first.settle()
            lead(actor, second)
        leader.metrics(step, {"mine": float(step)})
        for each in (first, second):
            each.metrics(step, {"all": 1.0}) if step % 10 == 0 else None
            say(each, step)
    for each in (first, second):
        each.ended(40, "ab")
    assert second.settle()
    assert actor.steps() == list(range(40))
    found = {e["step"]: e["values"] for e in actor.run.evaluations()}
    assert {step: values["mine"] for step, values in found.items()} == {step: float(step) for step in range(40)}
    assert [step for step, values in found.items() if "all" in values] == [0, 10, 20, 30]
    assert actor.run.read()["weights_sha256"] == "ab"


def test_2_10_an_end_is_never_taken_for_an_old_entry(actor: Real) -> None:
    """The leader said more than the next one ever will; then it dies, and the next one ends the run."""
    first, second = journal(actor), journal(actor, leads=False, worker="w1")
    began(first, second)
    for n in range(100):
        first.metrics(0, {"mine": float(n)})
    assert first.settle()
    say(second, 0)
    second.ended(1, "cd")
    lead(actor, second)
    assert second.settle()
    assert actor.steps() == [0]
    assert actor.run.read()["steps"] == 1


def test_2_10_several_records_of_one_name_in_a_step_are_several_entries(actor: Real) -> None:
    only = journal(actor)
    began(only)
    for value in (1.0, 2.0, 3.0):
        only.metrics(0, {"x": value})
    assert only.settle()
    actor.steps()
    lines = (actor.run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["values"]["x"] for line in lines] == [1.0, 2.0, 3.0]


# -- 2.6: bounded, and only what is missing --------------------------------------------------------------------------


def test_2_6_a_new_leader_sends_only_what_is_missing() -> None:
    recorder = Actor()
    first, second = journal(recorder), journal(recorder, leads=False, worker="w1")
    for each in (first, second):
        each.began(0, 10_000, 10)
        say(each, *range(3000))
    assert first.settle()
    say(second, 3000)
    assert len(recorder.got) == 3001
    recorder.leader = "w1"
    second.enter(leads=True)
    assert second.settle()
    assert [r["step"] for r in recorder.got[3001:]] == [3000]


def test_2_6_pushes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    recorder = Actor()
    real = Actor.remote
    monkeypatch.setattr(Actor, "remote", lambda self, w, records: sizes.append(len(records)) or real(self, w, records))
    leader = journal(recorder)
    say(leader, *range(4500))
    assert leader.settle()
    assert len(recorder.got) == 4500
    assert max(sizes) <= journals.BATCH + 2
    assert len(leader._entries) == 0, "what the recorder has is let go"


def test_2_6_what_is_dropped_is_counted_and_told(monkeypatch: pytest.MonkeyPatch, actor: Real) -> None:
    monkeypatch.setattr(journals, "ENTRIES", 100)
    leader = journal(actor)
    began(leader)
    for n in range(150):
        leader.metrics(0, {"x": float(n)})
    assert leader.settle()
    actor.steps()
    assert actor.run.read()["records_dropped"] == 51
    assert any("51 records were dropped" in m for m in actor.recorder._messages)


# -- 2.5: only an actor's death is a lost driver ---------------------------------------------------------------------


def exceptions() -> list[BaseException]:
    from ray import exceptions

    unavailable = exceptions.ActorUnavailableError("away", None)
    return [exceptions.GetTimeoutError(), ValueError("of the recorder's"), OSError(28, "full"), unavailable]


@pytest.mark.parametrize("trouble", exceptions(), ids=lambda e: type(e).__name__)
def test_2_5_a_recorder_in_trouble_is_asked_again(trouble: BaseException) -> None:
    recorder = Actor()
    leader = journal(recorder)
    say(leader, 0, 1)
    recorder.gone = trouble
    assert not leader.settle(0.3)
    assert leader.stop_requested is False, "the driver is not lost"
    recorder.gone = None
    assert leader.settle()
    assert [r["step"] for r in recorder.got if r["kind"] == "step"] == [0, 1]


# -- 2.18: one that leaves may finish what it began ------------------------------------------------------------------


def test_2_18_a_worker_that_leaves_may_commit_what_the_next_leader_knows_of(actor: Real) -> None:
    first, second = journal(actor), journal(actor, leads=False, worker="w1")
    began(first, second)
    for each in (first, second):
        say(each, 0, 1, 2)
    lead(actor, second)
    assert second.settle()
    assert first.allows(3), "though nobody has told it yet that it does not lead any more"


def test_2_18_one_whose_start_is_over_may_not(actor: Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "SETTLE_S", 0.3)
    first, second = journal(actor), journal(actor, leads=False, worker="w1")
    began(first, second)
    say(first, 0, 1, 2)
    first.settle()
    first.enter(leads=False)
    lead(actor, second)
    second.restart(5)
    second.began(0, 100, 10)
    assert second.settle()
    assert not first.allows(3)


@pytest.mark.parametrize("behind", [{"accepted": False}, {"taken": 9, "written": 8}])
def test_2_5_a_leader_waits_for_a_driver_that_is_only_slow(
    monkeypatch: pytest.MonkeyPatch, behind: dict[str, Any]
) -> None:
    """It gave the checkpoint up after SETTLE_S, the run's last one too, which then ended as if it were there."""
    monkeypatch.setattr(journals, "SETTLE_S", 0.3)
    begun = time.monotonic()

    class Slow(Actor):
        def remote(self, worker: str, records: list[dict[str, Any]]) -> dict[str, Any]:
            answer = super().remote(worker, records)
            return {**answer, **behind} if time.monotonic() - begun < 1.0 else {**answer, "written": 9}

    leader = journal(Slow())
    say(leader, 0, 1, 2)
    assert leader.allows(3)
    assert time.monotonic() - begun >= 1.0


def test_whoever_warns_is_heard_and_the_rest_of_what_it_says_is_not_sent() -> None:
    recorder = Actor()
    other = journal(recorder, leads=False, worker="w1")
    say(other, 0, 1)
    other.note("for the leader to say")
    other.warned("UserWarning: careful")
    sent: list[Any] = []
    recorder.remote = lambda worker, records: sent.append((worker, records)) or Actor.remote(recorder, worker, records)  # type: ignore[method-assign, func-returns-value]
    assert other._urgent()
    other._send()
    ((worker, records),) = sent
    assert worker == "w1"
    assert [(r["kind"], r["worker"], r["text"]) for r in records] == [("warned", "w1", "UserWarning: careful")]
    assert not other._urgent(), "once"
