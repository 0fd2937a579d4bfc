"""In which order a loop hears: strict by a virtual clock, however things arrive."""

from __future__ import annotations

import itertools

import pytest

from headway.sweeps.events import Action, Event, Failed, GoOn, Halt, Reported, Spent, Start, Suggested, Tell, Width
from headway.sweeps.loop import Loop
from headway.sweeps.order import AsItComes, Order, Strict, create
from headway.sweeps.rules import Rules, Way
from headway.sweeps.schedule.plain import Plain
from headway.sweeps.schedule.promoting import Promoting


def looped(trials: int = 3) -> Loop:
    rules = Rules("loss", "min", trials, way=lambda config: Way(config["length"], config["every"]))
    return Loop(rules, Plain())


def hear(order: Order, loop: Loop, *events: Event) -> list[Event]:
    """What is heard, now that these arrived."""
    for event in events:
        order.arrived(event)
    heard = []
    while (event := order.next()) is not None and loop.over is None:  # type: ignore[assignment]
        order.fed(event, loop.feed(event))
        heard.append(event)
    return heard


def suggested(trial: int, length: int = 8, every: int = 4) -> Suggested:
    return Suggested(trial, {"length": length, "every": every})


def at(trial: int, step: int, waits: bool = False) -> Reported:
    return Reported(trial, step, {"loss": 1.0}, waits)


def test_async_is_heard_as_it_comes() -> None:
    loop = looped()
    order = create("async", loop, 2)
    assert isinstance(order, AsItComes)
    assert hear(order, loop, Width(2), suggested(2), suggested(1)) == [Width(2), suggested(2), suggested(1)]
    assert hear(order, loop, at(2, 4), at(1, 4)) == [at(2, 4), at(1, 4)]


def test_strict_has_the_width_of_the_file_and_asks_in_turn() -> None:
    loop = looped()
    order = Strict(loop, 2)
    assert hear(order, loop, Width(17)) == [Width(2)]
    assert hear(order, loop, suggested(2)) == []
    assert hear(order, loop, suggested(1)) == [suggested(1), suggested(2)]


def begun(width: int = 3, **lengths: int) -> tuple[Loop, Order]:
    """So many trials run: the first of few steps between evaluations, the last of many."""
    loop = looped()
    order = Strict(loop, width)
    hear(order, loop, *(suggested(number, 24, lengths.get(f"t{number}", 4)) for number in range(1, width + 1)))
    return loop, order


def test_strict_hears_by_steps_and_numbers_whoever_comes_first() -> None:
    """Of trials that are evaluated every 3, 4 and 4 steps."""
    events = [at(1, 3), at(1, 6), at(2, 4), at(3, 4)]
    wanted = [at(1, 3), at(2, 4), at(3, 4), at(1, 6)]
    for arrived in itertools.permutations(events):
        if arrived.index(events[1]) < arrived.index(events[0]):
            continue  # what one trial says comes in its order
        loop, order = begun(t1=3)
        heard: list[Event] = []
        for event in arrived:
            heard += hear(order, loop, event)
        assert heard == wanted
        assert order.wanted() == [2, 3, 1]  # due at 8, 8 and 9


def test_strict_waits_for_who_is_due() -> None:
    loop, order = begun(t1=3)
    assert hear(order, loop, at(2, 4), at(3, 4)) == []
    assert order.wanted() == [1]
    assert hear(order, loop, at(1, 3)) == [at(1, 3), at(2, 4), at(3, 4)]


def test_strict_puts_a_failure_where_the_evaluation_would_have_been() -> None:
    failed = Failed(1, 1, "task", "no")
    others: list[Event] = [at(2, 4), at(3, 4)]
    for arrived in itertools.permutations([failed, *others]):
        loop, order = begun(t1=6)
        heard: list[Event] = []
        for event in arrived:
            heard += hear(order, loop, event)
        assert heard == [at(2, 4), at(3, 4), failed]


def test_strict_tries_again_at_once_and_the_clock_does_not_notice() -> None:
    loop, order = begun()
    broken = Failed(3, 0, "platform", "the disk")
    assert hear(order, loop, broken) == [broken]
    assert loop.trials[3].state == "running"
    assert hear(order, loop, at(3, 4), at(2, 4)) == []
    assert hear(order, loop, at(1, 4)) == [at(1, 4), at(2, 4), at(3, 4)]


def test_strict_passes_over_what_is_said_again() -> None:
    loop, order = begun()
    assert len(hear(order, loop, at(1, 4), at(2, 4), at(3, 4))) == 3
    assert hear(order, loop, at(1, 4), at(1, 8), at(1, 8)) == [at(1, 8)]


def test_strict_hears_of_the_clock_at_once() -> None:
    loop, order = begun()
    assert hear(order, loop, Spent(1.0, 1.0)) == [Spent(1.0, 1.0)]
    halt = Halt("enough", may_go_on=True)
    assert hear(order, loop, halt) == [halt]


def test_a_trial_that_begins_later_is_due_later() -> None:
    """One of 8 steps that begins when the first is through, at 8, is due at 12; the one that began at 0 before it."""
    loop = looped()
    order = Strict(loop, 2)
    hear(order, loop, suggested(1, 8, 8), suggested(2, 24, 11))
    assert hear(order, loop, at(1, 8, waits=True), suggested(3, 8, 4)) == [at(1, 8, waits=True), suggested(3, 8, 4)]
    assert order.wanted() == [2, 3]


@pytest.mark.parametrize("arrived", list(itertools.permutations([1, 2, 3])))
def test_strict_promotes_the_same_whoever_comes_first(arrived: tuple[int, ...]) -> None:
    rules = Rules("loss", "min", 3, way=lambda config: Way(8, 2))
    loop = Loop(rules, Promoting([2], 3, "min"))
    order = Strict(loop, 3)
    hear(order, loop, *(suggested(number) for number in (1, 2, 3)))
    done: list[Action] = []
    for number in arrived:
        for event in hear_all(order, loop, Reported(number, 2, {"loss": 4.0 - number}, waits=True)):
            done += event
    assert [action for action in done if isinstance(action, GoOn)] == [GoOn(3, 8)]
    assert [action.trial for action in done if isinstance(action, Tell)] == [1, 2, 3]
    assert not [action for action in done if isinstance(action, Start)]


def test_strict_passes_over_a_fault_in_the_leave_of_a_paused_trial() -> None:
    """It is no fault of the stretch that the trial goes on with later."""
    rules = Rules("loss", "min", 3, way=lambda config: Way(8, 2))
    loop = Loop(rules, Promoting([2], 3, "min"))
    order = Strict(loop, 1)
    hear(order, loop, *(suggested(number) for number in (1, 2, 3)))
    hear(order, loop, Reported(1, 2, {"loss": 1.0}, waits=True))
    assert loop.trials[1].state == "paused"
    assert hear(order, loop, Failed(1, 2, "platform", "the disk is on fire")) == []
    hear(order, loop, Reported(2, 2, {"loss": 2.0}, waits=True), Reported(3, 2, {"loss": 3.0}, waits=True))
    assert loop.trials[1].state == "running"
    assert loop.trials[1].tries == 0
    assert hear(order, loop, Reported(1, 8, {"loss": 0.1}, waits=True))[0] == Reported(1, 8, {"loss": 0.1}, waits=True)


def hear_all(order: Order, loop: Loop, event: Event) -> list[list[Action]]:
    order.arrived(event)
    answers = []
    while (due := order.next()) is not None:
        answers.append(loop.feed(due))
        order.fed(due, answers[-1])
    return answers
