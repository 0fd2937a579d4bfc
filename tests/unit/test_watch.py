"""What signs of life mean: each verdict at its limit, and paces."""

from __future__ import annotations

import pytest

from headway.core.pace import Pace
from headway.core.watch import LONE_PATIENCE, START_SILENCE_S, STOPPED_PATIENCE, Sign, verdict

SILENCE, HANG = 2.0, 100.0


def judged(
    silent_s: float = 0.0,
    answers: bool = True,
    still_s: float = 0.0,
    waiting: bool = False,
    member: bool = True,
    others_wait: bool = True,
    alone: bool = False,
) -> str | None:
    return verdict(Sign(silent_s, answers, still_s, waiting, member), others_wait, alone, SILENCE, HANG)


def test_one_that_is_heard_is_well() -> None:
    assert judged() is None
    assert judged(silent_s=SILENCE, answers=False) is None


def test_silence_while_the_machine_does_not_answer_is_a_cut_link() -> None:
    assert judged(silent_s=SILENCE + 0.01, answers=False) == "link_cut"
    assert judged(silent_s=SILENCE + 0.01, answers=True) is None, "it may be about to go on"


def test_silence_while_the_machine_answers_is_a_stopped_process() -> None:
    assert judged(silent_s=STOPPED_PATIENCE * SILENCE) is None
    assert judged(silent_s=STOPPED_PATIENCE * SILENCE + 0.01) == "stopped"


def test_a_thread_that_keeps_the_others_waiting_hangs() -> None:
    assert judged(still_s=HANG) is None
    assert judged(still_s=HANG + 1) == "hung"
    assert judged(still_s=HANG + 1, waiting=True) is None, "it waits itself"
    assert judged(still_s=HANG + 1, others_wait=False) is None, "all are at work: their lanes may be long"


def test_nobody_waits_for_one_that_is_alone() -> None:
    assert judged(still_s=LONE_PATIENCE * HANG, others_wait=False, alone=True) is None
    assert judged(still_s=LONE_PATIENCE * HANG + 1, others_wait=False, alone=True) == "hung"


def test_one_that_warms_up_is_given_time() -> None:
    for silent_s in (SILENCE + 1, START_SILENCE_S):
        assert judged(silent_s=silent_s, answers=False, still_s=silent_s, member=False) is None
    assert judged(silent_s=START_SILENCE_S + 1, member=False) == "start_failed"
    assert judged(silent_s=0.1, still_s=1e6, member=False) is None, "imports, downloads: it says that it lives"


EVEN = {"w0": 0.100, "w1": 0.102, "w2": 0.098, "w3": 0.101}


def test_a_slow_worker_is_named_after_several_looks_and_once() -> None:
    pace = Pace(looks=3)
    slow = {**EVEN, "w2": 0.25}
    found = [pace.look(slow) for _ in range(5)]
    assert found[:2] == [{}, {}]
    assert found[2] == {"w2": pytest.approx(2.5, abs=0.1)}
    assert found[3:] == [{}, {}]


def test_it_is_told_when_it_has_caught_up() -> None:
    pace = Pace(looks=1)
    assert pace.look({**EVEN, "w2": 0.3})
    assert pace.look(EVEN) == {"w2": 1.0}
    assert pace.look(EVEN) == {}


def test_a_hiccup_is_no_pace() -> None:
    pace = Pace(looks=3)
    for _ in range(10):
        assert pace.look({**EVEN, "w1": 0.9}) == {}
        assert pace.look({**EVEN, "w1": 0.9}) == {}
        assert pace.look(EVEN) == {}


def test_of_two_the_faster_is_the_measure() -> None:
    assert Pace(looks=1).look({"w0": 0.1, "w1": 0.3}) == {"w1": 3.0}


def test_even_workers_are_not_told_apart_by_noise() -> None:
    """Five deviations of almost nothing are nothing: the margin counts."""
    assert Pace(looks=1).look({"w0": 0.1000, "w1": 0.1000, "w2": 0.1000, "w3": 0.1400}) == {}


def test_where_all_differ_nobody_is_slow() -> None:
    assert Pace(looks=1).look({"w0": 0.1, "w1": 0.2, "w2": 0.3, "w3": 0.4, "w4": 0.5}) == {}


def test_alone_nobody_is_slow_and_who_went_is_forgotten() -> None:
    pace = Pace(looks=2)
    assert pace.look({"w0": 5.0}) == {}
    for _ in range(2):
        pace.look({**EVEN, "w2": 0.3})
    pace.look({name: s for name, s in EVEN.items() if name != "w2"})
    assert pace.look(EVEN) == {}, "a new worker of that name would not be told that it has caught up"
