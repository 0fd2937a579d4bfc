"""Invariants of the membership under every history that chance can think of, and the histories that once broke them."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    Ready,
    Slow,
    Tick,
)
from headway.core.lanes import moved
from headway.core.membership import Membership, Policy
from headway.sim.drill import drill, settle, unharmed
from headway.sim.workers import BAD_MOUNT, World, most_that_stay

GIVEN_UP = ("without a single new step", BAD_MOUNT, "no worker could be started")

policies = st.integers(1, 5).flatmap(
    lambda most: st.builds(
        Policy,
        lanes=st.integers(most, 9),
        min=st.integers(1, most),
        max=st.just(most),
        slow=st.sampled_from(["report", "rebalance", "replace"]),
        spares=st.integers(0, 2),
    )
)


@settings(max_examples=150, deadline=None)
@given(policies, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**6)), max_size=250), st.integers(0, 2**32))
def test_every_history_keeps_the_invariants(policy: Policy, choices: list[tuple[int, int]], seed: int):
    """Lanes, numbers, sources and lost steps are checked by the world at each decision; progress and digest here."""
    world = World(policy, steps=8)
    for kind, pick in choices:
        if world.ended is not None:
            break
        # One fault in ten moves; all moves are there so that the shortest history is what a failure shows.
        possible = list(world.faults() if kind == 0 else world.moves())
        if possible and kind != 1:
            possible[pick % len(possible)]()
        else:
            world.tick()
    settle(world, random.Random(seed))
    assert isinstance(world.ended, End) or given_up(world)
    assert isinstance(world.ended, Fail) or unharmed(world)


@pytest.mark.parametrize(
    "first", [0, 250, *(pytest.param(first, marks=pytest.mark.slow) for first in range(500, 2000, 250))]
)
def test_wild_histories_keep_the_invariants(first: int):
    """Many more, longer and wilder than hypothesis has time for: some faults show once in a thousand histories."""
    for seed in range(first, first + 250):
        chance = random.Random(seed)
        most = chance.randint(1, 5)
        slow = chance.choice(["report", "rebalance", "replace"])
        policy = Policy(chance.randint(most, 9), chance.randint(1, most), most, slow=slow, spares=seed % 3)
        world = World(policy, chance.choice([3, 6, 30]))
        rate = chance.choice([0.01, 0.02, 0.05, 0.2])
        for _ in range(chance.choice([50, 200, 600])):
            if world.ended is not None:
                break
            draw = chance.random()
            possible = list(world.faults() if draw < rate else world.moves())
            if possible and draw < 0.97:
                chance.choice(possible)()
            else:
                world.tick(chance.choice([0.3, 1.0, 5.0]))
        settle(world, chance)
        assert given_up(world) or (isinstance(world.ended, End) and unharmed(world)), f"seed {seed}: {world.ended}"


@pytest.mark.parametrize("first", [0, pytest.param(250, marks=pytest.mark.slow)])
def test_what_is_taken_in_at_once_keeps_the_invariants(first: int):
    """The losses of some, and that others are ready, decided about together: at any moment, among all other events."""
    gone = mixed = 0
    for seed in range(first, first + 250):
        chance = random.Random(seed)
        most = chance.randint(2, 6)
        policy = Policy(chance.randint(most, 9), chance.randint(1, most // 2), most, spares=seed % 3)
        world = World(policy, chance.choice([3, 6, 30]), together=True)
        rate = chance.choice([0.02, 0.05, 0.2])
        for _ in range(chance.choice([50, 200, 600])):
            if world.ended is not None:
                break
            draw = chance.random()
            possible = list(world.faults() if draw < rate else world.moves())
            if possible and draw < 0.97:
                # Not looked for by the deaths alone: it is to happen often.
                at_once = [move for move in possible if move == world.gather]
                chance.choice(at_once if at_once and chance.random() < 0.3 else possible)()
            else:
                world.tick(chance.choice([0.3, 1.0, 5.0]))
        settle(world, chance)
        taken = [line.partition("\n")[0] for line in world.log if ") and " in line.partition("\n")[0]]
        gone += sum(line.count("Gone(") > 1 for line in taken)
        mixed += sum("Gone(" in line and "Ready(" in line for line in taken)
        assert given_up(world) or (isinstance(world.ended, End) and unharmed(world)), f"seed {seed}: {world.ended}"
    assert (gone > 100, mixed > 100) == (True, True), f"{gone} times several are gone, {mixed} times others are ready"


@pytest.mark.parametrize("first", [0, pytest.param(500, marks=pytest.mark.slow)])
def test_sizes_asked_for_at_any_moment_keep_the_invariants(first: int):
    """In a recovery, a drain, an evaluation, a pause, many at once: whoever asks for whatever size."""
    shrunk = 0
    for seed in range(first, first + 250):
        chance = random.Random(seed)
        most = chance.randint(1, 5)
        slow = chance.choice(["report", "rebalance", "replace"])
        policy = Policy(chance.randint(most, 9), chance.randint(1, most), most, slow=slow, spares=seed % 3)
        world = World(policy, chance.choice([3, 6, 30]))
        rate, wish = chance.choice([0.01, 0.05, 0.2]), chance.choice([0.01, 0.05, 0.2])
        for _ in range(chance.choice([50, 200, 600])):
            if world.ended is not None:
                break
            draw = chance.random()
            wishes = world.wishes() if draw < rate + wish else world.moves()
            possible = list(world.faults() if draw < rate else wishes)
            if possible and draw < 0.97:
                chance.choice(possible)()
            else:
                world.tick(chance.choice([0.3, 1.0, 5.0]))
        settle(world, chance)
        shrunk += any("the others go on without it" in line for line in world.log)
        assert given_up(world) or (isinstance(world.ended, End) and unharmed(world)), f"seed {seed}: {world.ended}"
    assert shrunk > 20


@pytest.mark.parametrize("seed", range(40))
def test_random_drills_end_with_the_digest_of_the_quiet_run(seed: int):
    result = drill(seed)
    assert result.ended
    assert result.same_samples


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), st.data())
def test_as_many_lanes_stay_as_in_the_best_of_all_assignments(lanes: int, data: st.DataObject):
    workers = [f"w{i}" for i in range(data.draw(st.integers(1, min(lanes, 4))))]
    old = data.draw(st.lists(st.sampled_from([*workers, "gone", "gone too"]), min_size=lanes, max_size=lanes))
    before = {w: tuple(lane for lane in range(lanes) if old[lane] == w) for w in set(old)}
    result = moved(lanes, workers, before)
    assert sorted(itertools.chain(*result)) == list(range(lanes))
    stay = sum(len(set(before.get(w, ())) & set(mine)) for w, mine in zip(workers, result, strict=True))
    best = 0
    for carriers in itertools.product(workers, repeat=lanes):
        sizes = [carriers.count(w) for w in workers]
        if max(sizes) - min(sizes) <= 1:
            best = max(best, sum(a == b for a, b in zip(carriers, old, strict=True)))
    assert stay == best == most_that_stay(lanes, [len(before.get(w, ())) for w in workers])


def given_up(world: World) -> bool:
    """Whether the run ended for so many faults as chance may bring."""
    return isinstance(world.ended, Fail) and any(reason in world.ended.reason for reason in GIVEN_UP)


# Histories that were found


def started(workers: int = 3, minimum: int = 1, lanes: int = 8, **policy: object) -> Membership:
    m = Membership(Policy(lanes, minimum, workers, **policy))  # type: ignore[arg-type]
    names = [a.worker for a in m.begin() if isinstance(a, Launch)]
    for name in names:
        m.step(Placed(name, f"node-{name}", 0.0))
    for name in names:
        m.step(Ready(name, 1.0))
    go(m, dict.fromkeys(names, 0))
    return m


def go(m: Membership, steps: dict[str, int]) -> Go:
    assert m.published is not None
    actions = [
        a for w in m.published.members for a in m.step(Arrived(w, m.published.number, steps.get(w, -1), 0, False, 2.0))
    ]
    return next(a for a in actions if isinstance(a, Go))


def publish(actions: list) -> Publish:
    return next(a for a in actions if isinstance(a, Publish))


def join(m: Membership, name: str, at: float) -> list:
    m.step(Placed(name, "n", at))
    return m.step(Ready(name, at))


def test_a_leaver_that_may_be_a_step_ahead_is_asked_before_it_goes():
    m = started(3)
    m.step(Drained("w0", 9.0, 5.0))
    assert set(publish(m.step(Gone("w1", "process_died", 5.1))).generation.members) == {"w0", "w2"}
    assert m.published is not None
    number = m.published.number
    m.step(Arrived("w0", number, 8, 0, False, 5.2))
    first, second = m.step(Arrived("w2", number, 7, 0, False, 5.2))
    assert isinstance(first, Go)
    assert first.source == "w0"
    assert isinstance(second, Publish)
    assert second.generation.members == ("w2",)
    assert not second.generation.urgent


def test_a_relief_that_was_not_levelled_does_not_lose_the_state():
    m = started(1)
    m.step(Drained("w0", 60.0, 5.0))
    join(m, "w1", 9.0)
    go(m, {"w0": 40})
    again = publish(m.step(Lost("w1", m.active.number if m.active else -1, (), 10.0)))
    assert set(again.generation.members) == {"w0", "w1"}
    assert go(m, {"w0": 40}).source == "w0"


def test_a_death_breaks_the_generation_until_the_next_goes():
    m = started(3)
    m.step(Gone("w1", "link_cut", 5.0))
    assert m.active is None
    assert m.step(Lost("w0", 1, (), 5.1)) == []
    assert publish(m.step(Gone("w2", "process_died", 5.2))).generation.urgent


def test_a_death_while_a_planned_pause_waits_for_the_end_of_a_step_stops_the_others():
    m = started(3, minimum=3)
    m.step(Drained("w0", 13.0, 5.0))
    (first,) = (a for a in m.step(Tick(8.5)) if isinstance(a, Pause))
    assert not first.urgent
    (second,) = (a for a in m.step(Gone("w1", "link_cut", 8.6)) if isinstance(a, Pause))
    assert second.urgent
    assert second.number > first.number
    m = started(3, minimum=3)
    m.step(Drained("w0", 13.0, 5.0))
    m.step(Tick(8.5))
    assert m.step(Lost("w2", 1, (), 8.6))[0].urgent  # type: ignore[union-attr]


def test_whoever_finished_is_not_waited_for():
    m = started(3)
    assert publish(m.step(Gone("w2", "process_died", 5.0))).generation.members == ("w0", "w1")
    assert publish(m.step(Finished("w0", 5.1))).generation.members == ("w1",)


def test_the_end_needs_no_min():
    m = started(2, minimum=2)
    m.step(Finished("w0", 5.0))
    assert publish(m.step(Lost("w1", 1, (), 5.1))).generation.members == ("w1",)


def test_a_finished_worker_that_is_gone_starts_nobody():
    m = started(3)
    m.step(Finished("w0", 5.0))
    assert m.step(Gone("w0", "process_died", 5.1)) == [Dismiss("w0", "process_died")]
    kinds = [type(a) for a in m.step(Gone("w1", "process_died", 5.2))]
    assert Launch not in kinds


def test_joiners_that_die_beside_a_healthy_generation_do_not_end_the_run():
    m = started(2)
    m.step(Gone("w1", "process_died", 5.0))
    go(m, {"w0": 7})
    m.step(Committed("w0", 2, 8, 0.1, 5.5))
    for i in range(2, 40):
        assert not any(isinstance(a, Fail) for a in m.step(Gone(f"w{i}", "start_failed", 6.0)))


def test_deaths_are_not_taken_for_connections_that_break():
    m = started(8, blips=2)
    for i in range(6):
        assert m.active is not None
        assert not any(isinstance(a, Fail) for a in m.step(Lost("w7", m.active.number, (), 5.0)))
        m.step(Gone(f"w{i}", "process_died", 5.0))
        go(m, dict.fromkeys(m.workers, 7))


def test_a_thousand_failed_starts_do_not_overflow_the_back_off():
    m = Membership(Policy(3000, 1, 3000))
    m.begin()
    for i in range(1500):
        (_, launch) = m.step(Gone(f"w{i}", "start_failed", 1.0))
    assert launch.after_s == 60.0


def test_a_notice_counts_for_a_worker_that_was_slow():
    m = started(2, slow="replace")
    m.step(Slow("w1", 3.0, 5.0))
    assert publish(m.step(Drained("w1", 10.0, 6.0))).generation.members == ("w0",)


def test_a_first_worker_that_is_ready_at_time_zero_does_not_wait_for_ever():
    m = Membership(Policy(8, 1, 2, gather_s=3.0))
    m.begin()
    m.step(Placed("w0", "n", 0.0))
    m.step(Placed("w1", "n", 0.0))
    m.step(Ready("w0", 0.0))
    assert publish(m.step(Tick(3.0))).generation.members == ("w0",)


def test_news_of_a_worker_whose_place_is_not_known_yet_does_not_lose_it():
    m = Membership(Policy(8, 1, 1))
    m.begin()
    assert m.step(Drained("w0", 60.0, 0.0)) == []
    assert publish(join(m, "w0", 1.0)).generation.members == ("w0",)


def test_a_second_arrival_does_not_start_a_generation_twice():
    m = started(1)
    assert m.step(Arrived("w0", 1, 0, 0, False, 3.0)) == []


def test_a_drained_worker_is_out_before_its_deadline():
    for others in range(1, 4):
        m = started(others + 1)
        assert "w0" not in publish(m.step(Drained("w0", 9.0, 5.0))).generation.members
        go(m, dict.fromkeys(m.workers, 9))
        assert "w0" not in m.workers


def test_a_decision_among_ten_thousand_takes_milliseconds():
    """CPU time, the best of three: the machine may be busy. Measured: 20 ms for the worst decision, 2 us an arrival."""
    number = 10_000
    m = started(number, lanes=number)
    worst, arrivals = [], []
    for dead in ("w17", "w18", "w19"):
        start = time.process_time()
        actions = m.step(Gone(dead, "process_died", 5.0))
        worst.append(time.process_time() - start)
        generation = publish(actions).generation
        start = time.process_time()
        for w in generation.members:
            m.step(Arrived(w, generation.number, 7, 0, False, 6.0))
        arrivals.append(time.process_time() - start)
    assert min(worst) <= 0.05
    assert min(arrivals) <= 0.25, "25 us each, with the decision to go"
