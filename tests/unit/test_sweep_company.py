"""The runs of a sweep on its crew, and what they have in common."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sweep_driving import _job

from headway.core.prefix import Course
from headway.core.schedules import Shape
from headway.storage.protocol import OutOfReach
from headway.sweeps import following
from headway.sweeps.company import Company, Run
from headway.sweeps.crew import Left, Leg, Passed
from headway.sweeps.following import Following


class Crew:
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def begin(self, leg: Leg) -> None:
        self.asked.append(("begin", leg.run, leg.until))

    def go_on(self, run: str, until: int) -> None:
        self.asked.append(("go_on", run, until))

    def leave(self, run: str, why: str) -> None:
        self.asked.append(("leave", run, why))

    def resize(self, run: str, workers: int) -> None:
        self.asked.append(("resize", run, workers))


def company(crew: Crew, workers: int = 4) -> Company:
    made = Company(crew, "best_first", list, lambda run, error: None)  # type: ignore[arg-type]
    made.size = workers
    return made


def run(name: str, trial: int = 1) -> Run:
    return Run(name, trial, _job(64, 4, 1, "{}"), {})


def test_one_that_stands_is_not_forgotten_when_its_sibling_is_begun_again() -> None:
    crew = Crew()
    runs = company(crew, 2)
    one, two = run("s.0001"), run("s.0001-2")
    for each in (one, two):
        runs.go(each, 10)
    runs.allot()
    runs.passed(Passed(two.name, 10, {}, True))
    runs.left(Left(one.name, 3, "failed", {"kind": "workers"}))
    for each in (one, two):  # the trial is placed again, up to the gate where the one stands
        runs.go(each, 10)
    runs.allot()
    assert two.state == "stands"
    runs.passed(Passed(one.name, 10, {}, True))
    for each in (one, two):
        runs.go(each, 20)
    assert crew.asked[-2:] == [("go_on", one.name, 20), ("go_on", two.name, 20)]
    assert (one.state, two.state) == ("trains", "trains")


def test_one_that_trains_hears_of_a_later_gate() -> None:
    crew = Crew()
    runs = company(crew)
    one = run("s.0001")
    runs.go(one, 10)
    runs.allot()
    runs.go(one, 10)
    runs.go(one, 20)
    assert crew.asked == [("begin", one.name, 10), ("go_on", one.name, 20)]


def test_what_runs_have_in_common_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = 0

    def common(one: Course, other: Course) -> int:
        nonlocal found
        found += 1
        return following_common(one, other)

    following_common = following.common
    monkeypatch.setattr(following, "common", common)
    trials = 40
    them = Following(company(Crew(), trials), lambda run: (), lambda run, step, values, stands: None)
    runs = [run(f"s.{number:04d}", number) for number in range(1, trials + 1)]
    for number, each in enumerate(runs):
        them.add(each, Course(200 + number, "same", Shape("cosine", 200 + number, 50)), {})
    for each in runs:
        them.go(each, 100)
    for _ in range(5):
        them.look()
    assert found == trials * (trials - 1) / 2
    assert them.save_at(runs[0]) == (50,)


def test_a_long_line_of_beginnings_is_followed_to_its_first() -> None:
    """Each has most in common with the one before it."""
    passed: list[tuple[str, int]] = []
    trials = 1200
    courses = [
        Course(2000, "same", Shape("step", 2000, 0, (("every", n), ("factor", 0.1)))) for n in range(2, 2 + trials)
    ]
    them = Following(company(Crew()), lambda run: (), lambda run, step, values, stands: passed.append((run.name, step)))
    runs = [run(f"s.{number:04d}", number) for number in range(1, trials + 1)]
    first = following.common
    try:
        following.common = lambda one, other: one.shape.options[0][1] - 1  # type: ignore[assignment,union-attr,operator]
        for each, course in zip(runs, courses, strict=True):
            them.add(each, course, {})
    finally:
        following.common = first
    them.go(runs[0], 1)
    them.evaluated(runs[0], 1, {"loss": 1.0})
    them.go(runs[-1], 2000)
    assert passed == [(runs[-1].name, 1)]


def test_what_others_begin_with_is_kept_by_a_later_leg_too() -> None:
    """Else its newer checkpoints push it out, while the other one waits."""
    them = Following(company(Crew()), lambda run: (), lambda run, step, values, stands: None)
    one, two = run("s.0001"), run("s.0002", 2)
    for each, every in ((one, 20), (two, 30)):
        them.add(each, Course(64, "same", Shape("step", 64, 0, (("every", every), ("factor", 0.1)))), {})
    (parts,) = them.save_at(one)
    one.step = 40
    assert them.save_at(one) == (parts,)


def test_a_store_that_is_away_is_looked_at_again() -> None:
    answers: list[Any] = [OutOfReach("s3://x does not answer"), [19]]

    def saved(name: str) -> list[int]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    crew = Crew()
    runs = company(crew)
    them = Following(runs, saved, lambda run, step, values, stands: None)
    one, two = run("s.0001"), run("s.0002", 2)
    for each, every in ((one, 20), (two, 30)):
        them.add(each, Course(64, "same", Shape("step", 64, 0, (("every", every), ("factor", 0.1)))), {})
    them.go(one, 64)
    runs.allot()
    them.go(two, 64)
    runs.allot()
    assert crew.asked == [("begin", one.name, 64)]
    them.look()
    runs.allot()
    assert crew.asked == [("begin", one.name, 64), ("begin", two.name, 64)]


def test_one_that_may_not_begin_yet_does_not_begin_where_nobody_else_does_either() -> None:
    crew = Crew()
    runs = company(crew)
    runs.may_begin = lambda run: False
    runs.go(run("s.0001"), 10)
    runs.allot()
    assert crew.asked == []
    runs.may_begin = lambda run: True
    runs.allot()
    assert crew.asked == [("begin", "s.0001", 10)]
