"""Who takes over another's weights waits for them, and what others are to take is kept so long."""

from __future__ import annotations

import pytest

from headway.job import parse
from headway.sweeps.company import Company, Run
from headway.sweeps.course import Turn
from headway.sweeps.crew import Leg, Origin, Passed
from headway.sweeps.events import Clone, GoOn, Reported
from headway.sweeps.takeover import Takeovers, in_order
from headway.testing.crew import FakeCrew, Ground

JOB = parse({"name": "n", "task": "/t.py:T", "data": {"train": "/d"}, "steps": 60})


class Begun(FakeCrew):
    """Takes down who begins."""

    def __init__(self) -> None:
        super().__init__(Ground(), 9, lambda settings, step: {})
        self.legs: list[str] = []

    def begin(self, leg: Leg) -> None:
        self.legs.append(leg.run)

    def go_on(self, run: str, until: int) -> None:
        pass


class World:
    def __init__(self) -> None:
        self.crew, self.steps = Begun(), dict[str, list[int]]()
        self.company = Company(self.crew, "even", list, lambda run, error: None, lambda: 0.0)
        self.takeovers = Takeovers(self.company, lambda run: self.steps.get(run, []))
        self.company.size = 9

    def takes(self, name: str, source: str, step: int) -> Run:
        run = self.company.runs.get(name) or Run(name, len(self.company.runs) + 1, JOB, {})
        run.origin, run.step = Origin(source, step, exact=False), step
        self.takeovers.decided(run)
        self.company.go(run, step + 20)
        return run


@pytest.fixture
def world() -> World:
    return World()


def test_one_whose_states_are_waited_for_lets_the_others_begin_first(world: World) -> None:
    world.takes("b", "a", 20)
    world.takes("a", "c", 10)
    assert not world.takeovers._may_begin(world.company.runs["a"])
    world.company.allot()
    assert world.crew.legs == ["b"]
    world.company.allot()
    assert world.crew.legs == ["b", "a"]


def test_one_that_takes_what_its_source_is_yet_to_take_begins_after_it(world: World) -> None:
    world.takes("a", "c", 10)
    world.takes("b", "a", 10)
    world.company.allot()
    assert world.crew.legs == ["a"]
    world.company.allot()
    assert world.crew.legs == ["a", "b"]


def test_two_that_change_places_do_not_wait_for_each_other(world: World) -> None:
    world.takes("b", "a", 20)
    world.takes("a", "b", 20)
    for _ in range(2):
        world.company.allot()
    assert world.crew.legs == ["b", "a"]


def test_what_is_told_of_a_run_is_heard_when_its_state_is_safe(world: World) -> None:
    run = Run("a", 1, JOB, {}, keeps=(10, 20))
    other = Run("b", 2, JOB, {}, keeps=(10, 20))
    assert not world.takeovers.is_early(run, Passed("a", 15, {}, True)), "it is kept for nobody"
    assert not world.takeovers.is_early(run, Passed("a", 10, {}, False)), "it goes on, and nobody is told to take it"
    early = [Passed("a", 10, {}, True), Passed("b", 20, {}, True)]
    assert world.takeovers.is_early(run, early[0])
    assert world.takeovers.is_early(other, early[1])
    assert (world.takeovers.waits, world.takeovers.due()) == (True, [])
    world.steps["a"] = [10]
    assert world.takeovers.due() == [(run, early[0])]
    assert not world.takeovers.is_early(run, early[0])
    assert world.takeovers.left(run, comes_again=False) == []
    assert world.takeovers.left(other, comes_again=False) == [(other, early[1])], "it never is saved, and was told"
    assert not world.takeovers.waits


@pytest.mark.parametrize("saved", [[], [20]])
def test_what_one_told_that_failed_for_the_platforms_sake_it_tells_again_unless_it_was_saved(
    world: World, saved: list[int]
) -> None:
    run = Run("a", 1, JOB, {}, keeps=(20,))
    news = Passed("a", 20, {}, True)
    assert world.takeovers.is_early(run, news)
    world.steps["a"] = saved
    assert world.takeovers.left(run, comes_again=True) == ([(run, news)] if saved else [])
    assert not world.takeovers.waits


def test_after_a_kill_takeovers_are_in_the_order_of_the_book() -> None:
    said = [Clone(3, 1, 20, {}, 40), Clone(1, 2, 10, {}, 30)]
    turns = [Turn(number, 0.0, Reported(1, 20, {}, True), [action]) for number, action in enumerate(said, 1)]
    assert in_order([said[1], GoOn(2, 30), said[0]], turns) == [GoOn(2, 30), *said]
