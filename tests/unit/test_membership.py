"""The decisions of an elastic run, event by event."""

from headway.core.events import (
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
    Lost,
    Pause,
    Placed,
    Publish,
    Raised,
    Ready,
    Recovered,
    Save,
    Tick,
)
from headway.core.membership import Membership, Policy


def started(workers: int = 3, lanes: int = 8, minimum: int = 1, **policy: object) -> Membership:
    """A run with all workers in generation 1 at step 0."""
    m = Membership(Policy(lanes, minimum, workers, **policy))  # type: ignore[arg-type]
    names = [a.worker for a in m.begin() if isinstance(a, Launch)]
    for name in names:
        m.step(Placed(name, f"node-{name}", 0.0))
    actions = [a for name in names for a in m.step(Ready(name, 1.0))]
    assert [type(a) for a in actions] == [Publish]
    enter(m, dict.fromkeys(names, 0))
    return m


def enter(m: Membership, steps: dict[str, int], at: float = 2.0) -> Go:
    assert m.published is not None
    number = m.published.number
    actions = [a for w in m.published.members for a in m.step(Arrived(w, number, steps.get(w, -1), 0, at))]
    return next(a for a in actions if isinstance(a, Go))


def kinds(actions: list) -> list[str]:
    return [type(a).__name__ for a in actions]


def test_the_first_generation_waits_for_all_that_are_starting():
    m = Membership(Policy(8, 1, 3))
    assert kinds(m.begin()) == ["Launch"] * 3
    for name in ("w0", "w1", "w2"):
        m.step(Placed(name, "n", 0.0))
    assert m.step(Ready("w1", 1.0)) == []
    assert m.step(Ready("w0", 2.0)) == []
    (publish,) = m.step(Ready("w2", 3.0))
    assert publish.generation.members == ("w0", "w1", "w2") or set(publish.generation.members) == {"w0", "w1", "w2"}
    assert publish.generation.lanes == ((0, 1, 2), (3, 4, 5), (6, 7))


def test_the_first_generation_does_not_wait_for_ever():
    m = Membership(Policy(8, 1, 3, gather_s=3.0))
    m.begin()
    m.step(Placed("w0", "n", 0.0))
    m.step(Placed("w1", "n", 0.0))
    assert m.step(Ready("w0", 1.0)) == []
    assert m.step(Tick(3.9)) == []
    assert kinds(m.step(Tick(4.0))) == ["Publish"]


def test_a_dead_worker_is_left_out_at_once_and_replaced():
    m = started()
    actions = m.step(Gone("w1", "process_died", 5.0))
    assert kinds(actions) == ["Dismiss", "Publish", "Launch"]
    generation = actions[1].generation
    assert generation.urgent
    assert generation.members == ("w0", "w2")
    assert sorted(lane for lanes in generation.lanes for lane in lanes) == list(range(8))
    assert set(generation.carries()["w0"]) >= {0, 1, 2}, "lanes of the living stay where they are"
    assert set(generation.carries()["w2"]) >= {6, 7}


def test_whoever_is_ahead_is_the_source():
    m = started()
    m.step(Gone("w1", "process_died", 5.0))
    go = enter(m, {"w0": 7, "w2": 8})
    assert go.source == "w2"
    assert go.positions == ((7, 0), (8, 0))


def test_a_joiner_enters_by_a_planned_generation():
    m = started()
    m.step(Gone("w1", "process_died", 5.0))
    enter(m, {"w0": 7, "w2": 7})
    m.step(Placed("w3", "n", 6.0))
    (publish,) = m.step(Ready("w3", 7.0))
    assert not publish.generation.urgent
    assert publish.generation.members == ("w0", "w2", "w3")
    go = enter(m, {"w0": 9, "w2": 9})
    assert go.source == "w0"


def test_recovery_is_told_with_its_cause():
    m = started()
    m.step(Gone("w1", "link_cut", 5.0, silent_s=2.0))
    enter(m, {"w0": 7, "w2": 7})
    (recovered,) = m.step(Committed("w0", m.active.number, 8, 2.3, 5.5))
    assert isinstance(recovered, Recovered)
    assert (recovered.cause, recovered.workers, recovered.detected_at, recovered.resumed_at) == (
        "link_cut",
        ("w1",),
        5.0,
        5.5,
    )
    assert m.step(Committed("w2", m.active.number, 8, 2.3, 5.6)) == []


def test_death_in_a_regroup_publishes_again():
    m = started()
    m.step(Gone("w1", "process_died", 5.0))
    first = m.published.number
    m.step(Arrived("w0", first, 7, 0, 5.1))
    actions = m.step(Gone("w2", "process_died", 5.2))
    assert kinds(actions) == ["Dismiss", "Publish", "Launch"]
    assert actions[1].generation.number > first
    assert m.step(Arrived("w0", first, 7, 0, 5.3)) == [], "news of an older generation"
    assert enter(m, {"w0": 7}).source == "w0"


def test_a_joiner_that_dies_before_it_entered_breaks_nothing():
    m = started(2)
    m.step(Gone("w1", "process_died", 5.0))
    enter(m, {"w0": 7})
    m.step(Placed("w2", "n", 6.0))
    m.step(Ready("w2", 7.0))
    actions = m.step(Gone("w2", "process_died", 7.5))
    publish = next(a for a in actions if isinstance(a, Publish))
    assert not publish.generation.urgent
    assert publish.generation.members == ("w0",)


def test_an_evicted_worker_that_returns_is_dismissed():
    m = started()
    m.step(Gone("w1", "link_cut", 5.0))
    for event in (Arrived("w1", 1, 7, 0, 9.0), Lost("w1", 1, 9.0), Ready("w1", 9.0), Committed("w1", 1, 8, 0.1, 9.0)):
        assert kinds(m.step(event)) == ["Dismiss"]


def test_a_broken_exchange_with_nobody_gone_is_knit_again_but_not_for_ever():
    m = started(blips=2)
    for _ in range(2):
        (publish,) = m.step(Lost("w0", m.active.number, 5.0))
        assert publish.generation.urgent
        assert publish.generation.members == ("w0", "w1", "w2")
        assert m.step(Lost("w1", m.published.number - 1, 5.0)) == [], "the others' news of the same break"
        enter(m, {"w0": 7, "w1": 7, "w2": 7})
    assert kinds(m.step(Lost("w0", m.active.number, 6.0))) == ["Fail"]


def test_below_min_training_pauses_and_goes_on_from_the_survivor():
    m = started(2, minimum=2)
    actions = m.step(Gone("w0", "node_died", 5.0))
    assert kinds(actions) == ["Dismiss", "Pause", "Launch"]
    assert actions[1].urgent
    m.step(Placed("w2", "n", 8.0))
    (publish,) = m.step(Ready("w2", 9.0))
    assert publish.generation.members == ("w1", "w2")
    assert enter(m, {"w1": 30}).source == "w1"


def test_all_gone_goes_on_from_the_checkpoint():
    m = started(2)
    m.step(Gone("w0", "node_died", 5.0))
    assert "Pause" in kinds(m.step(Gone("w1", "node_died", 5.0)))
    m.step(Placed("w2", "n", 8.0))
    m.step(Placed("w3", "n", 8.0))
    m.step(Ready("w2", 9.0))
    (publish,) = m.step(Ready("w3", 9.1))
    assert publish.generation.members == ("w2", "w3")
    assert enter(m, {}).source is None


def test_workers_that_die_again_and_again_end_the_run():
    m = started(1)
    for i in range(1, 4):
        actions = m.step(Gone(f"w{i - 1}", "process_died", float(i)))
        if i == 3:
            break
        m.step(Placed(f"w{i}", "n", float(i)))
        m.step(Ready(f"w{i}", float(i)))
        enter(m, {})
    assert isinstance(actions[-1], Fail)


def test_a_drained_worker_works_on_and_leaves_between_two_steps_in_time():
    m = started()
    assert kinds(m.step(Drained("w1", deadline=60.0, at=5.0))) == ["Launch"]
    assert m.step(Tick(54.9)) == []
    (publish,) = m.step(Tick(55.0))
    assert not publish.generation.urgent
    assert publish.generation.members == ("w0", "w2")
    number = m.published.number
    m.step(Arrived("w0", number, 9, 0, 56.0))
    go, dismiss = m.step(Arrived("w2", number, 9, 0, 56.0))
    assert isinstance(go, Go)
    assert dismiss == Dismiss("w1", "the others go on without it", graceful=True)


def test_a_drained_worker_leaves_as_soon_as_it_is_replaced():
    m = started()
    m.step(Drained("w1", deadline=60.0, at=5.0))
    m.step(Placed("w3", "n", 6.0))
    (publish,) = m.step(Ready("w3", 7.0))
    assert publish.generation.members == ("w0", "w2", "w3")


def test_a_drained_worker_that_dies_first_breaks_the_exchange():
    m = started()
    m.step(Drained("w1", deadline=6.0, at=5.0))
    actions = m.step(Gone("w1", "process_died", 5.5))
    assert next(a for a in actions if isinstance(a, Publish)).generation.urgent


def test_the_last_worker_is_drained_late_and_with_a_checkpoint():
    m = started(1, leave_s=2.0)
    actions = m.step(Drained("w0", deadline=60.0, at=5.0))
    assert kinds(actions) == ["Launch", "Save"]
    assert m.step(Tick(57.9)) == []
    (pause,) = m.step(Tick(58.0))
    assert isinstance(pause, Pause)
    assert pause.save
    assert not pause.urgent


def test_the_last_worker_is_relieved_by_a_new_one():
    m = started(1)
    m.step(Drained("w0", deadline=60.0, at=5.0))
    m.step(Placed("w1", "n", 9.0))
    (publish,) = m.step(Ready("w1", 10.0))
    assert publish.generation.members == ("w0", "w1"), "its state must be handed over first"
    m.step(Arrived("w0", publish.generation.number, 40, 0, 11.0))
    go, relieved = m.step(Arrived("w1", publish.generation.number, -1, 0, 11.0))
    assert go.source == "w0"
    assert relieved.generation.members == ("w1",)
    assert not relieved.generation.urgent
    assert kinds(m.step(Arrived("w1", relieved.generation.number, 41, 0, 12.0))) == ["Go", "Dismiss"]


def test_the_users_error_ends_the_run():
    m = started()
    assert m.step(Raised("w1", "ValueError", 5.0)) == [Fail("ValueError", "w1")]
    assert m.step(Gone("w1", "process_died", 5.1)) == []


def test_the_end():
    m = started()
    assert m.step(Finished("w0", 9.0)) == []
    assert m.step(Gone("w0", "process_died", 9.0))[0] == Dismiss("w0", "process_died")
    assert m.step(Finished("w1", 9.0)) == []
    assert isinstance(m.step(Finished("w2", 9.0))[0], End)


def test_a_death_while_others_have_finished():
    m = started()
    m.step(Finished("w0", 9.0))
    actions = m.step(Gone("w1", "process_died", 9.0))
    publish = next(a for a in actions if isinstance(a, Publish))
    assert publish.generation.members == ("w2",)
    enter(m, {"w2": 10})
    assert isinstance(m.step(Finished("w2", 9.5))[0], End)


def test_the_only_worker_saves_on_notice():
    m = started(2, minimum=2)
    assert any(isinstance(a, Save) for a in m.step(Drained("w0", 60.0, 5.0)))


def test_who_joins_while_another_leaves_is_not_called_drained():
    m = started()
    m.step(Drained("w1", deadline=10.0, at=6.0))
    m.step(Arrived("w0", m.published.number, 9, 0, 7.0))
    m.step(Arrived("w2", m.published.number, 9, 0, 7.0))
    m.step(Placed("w3", "n", 7.1))
    (publish,) = m.step(Ready("w3", 7.2))
    assert publish.generation.members == ("w0", "w2", "w3")
    for worker, step in (("w0", 9), ("w2", 9), ("w3", -1)):
        m.step(Arrived(worker, publish.generation.number, step, 0, 8.0))
    (recovered,) = m.step(Committed("w0", publish.generation.number, 10, 0.1, 9.0))
    assert (recovered.cause, recovered.workers) == ("drained", ("w1",))
