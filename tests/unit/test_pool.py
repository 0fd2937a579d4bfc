"""A pool of processes that runs take and give back: who gets which, who is started, who is ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.events import Launch
from headway.core.pool import GRACE_S, Deed, End, Give, Hopeless, Lost, Phase, Pool, Returned


class Driven:
    """A pool, and what it asks for, by kind."""

    def __init__(self, wanted: int = 0) -> None:
        self.pool, self.now = Pool(900.0), 0.0
        self.launched: list[str] = []
        self.ended: list[str] = []
        self.given: list[Give] = []
        self.told: list[Any] = []
        self.take(self.pool.want(wanted, 0.0))

    def take(self, deeds: Iterable[Deed]) -> None:
        for deed in deeds:
            match deed:
                case Launch(worker):
                    self.launched.append(worker)
                case End(process):
                    self.ended.append(process)
                case Give():
                    self.given.append(deed)
                case _:
                    self.told.append(deed)

    def start(self, name: str, node: str = "n") -> None:
        self.take(self.pool.placed(name, node, None, self.now))
        self.take(self.pool.up(name, self.now))

    def ask(self, leg: int, worker: str = "w0", avoid: tuple[str, ...] = ()) -> None:
        self.take(self.pool.ask((leg, worker), avoid, 0.0, self.now))

    def back(self, given: Give, remark: str = "") -> None:
        self.take(self.pool.back(given.process, given.number, remark, self.now))


def pool(wanted: int, nodes: str = "nnnn") -> Driven:
    found = Driven(wanted)
    for name, node in zip(list(found.launched), nodes, strict=False):
        found.start(name, node)
    return found


def test_as_many_are_started_as_are_wanted_and_a_seat_gets_the_first_that_is_up() -> None:
    found = Driven(2)
    assert found.launched == ["w0", "w1"]
    found.ask(1)
    assert found.given == []
    found.start("w1")
    assert [(g.process, g.seat) for g in found.given] == [("w1", (1, "w0"))]


def test_a_process_that_is_back_gets_the_next_seat_at_once() -> None:
    found = pool(1)
    found.ask(1)
    found.ask(2)
    found.take(found.pool.dismiss((1, "w0"), 1.0))
    assert len(found.given) == 1, "it is not back yet"
    found.back(found.given[0])
    assert [(g.process, g.seat) for g in found.given] == [("w0", (1, "w0")), ("w0", (2, "w0"))]
    assert found.launched == ["w0"]
    assert found.ended == []


def test_a_run_that_has_nobody_goes_before_one_that_wants_more() -> None:
    found = pool(1)
    found.ask(1, "w0")
    found.ask(1, "w1")
    found.ask(2, "w0")
    found.take(found.pool.want(2, 0.0))
    found.start("w1")
    assert [g.seat for g in found.given] == [(1, "w0"), (2, "w0")]


def test_a_seat_that_is_wanted_no_more_gets_nobody() -> None:
    found = Driven(1)
    found.ask(1)
    found.take(found.pool.dismiss((1, "w0"), 0.0))
    found.start("w0")
    assert found.given == []


def test_who_does_not_come_back_is_ended_and_replaced() -> None:
    found = pool(1)
    found.ask(1)
    found.take(found.pool.over(1, 5.0))
    found.take(found.pool.tick(5.0 + GRACE_S - 0.1))
    assert found.ended == []
    assert found.pool.holds(1)
    found.take(found.pool.tick(5.0 + GRACE_S))
    assert found.ended == ["w0"]
    assert found.launched == ["w0", "w1"]
    assert not found.pool.holds(1)
    found.back(found.given[0])
    assert found.pool.processes == {}, "too late: it is not counted on any more"


def test_one_that_its_run_has_given_up_is_ended_at_once() -> None:
    found = pool(1)
    found.ask(1)
    found.take(found.pool.dismiss((1, "w0"), 1.0, given_up=True))
    assert (found.ended, found.launched, found.told) == (["w0"], ["w0", "w1"], [])


def test_one_that_says_that_it_had_better_go_is_replaced() -> None:
    found = pool(1)
    found.ask(1)
    found.take(found.pool.over(1, 0.0))
    found.back(found.given[0], "it keeps memory")
    assert (found.ended, found.launched) == (["w0"], ["w0", "w1"])


def test_a_process_that_dies_at_work_is_told_to_its_run_and_replaced() -> None:
    found = pool(2)
    found.ask(1)
    name = found.given[0].process
    found.take(found.pool.died(name, "process_died", 1.0))
    assert found.told == [Lost((1, "w0"), "process_died")]
    assert found.launched == ["w0", "w1", "w2"]
    assert found.pool.died(name, "process_died", 1.0) == []


def test_a_process_that_comes_back_unasked_is_told_to_its_run_and_is_free() -> None:
    found = pool(1)
    found.ask(1)
    found.back(found.given[0])
    assert found.told == [Returned((1, "w0"))]
    found.ask(2)
    assert found.given[-1].process == "w0"


def test_a_node_takes_all_that_was_on_it() -> None:
    found = pool(3, "aab")
    found.ask(1)
    found.ask(2)
    found.take(found.pool.node_died("a", 1.0))
    assert set(found.told) == {Lost((1, "w0"), "node_died"), Lost((2, "w0"), "node_died")}
    assert found.launched == ["w0", "w1", "w2", "w3", "w4"]


def test_on_a_node_that_goes_nobody_new_works_and_new_ones_avoid_it() -> None:
    found = pool(2, "ab")
    found.ask(1)
    found.take(found.pool.shun("a", 1.0))
    busy = found.given[0].process
    assert (busy, found.ended) == ("w0", []), "the run itself lets it go, in good order"
    assert found.launched == ["w0", "w1", "w2"]
    found.take(found.pool.dismiss((1, "w0"), 2.0))
    found.back(found.given[0])
    assert found.ended == ["w0"]
    assert found.pool.shun("a", 3.0) == [], "it is told again and again"


def test_a_seat_gets_a_process_elsewhere_than_on_nodes_that_it_avoids_if_there_is_one() -> None:
    found = pool(2, "ab")
    found.ask(1, avoid=("a",))
    found.ask(2, avoid=("b",))
    assert [g.node for g in found.given] == ["b", "a"]
    found = pool(1, "a")
    found.ask(1, avoid=("a",))
    assert [g.node for g in found.given] == ["a"]


def test_fewer_first_take_those_that_are_missed_least() -> None:
    found = pool(3)
    found.ask(1)
    found.take(found.pool.want(1, 1.0))
    assert len(found.ended) == 2
    assert found.given[0].process not in found.ended
    found.take(found.pool.want(0, 2.0))
    assert len(found.ended) == 2, "who works is not ended"
    found.take(found.pool.over(1, 3.0))
    found.back(found.given[0])
    assert len(found.ended) == 3
    assert found.pool.processes == {}


def test_one_that_was_to_go_stays_where_more_are_wanted_again() -> None:
    found = pool(2)
    found.ask(1)
    found.ask(2)
    found.take(found.pool.want(1, 1.0))
    found.take(found.pool.want(2, 2.0))
    for leg in (1, 2):
        found.take(found.pool.over(leg, 3.0))
        found.back(found.given[leg - 1])
    assert (found.launched, found.ended) == (["w0", "w1"], [])


def test_those_without_a_place_are_the_first_to_be_given_up() -> None:
    found = Driven(3)
    found.start("w0")
    found.take(found.pool.want(1, 1.0))
    assert sorted(found.ended) == ["w1", "w2"]
    found.take(found.pool.placed("w2", "n", None, 2.0))
    assert found.ended[-1] == "w2", "its place came too late"


def test_a_seat_may_be_for_later() -> None:
    found = pool(1)
    found.take(found.pool.ask((1, "w0"), (), 4.0, 10.0))
    found.take(found.pool.tick(13.9))
    assert found.given == []
    found.take(found.pool.tick(14.0))
    assert len(found.given) == 1


def test_where_none_can_be_started_it_is_said_and_tries_are_further_and_further_apart() -> None:
    found = Driven(1)
    delays = []
    for number in range(40):
        name = found.launched[-1]
        deeds = found.pool.not_started(name, 10.0 * number)
        found.take(deeds)
        delays += [deed.after_s for deed in deeds if isinstance(deed, Launch)]
        if any(isinstance(each, Hopeless) for each in found.told):
            break
    assert any(isinstance(each, Hopeless) for each in found.told)
    assert delays == sorted(delays)
    assert delays[-1] > delays[0]


def test_where_one_works_a_start_that_fails_is_only_tried_again() -> None:
    found = pool(1)
    found.take(found.pool.want(2, 0.0))
    for number in range(100):
        found.take(found.pool.not_started(found.launched[-1], 10.0 * number))
    assert found.told == []


def test_every_second_of_every_process_has_a_phase() -> None:
    found = Driven(2)
    found.now = 1.0
    found.take(found.pool.placed("w0", "n", None, 1.0))
    found.take(found.pool.up("w0", 3.0))
    found.now = 4.0
    found.ask(1)
    found.take(found.pool.over(1, 9.0))
    found.now = 10.0
    found.back(found.given[0])
    found.take(found.pool.died("w0", "process_died", 12.0))
    assert found.pool.spent(50.0) == {"placed": 2.0, "free": 3.0, "works": 5.0, "returns": 1.0}


@pytest.mark.parametrize("wanted", [1, 3])
@given(data=st.data())
def test_whatever_happens_no_seats_share_a_process_and_nobody_is_forgotten(wanted: int, data: st.DataObject) -> None:
    found = Driven(wanted)
    pool, seats, legs = found.pool, {}, 0
    for _ in range(data.draw(st.integers(5, 40))):
        found.now += 1.0
        given = len(found.given)
        kind = data.draw(st.sampled_from(["start", "ask", "dismiss", "over", "back", "die", "fail", "want", "tick"]))
        if kind == "start" and pool.asked:
            found.start(data.draw(st.sampled_from(sorted(pool.asked))))
        elif kind == "ask":
            legs += 1
            found.ask(legs)
        elif kind in ("dismiss", "over") and legs:
            leg = data.draw(st.integers(1, legs))
            found.take(pool.dismiss((leg, "w0"), found.now) if kind == "dismiss" else pool.over(leg, found.now))
        elif kind == "back" and found.given:
            found.back(data.draw(st.sampled_from(found.given)))
        elif kind == "die" and pool.processes:
            found.take(pool.died(data.draw(st.sampled_from(sorted(pool.processes))), "process_died", found.now))
        elif kind == "fail" and pool.asked:
            found.take(pool.not_started(data.draw(st.sampled_from(sorted(pool.asked))), found.now))
        elif kind == "want":
            found.take(pool.want(data.draw(st.integers(0, 4)), found.now))
        else:
            found.take(pool.tick(found.now))
        for each in found.given[given:]:
            seats[each.seat] = each.process
        at_work = [p.seat for p in pool.processes.values() if p.seat is not None]
        assert len(at_work) == len(set(at_work))
        free = [p for p in pool.processes.values() if p.phase is Phase.FREE]
        assert not (free and [w for w in pool.wishes if w.not_before <= found.now]), "who waits gets who is free"
        assert pool.there + len(pool.asked) == pool.wanted, "as many as are wanted are there, or on their way"
        assert not set(found.ended) & set(pool.processes), "who is ended is not counted on"
        assert len(found.launched) == len(set(found.launched))
