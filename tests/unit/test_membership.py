"""The decisions of an elastic run, event by event."""

from headway.core.events import (
    Arrived,
    Committed,
    Dismiss,
    Drained,
    End,
    Fail,
    Finished,
    Generation,
    Go,
    Gone,
    HeadDrained,
    Launch,
    Lost,
    Pause,
    Placed,
    Publish,
    Raised,
    Ready,
    Recovered,
    Save,
    Stuck,
    Tick,
)
from headway.core.hiring import ATTEMPTS, ATTEMPTS_S
from headway.core.membership import READY, Membership, Policy, seats
from headway.core.watch import lease_s


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
    actions = [a for w in m.published.members for a in m.step(Arrived(w, number, steps.get(w, -1), 0, False, at))]
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
    m.step(Arrived("w0", first, 7, 0, False, 5.1))
    actions = m.step(Gone("w2", "process_died", 5.2))
    assert kinds(actions) == ["Dismiss", "Publish", "Launch"]
    assert actions[1].generation.number > first
    assert m.step(Arrived("w0", first, 7, 0, False, 5.3)) == [], "news of an older generation"
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
    for event in (
        Arrived("w1", 1, 7, 0, False, 9.0),
        Lost("w1", 1, (), 9.0),
        Ready("w1", 9.0),
        Committed("w1", 1, 8, 0.1, 9.0),
    ):
        assert kinds(m.step(event)) == ["Dismiss"]


def test_a_broken_exchange_with_nobody_gone_is_knit_again_but_not_for_ever():
    m = started(blips=2)
    for _ in range(2):
        (publish,) = m.step(Lost("w0", m.active.number, (), 5.0))
        assert publish.generation.urgent
        assert publish.generation.members == ("w0", "w1", "w2")
        assert m.step(Lost("w1", m.published.number - 1, (), 5.0)) == [], "the others' news of the same break"
        enter(m, {"w0": 7, "w1": 7, "w2": 7})
    assert kinds(m.step(Lost("w0", m.active.number, (), 64.9))) == ["Publish"], "it may pass: not a minute has gone by"
    enter(m, {"w0": 7, "w1": 7, "w2": 7})
    assert kinds(m.step(Lost("w0", m.active.number, (), 65.0))) == ["Fail"]


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
    m.step(Gone("w0", "process_died", 5.0))
    assert "Pause" in kinds(m.step(Gone("w1", "process_died", 5.0)))
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
    m.step(Arrived("w0", number, 9, 0, False, 56.0))
    go, dismiss = m.step(Arrived("w2", number, 9, 0, False, 56.0))
    assert isinstance(go, Go)
    assert dismiss == Dismiss("w1", "the others go on without it", graceful=True)


def test_a_drained_worker_leaves_as_soon_as_it_is_replaced():
    m = started()
    m.step(Drained("w1", deadline=60.0, at=5.0))
    m.step(Placed("w3", "n", 6.0))
    (publish,) = m.step(Ready("w3", 7.0))
    assert publish.generation.members == ("w0", "w2", "w3")


def test_a_worker_at_risk_works_on_until_it_is_replaced_from_another_node():
    m = started()
    (launch,) = m.step(Drained("w1", deadline=float("inf"), at=5.0))
    assert m.workers["w1"].node in launch.avoid
    assert m.step(Tick(5000.0)) == []
    m.step(Placed("w3", "n", 6.0))
    (publish,) = m.step(Ready("w3", 7.0))
    assert publish.generation.members == ("w0", "w2", "w3")


def test_a_worker_at_risk_leaves_in_time_when_its_machine_goes():
    m = started()
    m.step(Drained("w1", deadline=float("inf"), at=5.0))
    assert m.step(Drained("w1", deadline=60.0, at=6.0)) == [], "another was asked for before"
    (publish,) = m.step(Tick(55.0))
    assert publish.generation.members == ("w0", "w2")


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
    m.step(Arrived("w0", publish.generation.number, 40, 0, False, 11.0))
    go, relieved = m.step(Arrived("w1", publish.generation.number, -1, 0, False, 11.0))
    assert go.source == "w0"
    assert relieved.generation.members == ("w1",)
    assert not relieved.generation.urgent
    assert kinds(m.step(Arrived("w1", relieved.generation.number, 41, 0, False, 12.0))) == ["Go", "Dismiss"]


def test_the_users_error_ends_the_run():
    m = started()
    assert m.step(Raised("w1", "ValueError", "user", 5.0)) == [Fail("ValueError", "w1")]
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
    m.step(Arrived("w0", m.published.number, 9, 0, False, 7.0))
    m.step(Arrived("w2", m.published.number, 9, 0, False, 7.0))
    m.step(Placed("w3", "n", 7.1))
    (publish,) = m.step(Ready("w3", 7.2))
    assert publish.generation.members == ("w0", "w2", "w3")
    for worker, step in (("w0", 9), ("w2", 9), ("w3", -1)):
        m.step(Arrived(worker, publish.generation.number, step, 0, False, 8.0))
    told = m.step(Committed("w0", publish.generation.number, 10, 0.1, 9.0))
    assert [(a.cause, a.workers) for a in told] == [("drained", ("w1",)), ("joined", ("w3",))]


def generation(actions: list) -> Generation:
    return next(a for a in actions if isinstance(a, Publish)).generation


def warm(m: Membership, worker: str, node: str = "n", at: float = 6.0) -> None:
    assert m.step(Placed(worker, node, at)) == []


# 2.3: one bad machine


def test_2_3_a_joiner_that_raises_in_its_setup_is_a_failed_start() -> None:
    """`Fail` while warming beside a healthy generation was seen."""
    for kind in ("user", "machine"):
        m = started()
        m.step(Gone("w1", "process_died", 5.0))
        enter(m, {"w0": 7, "w2": 7})
        for i in range(3, 20):
            warm(m, f"w{i}", "bad")
            actions = m.step(Raised(f"w{i}", "the mount is missing", kind, 6.0 + 100 * i))
            assert kinds(actions) == ["Dismiss", "Launch"]
            assert m.active is not None
            assert m.active.members == ("w0", "w2")
        assert actions[1].after_s == 60.0, "with back-off"
        assert actions[1].avoid == ("bad",), "and elsewhere"


def test_2_3_one_that_was_published_and_never_a_member_is_a_failed_start_too() -> None:
    m = started(2)
    m.step(Gone("w1", "process_died", 5.0))
    enter(m, {"w0": 7})
    warm(m, "w2")
    assert generation(m.step(Ready("w2", 7.0))).members == ("w0", "w2")
    assert generation(m.step(Raised("w2", "no such device", "user", 7.5))).members == ("w0",)


def test_2_3_a_users_error_with_nobody_else_standing_ends_the_run_at_once() -> None:
    m = Membership(Policy(8, 1, 2))
    m.begin()
    warm(m, "w0")
    warm(m, "w1")
    assert kinds(m.step(Raised("w0", "ImportError", "user", 1.0))) == ["Dismiss", "Launch"], "w1 may get through"
    _, fail = m.step(Raised("w1", "ImportError", "user", 1.1))
    assert fail == Fail("ImportError", "w1")


def test_2_3_a_machines_error_with_nobody_standing_needs_attempts_and_time() -> None:
    m = Membership(Policy(8, 1, 1))
    m.begin()
    for i in range(ATTEMPTS + 3):
        warm(m, f"w{i}")
        actions = m.step(Raised(f"w{i}", "the disk is full", "machine", float(i)))
        assert kinds(actions) == ["Dismiss", "Launch"]
    warm(m, actions[1].worker)
    assert m.step(Raised(actions[1].worker, "the disk is full", "machine", ATTEMPTS_S))[-1] == Fail(
        "the disk is full", actions[1].worker
    )


def test_2_3_a_worker_that_was_never_placed_may_raise_as_well() -> None:
    m = started(1)
    m.step(Gone("w0", "process_died", 5.0))
    assert kinds(m.step(Raised("w1", "no place", "machine", 6.0))) == ["Dismiss", "Launch"]


def test_2_3_hardware_that_fails_on_a_member_takes_the_machine_out() -> None:
    m = started()
    actions = m.step(Raised("w1", "CUDA error: uncorrectable ECC error", "machine", 5.0))
    assert actions[0] == Dismiss("w1", "hardware")
    assert generation(actions).members == ("w0", "w2")
    assert actions[-1].avoid == ("node-w1",)


def test_2_3_the_users_error_on_a_member_ends_the_run_once() -> None:
    m = started()
    assert m.step(Raised("w1", "ValueError", "user", 5.0)) == [Fail("ValueError", "w1")]
    assert m.ended
    assert m.step(Raised("w2", "ValueError", "user", 5.0)) == []


def test_2_3_one_that_was_evicted_cannot_end_the_run() -> None:
    m = started()
    m.step(Gone("w1", "link_cut", 5.0))
    assert kinds(m.step(Raised("w1", "nobody leads any more", "user", 9.0))) == ["Dismiss"]
    assert not m.ended


def test_2_3_a_failed_start_beside_a_healthy_generation_never_ends_the_run() -> None:
    m = started(2)
    m.step(Gone("w1", "process_died", 5.0))
    enter(m, {"w0": 7})
    for i in range(2, 40):
        warm(m, f"w{i}")
        assert not any(isinstance(a, Fail) for a in m.step(Gone(f"w{i}", "start_failed", 100.0 * i)))


# 2.7: parted workers


def test_2_7_of_two_that_cannot_reach_each_other_one_goes_within_a_moment() -> None:
    m = started()
    assert m.step(Lost("w0", 1, ("w1",), 5.0)) == [], "others may say the same"
    assert m.step(Lost("w1", 1, ("w0",), 5.1)) == []
    assert m.step(Tick(5.2)) == []
    actions = m.step(Tick(5.3))
    assert actions[0] == Dismiss("w1", "parted")
    assert generation(actions).members == ("w0", "w2")
    assert actions[-1].avoid == ("node-w1",)
    enter(m, {"w0": 7, "w2": 7})
    (recovered,) = m.step(Committed("w0", m.active.number, 8, 0.5, 6.0))
    assert (recovered.cause, recovered.workers, recovered.detected_at) == ("parted", ("w1",), 5.0)


def test_2_7_the_most_blamed_goes_and_the_others_stay() -> None:
    m = started(4)
    m.step(Lost("w0", 1, ("w1",), 5.0))
    m.step(Lost("w2", 1, ("w0",), 5.1))
    m.step(Lost("w3", 1, ("w0",), 5.1))
    assert generation(m.step(Tick(5.4))).members == ("w1", "w2", "w3")


def test_2_7_two_pairs_cost_two_workers_and_one_generation() -> None:
    m = started(4)
    m.step(Lost("w0", 1, ("w1",), 5.0))
    m.step(Lost("w2", 1, ("w3",), 5.0))
    actions = m.step(Tick(5.4))
    assert [a.worker for a in actions if isinstance(a, Dismiss)] == ["w3", "w1"]
    assert generation(actions).members == ("w0", "w2")
    assert kinds(actions).count("Publish") == 1


def test_2_7_an_accusation_that_comes_after_the_break_is_heard() -> None:
    """The news of one that was severed may overtake the news of who severed it."""
    m = started()
    assert generation(m.step(Lost("w2", 1, (), 5.0))).members == ("w0", "w1", "w2")
    m.step(Lost("w0", 1, ("w1",), 5.05))
    assert generation(m.step(Tick(5.4))).members == ("w0", "w2")


def test_2_7_a_death_explains_it_meanwhile() -> None:
    m = started()
    m.step(Lost("w0", 1, ("w1",), 5.0))
    assert generation(m.step(Gone("w1", "node_died", 5.1))).members == ("w0", "w2")
    assert not [a for a in m.step(Tick(5.4)) if isinstance(a, Dismiss)]


def test_2_7_a_generation_that_is_stuck_is_broken() -> None:
    m = started()
    assert m.step(Stuck(7, 5.0)) == []
    again = generation(m.step(Stuck(1, 5.0)))
    assert again.urgent
    assert again.members == ("w0", "w1", "w2")
    enter(m, {"w0": 7, "w1": 7, "w2": 7})
    assert m.step(Committed("w0", m.active.number, 8, 4.0, 6.0))[0].cause == "stuck"


# 2.9: seats


def test_2_9_a_blip_while_all_are_relieved_seats_no_more_than_there_are_seats() -> None:
    for lanes in (2, 8):
        m = started(2, lanes=lanes)
        m.step(Drained("w0", 60.0, 5.0))
        m.step(Drained("w1", 60.0, 5.0))
        warm(m, "w2")
        warm(m, "w3")
        m.step(Lost("w0", 1, (), 5.5))
        m.step(Ready("w2", 6.0))
        m.step(Ready("w3", 6.0))
        m.step(Tick(55.0))  # both are due
        seen = [m.published]
        for at in range(56, 60):
            if m.active is m.published:
                break
            enter(m, {"w0": 9, "w1": 9}, float(at))
            seen.append(m.published)
        assert all(len(g.members) <= seats(lanes, 2) for g in seen), seen
        assert m.published.members == ("w2", "w3") or set(m.published.members) == {"w2", "w3"}


def test_2_9_seats() -> None:
    assert [seats(8, 2), seats(2, 2), seats(8, 8), seats(1, 1)] == [3, 2, 8, 1]


# 2.13: an evaluation is under way


def test_2_13_a_death_in_an_evaluation_seats_no_joiner() -> None:
    """It was published with the joiner, all survivors did all lanes, and the joiner timed out, six times."""
    m = started(3, minimum=2)
    m.step(Gone("w2", "process_died", 5.0))
    enter(m, {"w0": 7, "w1": 7})
    warm(m, "w3")
    assert generation(m.step(Ready("w3", 7.0))).members == ("w0", "w1", "w3")  # after the evaluation
    again = generation(m.step(Gone("w1", "process_died", 7.5)))
    assert again.members == ("w0", "w3"), "fewer than min would be left"
    assert m.step(Arrived("w3", again.number, -1, 0, False, 7.6)) == []
    alone = generation(m.step(Arrived("w0", again.number, 7, 30, True, 7.6)))
    assert alone.members == ("w0",), "it ends its evaluation first, below min"
    assert m.workers["w3"].phase == READY
    (go,) = m.step(Arrived("w0", alone.number, 7, 30, True, 7.7))
    assert isinstance(go, Go)
    assert m.step(Tick(8.0)) == [], "nobody is asked to stop in the evaluation"
    joined = m.step(Committed("w0", alone.number, 8, 1.0, 9.0))
    assert generation(joined).members == ("w0", "w3")
    assert not generation(joined).urgent
    assert enter(m, {"w0": 8}, 9.5).source == "w0"


def test_2_13_survivors_that_are_enough_go_on_without_the_joiner() -> None:
    m = started()
    m.step(Gone("w1", "process_died", 5.0))
    enter(m, {"w0": 7, "w2": 7})
    warm(m, "w3")
    m.step(Ready("w3", 7.0))
    assert generation(m.step(Lost("w0", 2, (), 7.1))).members == ("w0", "w2")
    enter(m, {"w0": 7, "w2": 7})
    assert m.published.members == ("w0", "w2", "w3"), "it enters by the next planned change"
    assert not m.published.urgent


def test_2_13_below_min_after_the_evaluation_training_pauses() -> None:
    m = started(2, minimum=2)
    m.step(Gone("w1", "process_died", 5.0))
    warm(m, "w2")
    both = generation(m.step(Ready("w2", 6.0)))
    m.step(Arrived("w2", both.number, -1, 0, False, 6.1))
    alone = generation(m.step(Arrived("w0", both.number, 7, 30, True, 6.1)))
    m.step(Arrived("w0", alone.number, 7, 30, True, 6.2))
    m.step(Gone("w2", "process_died", 6.3))
    (_, pause) = m.step(Committed("w0", alone.number, 8, 1.0, 9.0))
    assert isinstance(pause, Pause)
    assert not pause.urgent


def test_2_13_where_nobody_holds_a_whole_state_there_is_no_evaluation_to_end() -> None:
    """A survivor may get the others' outcome in part, and be all that is left: nobody would have been published."""
    m = started(2)
    alone = generation(m.step(Gone("w1", "process_died", 5.0)))
    assert alone.members == ("w0",)
    (go,) = m.step(Arrived("w0", alone.number, -1, 30, True, 5.1))
    assert isinstance(go, Go)
    assert go.source is None


# 2.18: notices


def test_2_18_a_second_and_shorter_notice_moves_the_deadline() -> None:
    m = started()
    m.step(Drained("w1", deadline=600.0, at=5.0))
    assert m.step(Tick(20.0)) == []
    assert m.step(Drained("w1", deadline=30.0, at=21.0)) == []
    assert m.step(Drained("w1", deadline=900.0, at=22.0)) == [], "a longer one is no gift"
    assert m.workers["w1"].deadline == 30.0
    assert generation(m.step(Tick(25.0))).members == ("w0", "w2")


def test_2_18_a_shorter_notice_may_mean_now() -> None:
    m = started()
    m.step(Drained("w1", deadline=600.0, at=5.0))
    assert generation(m.step(Drained("w1", deadline=8.0, at=6.0))).members == ("w0", "w2")


def test_2_18_notice_for_the_heads_own_machine_saves_at_once_and_before_it_goes() -> None:
    m = started()
    assert kinds(m.step(HeadDrained(60.0, 5.0))) == ["Save"]
    assert m.step(HeadDrained(60.0, 5.5)) == []
    assert m.step(Tick(54.0)) == []
    assert kinds(m.step(Tick(55.0))) == ["Save"]
    assert m.step(Tick(56.0)) == []
    assert kinds(started().step(HeadDrained(6.0, 5.0))) == ["Save"]


# 2.19: the fence


def test_2_19_leases_come_with_go() -> None:
    m = Membership(Policy(8, 1, 2))
    m.begin()
    warm(m, "w0", "n0")
    warm(m, "w1", "n1")
    m.step(Ready("w0", 1.0))
    m.step(Ready("w1", 1.0))
    assert enter(m, {}).lease_s == lease_s(m.policy.patience, 2)
    m.step(Gone("w1", "process_died", 5.0))
    assert enter(m, {"w0": 7}).lease_s == lease_s(m.policy.patience, 1)


def test_2_19_nobody_begins_beside_a_generation_that_may_not_know_that_it_is_out() -> None:
    m = started(2)
    lease = lease_s(m.policy.patience, 2)
    m.step(Gone("w0", "link_cut", 5.0, silent_s=2.1, heard_s=2.1))
    assert "Pause" in kinds(m.step(Gone("w1", "link_cut", 5.5, silent_s=2.2, heard_s=2.2)))
    for worker in ("w2", "w3"):
        warm(m, worker)
        assert m.step(Ready(worker, 8.0)) == [], "they may still train, and commit"
    assert m.step(Tick(5.5 - 2.2 + lease - 0.1)) == []
    assert generation(m.step(Tick(5.5 - 2.2 + lease))).members == ("w2", "w3")


def test_2_19_the_dead_hold_no_lease() -> None:
    m = started(2)
    m.step(Gone("w0", "process_died", 5.0))
    m.step(Gone("w1", "process_died", 5.5))
    warm(m, "w2")
    warm(m, "w3")
    m.step(Ready("w2", 8.0))
    assert generation(m.step(Ready("w3", 8.0))).members == ("w2", "w3")


def test_2_19_rays_word_on_a_dead_node_is_no_fence() -> None:
    """It means that Ray did not hear of it: cut off from the head, its workers may train on with the others'."""
    m = started(2)
    m.step(Gone("w0", "node_died", 14.0, silent_s=9.0, heard_s=9.0))
    m.step(Gone("w1", "node_died", 14.0, silent_s=9.0, heard_s=9.0))
    warm(m, "w2")
    warm(m, "w3")
    m.step(Ready("w2", 15.0))
    assert m.step(Ready("w3", 15.0)) == []
    assert generation(m.step(Tick(5.0 + lease_s(m.policy.patience, 2)))).members == ("w2", "w3")


def test_2_19_those_that_are_left_fence_the_others_out() -> None:
    m = started(2)
    assert generation(m.step(Gone("w0", "link_cut", 5.0, 2.1, 2.1))).members == ("w1",)


def test_2_19_a_generation_on_one_node_is_fenced_by_the_silence_that_condemns_it() -> None:
    m = started(1)
    m.step(Gone("w0", "link_cut", 5.0, silent_s=2.1, heard_s=2.1))
    warm(m, "w1")
    assert generation(m.step(Ready("w1", 5.1))).members == ("w1",)


def test_2_18_where_all_must_leave_the_state_is_handed_on_though_each_lane_is_taken() -> None:
    """Whoever holds it took the seat of one that `min` asks for: pauses and generations of those that leave took turns
    until their machines were gone, and their steps with them."""
    m = started(2, lanes=2, minimum=2)
    for old, new in (("w0", "w2"), ("w1", "w3")):
        m.step(Drained(old, 10.0, 3.0))
        warm(m, new)
    m.step(Ready("w2", 7.0))
    m.step(Ready("w3", 7.0))
    for _ in range(6):
        if m.published.members == ("w2", "w3"):
            break
        source = enter(m, {"w0": 7, "w1": 7} | dict.fromkeys(m.carried.keys() & {"w2"}, 7), 7.5).source
        assert source is not None
    assert m.published.members == ("w2", "w3")


def test_a_hundred_losses_at_once_are_one_generation() -> None:
    names = tuple(f"w{i}" for i in range(300))
    m = Membership(Policy(lanes=600, min=1, max=300))
    m.begin()
    for name in names:
        m.step(Placed(name, f"node-{name}", 0.0))
    (publish,) = [a for a in m.together([Ready(name, 1.0) for name in names]) if isinstance(a, Publish)]
    assert set(publish.generation.members) == set(names)
    for name in names:
        m.step(Arrived(name, 1, 0, 0, False, 2.0))
    assert m.active is not None
    for name in names:
        m.step(Committed(name, 1, 1, 0.1, 2.5))
    gone = names[50:150]
    actions = m.together([Gone(name, "process_died", 3.0) for name in gone])
    (publish,) = [a for a in actions if isinstance(a, Publish)]
    assert publish.generation.urgent
    assert publish.generation.members == tuple(name for name in names if name not in gone)
    assert sum(isinstance(a, Dismiss) for a in actions) == len(gone)
    assert sum(isinstance(a, Launch) for a in actions) == len(gone)
    assert "100 workers are gone, w50 (process_died) first" in publish.generation.reason


def test_a_tick_over_a_run_at_rest_looks_at_nobody() -> None:
    m = started(4, 4)
    looked: list[float] = []
    planned = m._planned
    m._planned = lambda at: looked.append(at) or planned(at)  # type: ignore[method-assign, func-returns-value]
    assert m.step(Tick(13.0)) == []
    assert m.step(Tick(14.0)) == []
    assert looked == [13.0]
    m.step(Drained("w1", 100.0, 14.0))
    m.step(Tick(15.0))
    assert looked[-1] == 15.0, "a deadline may be near at any tick"
    assert kinds(m.step(Tick(96.0))) == ["Publish"]
