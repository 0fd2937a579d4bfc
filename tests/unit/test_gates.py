"""A run that stands at gates: it goes on, gives its workers away and comes back, and ends as if it had never stood.

Whole runs without Ray, as in test_elastic_run.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.unit.test_elastic_run import STEPS, Calm, check, job, train

from headway.checkpoint.store import committed
from headway.core.gate import Gate, Word
from headway.elastic.wire import keepers
from headway.elastic.worker import engine, keeper, keeping
from headway.elastic.worker.engine import Engine
from headway.elastic.worker.replica import Outcome
from headway.runs import RunFolder
from headway.testing.elastic import Run, keeper_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows: 4 full steps per epoch, with an evaluation after each."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calm]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Calm(data, tmp_path_factory.mktemp("calm"))
    torch.set_num_threads(threads)


def told(run: Run) -> list[tuple[int, bool]]:
    return [(said.step, said.stands) for said in run.evaluations]


# What a worker does at a step


def test_the_words_of_a_gate() -> None:
    gate = Gate()
    assert gate.word(5, 1, 2, False) is Word.PASS  # there is none
    gate = Gate(8)
    assert gate.word(7, 1, 1, False) is Word.PASS
    assert gate.word(7, 1, 2, False) is Word.PASS  # as without a gate: all agree to it in an exchange
    assert gate.word(8, 1, 1, False) is Word.WAIT
    assert gate.word(8, 1, 2, False) is Word.REGROUP
    gate.moved(16, 1)
    assert gate.word(8, 1, 2, False) is Word.PASS  # the others may have gone on before they heard of it
    assert gate.word(8, 1, 2, True) is Word.REGROUP
    gate.leaving("paused", 2)
    assert gate.word(8, 1, 2, False) is Word.PASS
    assert gate.word(16, 1, 2, False) is Word.REGROUP
    assert gate.word(16, 2, 3, False) is Word.LEAVE


MESSAGES = ("until", "publish", "leave")


@pytest.mark.parametrize("said", sorted({*itertools.permutations(("until", "publish", "publish", "leave"))}))
def test_workers_that_have_heard_more_do_as_those_that_have_heard_less(said: tuple[str, ...]) -> None:
    """Each acts as soon as it knows what to do, on whatever part of the lead's words it has heard by then: what it does
    is the same. A generation that is entered is known to all of its members."""

    def first_word(heard: int, entered: int) -> tuple[Word, int]:
        """What one does that has heard so much as it comes to the gate, and hears on until it knows."""
        gate, newest = Gate(8), 1
        for number, message in enumerate([*said, "until"]):
            if message == "until":
                gate.moved(gate.until + 8, newest)
            elif message == "publish":
                newest += 1
            elif "until" in said[said.index("leave") :]:
                pass  # nobody says so after it
            else:
                gate.leaving("paused", newest)
            if number + 1 >= heard:
                word = gate.word(8, entered, newest, False)
                if word is not Word.WAIT:
                    return word, newest
        raise AssertionError("the gate was moved, and it still waits")

    for entered in (1, 2, 3):
        words = {heard: first_word(heard, entered)[0] for heard in range(len(said) + 2)}
        waits_for = said.index("publish") + 1 if entered > 1 else 0  # whoever is in it has heard of it
        assert len({word for heard, word in words.items() if heard >= waits_for}) == 1, (said, entered, words)


# Whole runs


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_that_stands_at_gates_ends_as_if_it_had_not(workers: int, tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, places=workers, until=8) as run:
        run.wait_until(lambda: run.stands(8))
        assert run.step == 8
        run.coordinator.go_on(16)
        run.wait_until(lambda: run.stands(16))
        assert run.step == 16
        run.coordinator.go_on(40)
        outcome = run.result()
    check(outcome, calm)
    assert told(run) == [(4, False), (8, True), (12, False), (16, True), (20, False), (24, True)]
    values = {step: values for step, values in calm.values if "value" in values}
    assert {said.step: {n: float(v) for n, v in said.values.items()} for said in run.evaluations} == values
    assert not outcome.of("lost")


@pytest.mark.parametrize("workers", [1, 3])
def test_one_that_left_at_its_gate_goes_on_where_it_was(workers: int, tmp_path: Path, data: Path, calm: Calm) -> None:
    folder = tmp_path / "run"
    with Run(folder, job(data), train, places=workers, until=8) as run:
        run.wait_until(lambda: run.stands(8))
        run.coordinator.leave("paused")
        outcome = run.result()
    assert outcome.failure is None
    assert {result["step"] for result in outcome.results.values()} == {8}
    assert [each.step for each in committed(folder / "checkpoints")][-1] == 8
    with Run(folder, job(data), train, until=16) as run:
        run.wait_until(lambda: run.stands(16))
        run.coordinator.go_on(STEPS)
        outcome = run.result()
    check(outcome, calm)
    assert told(run) == [(12, False), (16, True), (20, False), (24, True)]


def one_machine(worker: str) -> str:
    return "m0"


def patient(worker: str) -> None:
    """A keeper is had before long, however busy this machine is; where it is not, a run goes on from its checkpoint."""
    keeping.READY_S = 60.0


def test_one_that_was_paused_goes_on_from_memory_and_one_that_is_over_leaves_nothing_there(
    tmp_path: Path, data: Path, calm: Calm
) -> None:
    folder = tmp_path / "run"
    rarely = {"checkpoint": {"every_steps": 1000, "memory_every": 1000}}
    more = {"machines": one_machine, "shelf": "s.0001", "setup": patient}
    config = {**keeper_of(folder), "machine": "m0", "folder": str(keeper.folder())}
    path = keeper.socket_path(config)

    def kept() -> list[int]:
        with contextlib.closing(keepers.call(path, config["token"], run="s.0001")) as words:
            keepers.send(words.connection, {"op": "list"})
            return [int(about["step"]) for about in words.next()["states"]]

    try:
        with Run(folder, job(data, **rarely), train, until=8, **more) as run:
            run.wait_until(lambda: run.stands(8))
            run.coordinator.leave("paused")
            run.result()
        assert kept()[0] == 8
        with Run(folder, job(data, **rarely), train, until=STEPS, **more) as run:
            check(run.result(), calm)
        assert RunFolder(folder).read()["origin"][0], "it went on from what a keeper held"
        assert not [event for event in RunFolder(folder).events() if event["kind"] == "restart"], "which is no news"
        assert kept() == []
    finally:
        keepers.end(path, config["token"])


def test_a_state_that_was_kept_at_its_end_is_not_over_before_anybody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told to leave just then: begun once more with a rule of more patience, it goes on."""
    words: Any = SimpleNamespace
    replica = words(step=8, outcome=Outcome(), torn=False, whole=True)
    replica.take = lambda given: setattr(replica, "outcome", Outcome(metrics={"loss": 1.0}, **given))
    kept = words(tree={"given": {"stopping": True, "early": True, "finished": "so"}}, about={"made": ""}, journal=dict)
    journal = words(records=lambda: {"start": 1}, note=print, find=lambda *_: None)
    monkeypatch.setattr(engine, "nearest", lambda *_: kept)
    context = words(keeping=object(), journal=journal)
    me = words(context=context, replica=replica, saver=words(newest_step=lambda: 4), total_steps=20)
    assert Engine._take_kept(me) == 4
    assert replica.outcome == Outcome(metrics={"loss": 1.0})


def test_one_that_begins_at_its_gate_stands_there_with_what_it_knew(tmp_path: Path, data: Path, calm: Calm) -> None:
    folder = tmp_path / "run"
    with Run(folder, job(data), train, until=8) as run:
        run.wait_until(lambda: run.stands(8))
        before = run.evaluations[-1]
        run.coordinator.leave("paused")
        run.result()
    with Run(folder, job(data), train, until=8) as run:
        run.wait_until(lambda: run.stands(8))
        assert run.evaluations == [before]
        run.coordinator.go_on(STEPS)
        check(run.result(), calm)


def test_all_leave_after_the_step_that_is_under_way(tmp_path: Path, data: Path, calm: Calm) -> None:
    folder = tmp_path / "run"
    with Run(folder, job(data), train, 0.02, until=STEPS) as run:
        run.wait_until(lambda: run.step >= 5)
        run.coordinator.leave("paused")
        outcome = run.result()
    assert outcome.failure is None
    (step,) = {result["step"] for result in outcome.results.values()}
    assert 5 <= step < STEPS
    assert [each.step for each in committed(folder / "checkpoints")][-1] == step
    assert not any(said.stands for said in run.evaluations if said.step != step)
    with Run(folder, job(data), train, until=STEPS) as run:
        check(run.result(), calm)


def test_one_joins_at_the_gate(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, places=2, until=8) as run:
        run.wait_until(lambda: run.stands(8))
        run.places(1)
        run.wait_until(lambda: len(run.members) == 3)
        run.coordinator.go_on(12)
        run.wait_until(lambda: run.stands(12))
        assert len(run.members) == 3
        run.coordinator.go_on(STEPS)
        outcome = run.result()
    check(outcome, calm)
    assert not outcome.of("lost")
    assert len(outcome.results) == 3


def test_others_leave_where_one_has_joined_at_the_gate(tmp_path: Path, data: Path, calm: Calm) -> None:
    folder = tmp_path / "run"
    with Run(folder, job(data), train, places=2, until=8) as run:
        run.wait_until(lambda: run.stands(8))
        run.places(1)
        run.wait_until(lambda: len(run.members) == 3)
        run.coordinator.leave("paused")
        outcome = run.result()
    assert outcome.failure is None
    assert {result["step"] for result in outcome.results.values()} == {8}
    with Run(folder, job(data), train, until=STEPS) as run:
        check(run.result(), calm)


@pytest.mark.parametrize("victims", [[0], [1], [0, 1]])
def test_whoever_dies_at_the_gate_changes_nothing(victims: list[int], tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, until=8) as run:
        run.wait_until(lambda: run.stands(8) and len(run.members) == 3)
        names = [run.members[number] for number in victims]
        for name in names:
            run.kill(name)
        run.wait_until(lambda: bool(run.members) and not set(names) & set(run.members))
        run.coordinator.go_on(16)
        run.wait_until(lambda: run.stands(16))
        run.coordinator.go_on(STEPS)
        outcome = run.result()
    check(outcome, calm)
    assert [step for step, _ in dict.fromkeys(told(run))] == [4, 8, 12, 16, 20, 24]


def test_where_all_die_at_the_gate_they_stand_there_again(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, until=8) as run:
        run.wait_until(lambda: run.stands(8) and len(run.members) == 3)
        names = set(run.members)
        for name in names:
            run.kill(name)
        run.wait_until(lambda: bool(run.members) and not names & set(run.members))
        run.coordinator.go_on(STEPS)
        outcome = run.result()
    check(outcome, calm)


def test_another_size_at_the_gate(tmp_path: Path, data: Path, calm: Calm) -> None:
    with Run(tmp_path / "run", job(data), train, until=8) as run:
        run.wait_until(lambda: run.stands(8) and len(run.members) == 3)
        run.resize(1, 1)
        run.wait_until(lambda: len(run.members) == 1)
        run.coordinator.go_on(12)
        run.wait_until(lambda: run.stands(12))
        run.resize(1, 3)
        run.wait_until(lambda: len(run.members) == 3)
        run.coordinator.go_on(STEPS)
        outcome = run.result()
    check(outcome, calm)
    assert not outcome.of("lost")


def test_who_stands_is_not_held_for_one_that_hangs_and_its_seconds_are_idle(tmp_path: Path, data: Path) -> None:
    made = job(data, workers={"hang_s": 1.1, "silence_s": 0.5})
    with Run(tmp_path / "run", made, train, until=8) as run:
        run.wait_until(lambda: run.stands(8) and len(run.members) == 3)
        before, members = run.coordinator.account()["idle"], list(run.members)
        run.wait_until(lambda: run.coordinator.account()["idle"] > before + 7.5)  # three of them, each 2.5 s
        assert run.members == members
        run.coordinator.go_on(STEPS)
        assert run.result().failure is None
