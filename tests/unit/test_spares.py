"""Spares: who stands by, when one takes a seat, and what the run does about one that is gone."""

from __future__ import annotations

from typing import Any

from headway.core.events import (
    Action,
    Arrived,
    Committed,
    Dismiss,
    Drained,
    End,
    Fail,
    Finished,
    Go,
    Gone,
    Launch,
    Pause,
    Placed,
    Publish,
    Raised,
    Ready,
    Recovered,
    Slow,
    Tick,
)
from headway.core.hiring import LONGEST_DELAY_S
from headway.core.membership import APART_NODES, DEATHS_EACH, MEMBER, READY, STOOD_S, WARMING, Membership, Policy


def launched(actions: list[Action]) -> list[Launch]:
    return [a for a in actions if isinstance(a, Launch)]


def published(actions: list[Action]) -> tuple[str, ...]:
    (found,) = [a.generation.members for a in actions if isinstance(a, Publish)]
    return found


def place(m: Membership, launches: list[Launch], at: float) -> list[Action]:
    """They are there and ready."""
    for a in launches:
        m.step(Placed(a.worker, f"node-{a.worker}", at))
    return [action for a in launches for action in m.step(Ready(a.worker, at))]


def enter(m: Membership, step: int, at: float) -> list[Action]:
    """All members of the newest generation arrive; those that have trained are at `step`."""
    assert m.published is not None
    number = m.published.number
    carried = dict(m.carried)
    return [
        a for w in m.published.members for a in m.step(Arrived(w, number, step if w in carried else -1, 0, False, at))
    ]


def commit(m: Membership, step: int, at: float) -> list[Action]:
    assert m.active is not None
    return [a for w in m.active.members for a in m.step(Committed(w, m.active.number, step, 0.1, at))]


def commit_by(m: Membership, generation: int, worker: str, step: int, at: float) -> list[Action]:
    return m.step(Committed(worker, generation, step, 0.1, at))


def training(workers: int = 2, spares: int = 1, **policy: Any) -> Membership:
    """All seats are taken, and all spares are ready."""
    m = Membership(Policy(8, max=workers, spares=spares, **policy))
    place(m, launched(m.begin()), 1.0)
    enter(m, -1, 2.0)
    stand_by = launched(commit(m, 1, 3.0))
    assert len(stand_by) == spares
    place(m, stand_by, 4.0)
    assert m.active is not None
    assert len(m.active.members) == workers
    assert m.published is m.active
    return m


def test_spares_are_asked_for_when_the_first_step_is_committed() -> None:
    m = Membership(Policy(8, max=2, spares=2))
    first = launched(m.begin())
    assert [a.spare for a in first] == [False, False]
    place(m, first, 1.0)
    assert launched(enter(m, -1, 2.0)) == []
    asked = launched(commit(m, 1, 3.0))
    assert [(a.worker, a.spare, a.apart) for a in asked] == [
        ("w2", True, ("node-w0", "node-w1")),
        ("w3", True, ("node-w0", "node-w1")),
    ]
    assert launched(commit(m, 1, 3.1)) == []


def test_without_spares_nobody_is_asked_for_then() -> None:
    m = Membership(Policy(8, max=2))
    place(m, launched(m.begin()), 1.0)
    enter(m, -1, 2.0)
    assert commit(m, 1, 3.0) == []


def test_a_spare_that_is_ready_changes_nothing_while_all_seats_are_taken() -> None:
    m = training()
    assert m.workers["w2"].phase == READY
    assert m.step(Tick(50.0)) == []
    assert m.step(Committed("w0", 1, 9, 0.1, 50.0)) == []


def test_a_death_costs_the_others_no_wait_for_the_spare_which_joins_right_after() -> None:
    m = training()
    actions = m.step(Gone("w0", "process_died", 9.0))
    assert published(actions) == ("w1",)
    (relief,) = launched(actions)
    assert relief.spare
    assert relief.after_s == 0.0
    actions = enter(m, 40, 9.1)
    assert [type(a) for a in actions] == [Go, Publish]
    assert published(actions) == ("w1", "w2")
    assert m.published is not None
    assert not m.published.urgent
    (lost,) = commit_by(m, 2, "w1", 41, 9.15)
    assert isinstance(lost, Recovered)
    assert (lost.cause, lost.workers) == ("process_died", ("w0",))
    (go,) = enter(m, 41, 9.2)
    assert isinstance(go, Go)
    assert go.source == "w1"
    assert m.workers["w2"].phase == MEMBER
    (joined,) = commit(m, 42, 9.3)
    assert isinstance(joined, Recovered)
    assert (joined.cause, joined.workers) == ("joined", ("w2",))


def test_a_spare_is_seated_at_once_where_too_few_are_left() -> None:
    m = training(min=2)
    actions = m.step(Gone("w0", "process_died", 9.0))
    assert published(actions) == ("w1", "w2")
    (go,) = enter(m, 40, 9.1)
    assert isinstance(go, Go)
    assert go.source == "w1"
    told = commit(m, 41, 9.2)
    assert [(a.cause, a.workers) for a in told if isinstance(a, Recovered)] == [
        ("process_died", ("w0",)),
        ("joined", ("w2",)),
    ]


def test_the_spare_begins_the_next_generation_when_nobody_is_left() -> None:
    m = training(workers=1)
    actions = m.step(Gone("w0", "process_died", 9.0))
    assert published(actions) == ("w1",)
    assert [a.spare for a in launched(actions)] == [True]
    (go,) = enter(m, -1, 9.1)
    assert isinstance(go, Go)
    assert go.source is None


def test_the_pause_after_everybodys_end_is_what_the_lead_saw() -> None:
    """Whoever begins anew has stood by, and knows nothing of it."""
    m = training(workers=1)
    m.step(Gone("w0", "process_died", 9.0))
    enter(m, -1, 9.1)
    (recovered,) = commit(m, 30, 9.5)
    assert isinstance(recovered, Recovered)
    assert recovered.pause_s == 0.5
    m = training()
    m.step(Gone("w0", "process_died", 9.0))
    enter(m, 40, 9.1)
    enter(m, 40, 9.2)
    told = [a for a in commit(m, 41, 9.5) if isinstance(a, Recovered)]
    assert [a.pause_s for a in told] == [0.1, 0.1], "as whoever trained all along says"
    assert [a.cause for a in told] == ["process_died", "joined"]


def test_the_spare_waits_for_the_last_lease_of_one_that_only_fell_silent() -> None:
    m = training(workers=1)
    m.workers["w0"].lease_s = 5.0
    actions = m.step(Gone("w0", "link_cut", 9.0, 2.0, 2.0))
    assert [type(a) for a in actions] == [Dismiss, Pause, Launch]
    assert m.step(Tick(11.9)) == []
    assert published(m.step(Tick(12.0))) == ("w1",)


def test_the_first_generation_does_not_wait_for_spares_when_all_were_lost() -> None:
    m = training(workers=1, spares=2)
    relief = launched(m.step(Gone("w0", "process_died", 9.0)))
    m.step(Placed(relief[0].worker, "n", 9.0))
    assert m.published is not None
    assert m.published.members == ("w1",)


def test_a_start_with_all_seats_filled_does_not_wait_for_whoever_else_warms_up() -> None:
    m = training(min=2)
    relief = launched(m.step(Gone("w1", "process_died", 9.0)))
    m.step(Placed(relief[0].worker, "n", 9.0))
    (last,) = launched(m.step(Gone("w0", "process_died", 9.1)))
    assert m.published is None, "one is left, and two are needed"
    assert published(place(m, [last], 9.3)) == ("w2", last.worker)
    assert m.workers[relief[0].worker].phase == WARMING


def test_a_spare_that_is_gone_is_hired_again_and_is_no_loss() -> None:
    m = training()
    actions = m.step(Gone("w2", "node_died", 9.0))
    assert [type(a) for a in actions] == [Dismiss, Launch]
    assert commit(m, 9, 9.1) == [], "nothing is to be recovered from"
    assert m.active is m.published


def test_spares_that_end_again_and_again_are_backed_off_and_end_no_run() -> None:
    m = training()
    delays, at = [], 9.0
    for _ in range(9):
        spare = next(w for w, known in m.workers.items() if known.phase == READY)
        actions = m.step(Gone(spare, "process_died", at))
        (again,) = launched(actions)
        delays.append(again.after_s)
        place(m, [again], at)
    assert delays == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[LONGEST_DELAY_S] * 3]
    assert DEATHS_EACH * m.policy.max < 9
    assert not m.ended


def test_spares_that_stood_by_for_long_did_not_fail_to_start() -> None:
    m = training()
    for hour in range(9):
        spare = next(w for w, known in m.workers.items() if known.phase == READY)
        (again,) = launched(m.step(Gone(spare, "process_died", 10.0 + STOOD_S + 3600.0 * hour)))
        assert again.after_s == 0.0
        place(m, [again], 10.0 + 3600.0 * hour)


def test_a_spare_that_dies_while_the_others_regroup_counts_as_no_death_of_theirs() -> None:
    m = training()
    m.step(Gone("w0", "process_died", 9.0))
    assert m._deaths == 1
    m.step(Gone("w2", "process_died", 9.0))
    assert m._deaths == 1


def test_a_failed_start_of_a_spare_ends_no_run() -> None:
    m = training()
    (again,) = launched(m.step(Gone("w2", "process_died", 9.0)))
    m.step(Placed(again.worker, "n", 9.0))
    actions = m.step(Raised(again.worker, "their code", "user", 9.5))
    assert not any(isinstance(a, Fail) for a in actions)
    assert len(launched(actions)) == 1


def test_a_drained_worker_is_relieved_by_the_spare_at_once() -> None:
    m = training()
    actions = m.step(Drained("w0", 60.0, 9.0))
    assert published(actions) == ("w1", "w2")
    assert [a.spare for a in launched(actions)] == [True]
    go, *rest = enter(m, 40, 9.1)
    assert isinstance(go, Go)
    assert rest == [Dismiss("w0", "the others go on without it", graceful=True)]


def test_the_last_worker_that_is_drained_hands_over_to_the_spare() -> None:
    m = training(workers=1)
    assert set(published(m.step(Drained("w0", 60.0, 9.0)))) == {"w0", "w1"}
    go, leave = enter(m, 40, 9.1)[:2]
    assert isinstance(go, Go)
    assert go.source == "w0"
    assert isinstance(leave, Publish)
    assert leave.generation.members == ("w1",)


def test_a_drained_spare_is_dismissed_and_another_is_asked_for() -> None:
    m = training()
    actions = m.step(Drained("w2", 60.0, 9.0))
    assert [type(a) for a in actions] == [Dismiss, Launch]


def test_a_slow_worker_is_replaced_by_the_spare() -> None:
    m = training(slow="replace")
    actions = m.step(Slow("w0", 3.0, 9.0))
    assert published(actions) == ("w1", "w2")
    assert [a.spare for a in launched(actions)] == [True]


def test_nobody_is_asked_for_when_the_run_is_finishing_and_spares_end_with_it() -> None:
    m = training()
    assert m.step(Finished("w0", 9.0)) == []
    assert [type(a) for a in m.step(Gone("w2", "process_died", 9.1))] == [Dismiss]
    assert [type(a) for a in m.step(Finished("w1", 9.2))] == [End]


def test_a_spare_is_not_seated_when_the_others_have_finished() -> None:
    m = training()
    m.step(Finished("w0", 9.0))
    assert [type(a) for a in m.step(Gone("w1", "process_died", 9.1))] == [Dismiss, End]


def test_among_many_nodes_a_spare_is_placed_anywhere() -> None:
    m = Membership(Policy(1000, max=APART_NODES + 1, spares=1))
    place(m, launched(m.begin()), 1.0)
    enter(m, -1, 2.0)
    (spare,) = launched(commit(m, 1, 3.0))
    assert spare.apart == ()
    assert spare.spare
