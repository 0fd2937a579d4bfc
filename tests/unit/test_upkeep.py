"""How often a state is kept: worked out by hand."""

from __future__ import annotations

import itertools

import pytest

from headway.core.upkeep import SHARE, Upkeep


def run(upkeep: Upkeep, steps: int, step_s: float, cost_s: float, at: float = 0.0, first: int = 0) -> list[int]:
    """The steps whose state is kept, of so many that take so long."""
    found = []
    for step in range(first, first + steps):
        upkeep.stepped(at)
        if upkeep.due(step):
            upkeep.kept(step, cost_s)
            found.append(step)
            at += cost_s
        at += step_s
    return found


def test_what_costs_next_to_nothing_is_kept_after_each_step() -> None:
    assert run(Upkeep(), 10, step_s=1.0, cost_s=0.01) == list(range(10))


def test_it_costs_a_fiftieth_of_the_steps() -> None:
    """10 ms against steps of 20 ms: every 25th, but for the first two, before a step's time is known."""
    found = run(Upkeep(), 200, step_s=0.02, cost_s=0.01)
    assert found[0] == 0
    later = [b - a for a, b in itertools.pairwise(found[1:])]
    assert set(later) == {25}
    assert len(found) * 0.01 <= SHARE * 200 * 0.02 + 2 * 0.01


def test_it_follows_what_it_costs() -> None:
    upkeep = Upkeep()
    run(upkeep, 60, step_s=0.1, cost_s=0.02)
    assert upkeep.every == 10
    run(upkeep, 200, step_s=0.1, cost_s=0.004, at=100.0, first=60)
    assert upkeep.every == 2
    assert upkeep.step_s == pytest.approx(0.1)


def test_a_fixed_number_holds_whatever_it_costs() -> None:
    assert run(Upkeep(4), 12, step_s=0.001, cost_s=1.0) == [0, 4, 8]


def test_after_a_new_beginning_it_is_due_at_once() -> None:
    upkeep = Upkeep(100)
    assert run(upkeep, 5, 1.0, 0.1) == [0]
    upkeep.restart()
    assert upkeep.due(3)


def test_an_attempt_that_failed_is_no_part_of_a_step() -> None:
    upkeep = Upkeep()
    upkeep.stepped(0.0)
    upkeep.tried(0.5)
    upkeep.stepped(0.6)
    assert upkeep.step_s == pytest.approx(0.1)
    assert upkeep.due(1)
