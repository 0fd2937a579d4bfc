"""A run's size that is asked for while it runs: who comes, who leaves, who is called back, and when `min` counts."""

from __future__ import annotations

from headway.core import seating
from headway.core.events import (
    Action,
    Arrived,
    Committed,
    Dismiss,
    Drained,
    Finished,
    Go,
    Gone,
    Launch,
    Pause,
    Placed,
    Publish,
    Ready,
    Recovered,
    Resized,
    Tick,
)
from headway.core.membership import LEAVING, MEMBER, Membership, Policy
from headway.core.roster import Worker


def kinds(actions: list[Action]) -> list[str]:
    return [type(a).__name__ for a in actions]


def launched(actions: list[Action]) -> list[str]:
    return [a.worker for a in actions if isinstance(a, Launch)]


def dismissed(actions: list[Action]) -> list[str]:
    return [a.worker for a in actions if isinstance(a, Dismiss)]


def published(actions: list[Action]) -> tuple[str, ...]:
    (found,) = [a.generation.members for a in actions if isinstance(a, Publish)]
    return found


def ready(m: Membership, names: list[str], at: float) -> list[Action]:
    for name in names:
        m.step(Placed(name, f"node-{name}", at))
    return [action for name in names for action in m.step(Ready(name, at))]


def enter(m: Membership, step: int, at: float, busy: bool = False) -> list[Action]:
    assert m.published is not None
    number, carried = m.published.number, dict(m.carried)
    found: list[Action] = []
    for w in m.published.members:
        if w in m.published.members:
            found += m.step(Arrived(w, number, step if w in carried else -1, 0, busy and w in carried, at))
    return found


def training(workers: int = 2, lanes: int = 8, **policy: int) -> Membership:
    m = Membership(Policy(lanes, max=workers, **policy))
    ready(m, launched(m.begin()), 1.0)
    enter(m, -1, 2.0)
    m.step(Committed("w0", 1, 1, 0.1, 3.0))
    return m


def ask(m: Membership, least: int, most: int, at: float = 10.0) -> list[Action]:
    return m.step(Resized(least, most, "mary", at))


def test_more_are_asked_for_and_join_between_two_steps() -> None:
    m = training(2)
    actions = ask(m, 1, 3)
    assert launched(actions) == ["w2"]
    assert kinds(actions) == ["Launch"]
    actions = ready(m, ["w2"], 11.0)
    assert published(actions) == ("w0", "w1", "w2")
    assert not any(a.generation.urgent for a in actions if isinstance(a, Publish))


def test_who_is_too_many_leaves_between_two_steps_and_is_let_go_in_good_order() -> None:
    m = training(3)
    actions = ask(m, 1, 1)
    assert published(actions) == ("w0",), "the newest two go"
    assert m.active is not None
    assert m.active.members == ("w0", "w1", "w2"), "they work on until then"
    actions = enter(m, 9, 10.1)
    assert [(a.worker, a.graceful) for a in actions if isinstance(a, Dismiss)] == [("w1", True), ("w2", True)]
    assert launched(actions) == []
    (told,) = [a for a in m.step(Committed("w0", 2, 10, 0.1, 10.2)) if isinstance(a, Recovered)]
    assert (told.cause, set(told.workers)) == ("resized", {"w1", "w2"})
    assert ask(m, 1, 1) == [], "it has that size"


def test_first_go_those_that_have_no_place_then_those_that_have_not_trained() -> None:
    m = training(2)
    assert launched(ask(m, 1, 6)) == ["w2", "w3", "w4", "w5"]
    m.step(Placed("w2", "n", 11.0))
    m.step(Placed("w3", "n", 11.0))
    assert dismissed(ask(m, 1, 4, 12.0)) == ["w5", "w4"], "the newest first"
    assert m.sought == 0
    assert m.step(Placed("w4", "n", 12.1)) == [Dismiss("w4", "nobody asked for it any more")]
    assert dismissed(ask(m, 1, 3, 13.0)) == ["w3"]
    actions = ask(m, 1, 1, 14.0)
    assert dismissed(actions) == ["w2"]
    assert published(actions) == ("w0",)


def test_the_node_that_one_worker_leaves_empty_can_go() -> None:
    workers = {"w0": Worker(MEMBER, "a"), "w1": Worker(MEMBER, "b"), "w2": Worker(MEMBER, "a")}
    assert seating.surplus(workers, ["w0", "w1", "w2"], {"w0", "w1", "w2"}, 1) == ["w1"]
    assert seating.surplus(workers, ["w0", "w1", "w2"], {"w0", "w1", "w2"}, 2) == ["w1", "w2"]
    assert seating.surplus(workers, ["w0", "w1", "w2"], {"w0", "w1"}, 1) == ["w2"], "it has not trained"
    assert seating.surplus(workers, ["w0"], {"w0"}, -1) == []


def test_who_is_on_a_node_that_somebody_needs_goes_first_and_no_more_of_them_than_that() -> None:
    workers = {f"w{n}": Worker(MEMBER, node) for n, node in enumerate("aaabb")}
    everybody = list(workers)
    assert seating.surplus(workers, everybody, everybody, 2, ["a", "a"]) == ["w2", "w1"]
    assert seating.surplus(workers, everybody, everybody, 2, ["a"]) == ["w2", "w4"]
    assert seating.surplus(workers, everybody, everybody, 1, ["c"]) == ["w4"], "nobody is there"
    assert seating.surplus(workers, everybody, everybody[:4], 1, ["a"]) == ["w2"], "w4 has not trained; who asks knows"
    m = training(3)
    nodes = {name: worker.node for name, worker in m.workers.items()}
    assert len(set(nodes.values())) == 3
    actions = m.step(Resized(1, 2, "the queue", 20.0, (str(nodes["w0"]),)))
    assert published(actions) == ("w1", "w2")


def test_one_that_is_missed_before_it_has_left_stays() -> None:
    m = training(3)
    ask(m, 1, 2)
    assert m.workers["w2"].phase == LEAVING
    actions = m.step(Gone("w1", "process_died", 10.1))
    assert published(actions) == ("w0", "w2")
    assert launched(actions) == [], "no machine is asked for in place of one that is there"
    assert m.workers["w2"].phase == MEMBER
    assert dismissed(enter(m, 9, 10.2)) == []


def test_one_that_the_others_go_on_without_is_not_called_back() -> None:
    m = training(3)
    ask(m, 1, 2)
    assert launched(ask(m, 1, 3, 10.1)) == ["w3"]
    assert dismissed(enter(m, 9, 10.2)) == ["w2"]


def test_asked_for_again_before_the_members_know_nothing_happens_twice() -> None:
    m = training(3)
    actions = ask(m, 1, 2)
    assert published(actions) == ("w0", "w1")
    assert kinds(ask(m, 1, 1, 10.1)) == [], "the change under way is not through"
    assert published(enter(m, 9, 10.2)) == ("w0",)
    assert dismissed(enter(m, 9, 10.3)) == ["w1"]


def test_nobody_stops_for_a_larger_min_that_has_not_come_yet() -> None:
    m = training(2)
    assert launched(ask(m, 3, 4)) == ["w2", "w3"]
    assert m.policy.min == 1
    assert m.active is not None
    assert not any(isinstance(a, Pause) for a in m.step(Tick(11.0)))
    ready(m, ["w2"], 12.0)
    enter(m, 9, 12.1)
    assert m.policy.min == 3, "so many train"
    assert "Pause" in kinds(m.step(Gone("w2", "process_died", 13.0)))


def test_a_smaller_min_ends_a_pause() -> None:
    m = training(2, min=2)
    assert "Pause" in kinds(m.step(Gone("w1", "process_died", 10.0)))
    actions = ask(m, 1, 2, 11.0)
    assert published(actions) == ("w0",)


def test_a_larger_min_counts_at_once_where_nobody_trains() -> None:
    m = Membership(Policy(8, max=2))
    names = launched(m.begin())
    assert launched(ask(m, 3, 3, 0.5)) == ["w2"]
    assert ready(m, names, 1.0) == []
    assert m.step(Tick(30.0)) == []
    assert published(ready(m, ["w2"], 31.0)) == ("w0", "w1", "w2")


def test_in_an_evaluation_leavers_leave_and_newcomers_wait() -> None:
    m = training(3)
    m.step(Gone("w2", "process_died", 4.0))
    enter(m, 9, 4.1, busy=True)
    assert launched(ask(m, 1, 4)) == ["w4"]
    assert ready(m, ["w3", "w4"], 11.0) == []
    assert published(ask(m, 1, 1, 12.0)) == ("w0",)


def test_in_a_drain_the_one_that_is_taken_away_goes_first_and_is_not_called_back() -> None:
    m = training(3)
    assert launched(m.step(Drained("w0", 60.0, 5.0))) == ["w3"]
    actions = ask(m, 1, 2)
    assert dismissed(actions) == ["w3"]
    assert published(actions) == ("w1", "w2")
    assert launched(m.step(Gone("w2", "process_died", 10.1))) == ["w4"]
    assert m.workers["w0"].phase == LEAVING


def test_one_that_leaves_and_has_a_notice_is_not_called_back() -> None:
    m = training(3)
    ask(m, 1, 2)
    m.step(Drained("w2", 60.0, 10.05))
    assert launched(m.step(Gone("w1", "process_died", 10.1))) == ["w3"]


def test_spares_stand_by_beside_any_size() -> None:
    m = training(2, spares=1)
    assert m.sought == 1
    ready(m, ["w2"], 4.0)
    actions = ask(m, 1, 3)
    assert published(actions) == ("w0", "w1", "w2"), "it is warm"
    assert [a.spare for a in actions if isinstance(a, Launch)] == [True]
    enter(m, 9, 10.1)
    ready(m, ["w3"], 10.2)
    actions = ask(m, 1, 2, 11.0)
    assert published(actions) == ("w0", "w1")
    assert dismissed(actions) == []
    assert isinstance(enter(m, 9, 11.1)[0], Go)


def test_at_the_end_nobody_is_asked_for() -> None:
    m = training(2)
    m.step(Finished("w0", 9.0))
    assert ask(m, 1, 4) == []
