"""When people are told of a run: once, and once more when it is over."""

from __future__ import annotations

import pytest

from headway.core.alarms import BUDGET, KINDS, STALLED, STORM, Alarms, Limits, Seen, Word, ended

LIMITS = Limits(stalled_s=100.0, storm=3, storm_s=600.0)


class Run:
    """A run that is looked at every second."""

    def __init__(self, limits: Limits = LIMITS, first: Seen | None = None) -> None:
        self.at, self.seen = 0.0, first or Seen(total_steps=1000)
        self.alarms = Alarms(limits, self.at, self.seen)

    def on(self, seconds: float, seen: Seen | None = None, every_s: float = 1.0) -> list[Word]:
        """So much time passes; what is seen changes at its end."""
        words: list[Word] = []
        for _ in range(int(seconds / every_s)):
            self.at += every_s
            words += self.alarms.look(self.at, self.seen)
        if seen is not None:
            self.seen = seen
            words += self.alarms.look(self.at, seen)
        return words

    def step(self, number: int, seconds: float = 0.1) -> list[Word]:
        self.at += seconds
        self.seen = Seen(number, 1000, done=number)
        return self.alarms.look(self.at, self.seen)


def kinds(words: list[Word]) -> list[tuple[str, bool]]:
    return [(word.kind, word.over) for word in words]


def test_a_run_that_gets_on_is_of_no_concern() -> None:
    run = Run()
    assert [word for step in range(1, 900) for word in run.step(step, 30.0 if step % 7 == 0 else 1.0)] == []


def test_a_stall_is_told_once_and_once_more_when_it_is_over() -> None:
    run = Run()
    run.step(1)
    assert run.on(99) == []
    (word,) = run.on(500)
    assert (word.kind, word.over) == (STALLED, False)
    assert word.text in ("no step for 100 s (step 1 of 1000)", "no step for 2 min (step 1 of 1000)")
    (over,) = run.step(2)
    assert (over.kind, over.over) == (STALLED, True)
    assert "goes on after 10 min" in over.text
    assert kinds(run.on(300)) == [(STALLED, False)], "the next one is told again"


def test_why_it_waits_is_said() -> None:
    run = Run(first=Seen(total_steps=9, waits="for workers: 1 of 2 is ready"))
    (word,) = run.on(101)
    assert word.text.endswith("it waits: for workers: 1 of 2 is ready")


def test_an_evaluation_is_something_done() -> None:
    run = Run()
    run.step(1)
    assert run.on(90, Seen(1, 1000, done=2)) == []
    assert run.on(99) == []
    assert kinds(run.on(2)) == [(STALLED, False)]


def test_steps_that_are_slow_anyway_are_no_stall() -> None:
    run = Run()
    for number in range(1, 10):
        assert run.on(60) == []
        run.step(number, 0.0)
    assert run.on(4.9 * 60) == [], "five times as long as a step usually is"
    assert kinds(run.on(60)) == [(STALLED, False)]


def test_who_did_not_look_for_long_knows_of_no_stall() -> None:
    run = Run()
    run.step(1)
    run.at += 3600  # the recorder's own process stood still, and the workers' with it
    assert run.alarms.look(run.at, run.seen) == []
    assert run.on(99) == []
    assert kinds(run.on(2)) == [(STALLED, False)]


def test_a_storm_of_losses() -> None:
    run = Run(Limits(stalled_s=1e9, storm=3))
    assert run.on(10, Seen(losses=1)) == []
    assert run.on(200, Seen(losses=2)) == []
    (word,) = run.on(200, Seen(losses=3))
    assert (word.kind, word.over, word.text) == (STORM, False, "3 losses of workers within 10 min")
    assert run.on(100, Seen(losses=4)) == [], "told once"
    assert run.on(599) == []
    assert kinds(run.on(3)) == [(STORM, True)]
    assert run.on(5000, Seen(losses=6)) == [], "two are none"


def test_losses_that_are_far_apart_are_no_storm() -> None:
    run = Run(Limits(stalled_s=1e9, storm=3))
    assert [word for loss in range(1, 20) for word in run.on(301, Seen(losses=loss))] == []


def test_losses_of_before_were_told_before() -> None:
    run = Run(Limits(stalled_s=1e9, storm=3), Seen(losses=7))
    assert run.on(1000) == []
    assert run.on(1, Seen(losses=9)) == []
    assert kinds(run.on(1, Seen(losses=10))) == [(STORM, False)]


def test_a_budget_is_told_twice() -> None:
    run = Run(Limits(stalled_s=1e9))
    assert run.on(1, Seen(used=0.89)) == []
    (word,) = run.on(1, Seen(used=0.93))
    assert (word.kind, word.text) == (BUDGET, "93% of its budget is spent")
    assert run.on(1, Seen(used=0.99)) == []
    (word,) = run.on(1, Seen(used=1.2))
    assert word.text == "its budget is spent"
    assert run.on(100, Seen(used=3.0)) == []
    assert Run(first=Seen(used=0.95)).on(5) == [], "of a run that is resumed it was told before"
    assert Run().on(5) == [], "it has none"


@pytest.mark.parametrize(
    ("state", "message", "kind", "text"),
    [
        ("finished", "", "finished", "finished (step 7 of 9)"),
        ("failed", "the task raised X", "failed", "failed: the task raised X (step 7 of 9)"),
        ("stopped", "stopped by me after step 7", "stopped", "stopped: stopped by me after step 7"),
        ("interrupted", "ended by a signal after step 7", "stopped", "interrupted: ended by a signal after step 7"),
    ],
)
def test_each_end_is_told(state: str, message: str, kind: str, text: str) -> None:
    (word,) = ended(state, message, Seen(7, 9))
    assert (word.kind, word.text, word.over) == (kind, text, False)
    assert kind in KINDS


def test_what_is_no_end_is_not() -> None:
    assert ended("running", "", Seen()) == []
