"""The keeper of a queue against a cluster and a store in memory: it dies anywhere, two are there, the store is away."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headway.core import bookings, enqueued
from headway.core.bookings import Book
from headway.core.enqueued import Entry, Seen
from headway.core.queue import decide
from headway.core.queue_orders import Lacking, lacking
from headway.core.queued import Each, Node, Queued, Quota, Rules
from headway.queues.keeper import Keeper
from headway.queues.place import LEASE_S, QueuePlace, book_of, lives
from headway.runs.epochs import Superseded
from headway.runs.remote import Clock as Waits
from headway.testing.memory_storage import Memory, Stopped, Troubles
from headway.testing.queueing import Clock, FakeCluster


class World:
    """A store, a cluster, and one keeper after another."""

    def __init__(self, nodes: dict[str, int] | None = None, works: dict[str, float] | None = None) -> None:
        self.clock = Clock()
        self.store = Memory(self.clock)
        self.cluster = FakeCluster(nodes or {"n0": 2, "n1": 2}, self.clock, works)
        self.people = self.place()
        self.keeper: Keeper | None = None
        self.keepers = 0

    def place(self, troubles: Troubles | None = None) -> QueuePlace:
        return QueuePlace(self.store.client(troubles), Waits(self.clock, self.clock.sleep))

    def begin(self, troubles: Troubles | None = None) -> Keeper:
        place = self.place(troubles)
        lease = place.lead("test")
        self.keeper = Keeper(place, lease, book_of(lease.head), self.cluster, self.clock)
        self.keepers += 1
        return self.keeper

    def submit(self, run: str, most: int = 1, least: int = 1, priority: int = 0, **more: Any) -> str:
        entry = Entry(run, f"a{run}", user="ann", priority=priority, least=least, most=most, **more)
        return self.wish("submit", {"entry": enqueued.to_tree(entry)})

    def wish(self, do: str, what: dict[str, Any]) -> str:
        made = self.people.wish(do, "ann@here", what)
        self.clock.pass_s(0.001)
        return made.id

    def turn(self, seconds: float = 0.5, turns: int = 1) -> None:
        assert self.keeper is not None
        for _ in range(turns):
            self.keeper.turn()
            self.clock.pass_s(seconds)
            self.cluster.live()

    def until(self, condition: Callable[[], Any], turns: int = 400) -> None:
        for _ in range(turns):
            self.turn()
            if condition():
                return
        raise AssertionError(f"not within {turns} turns: {self.states()}")

    @property
    def book(self) -> Book:
        found = self.people.read()
        assert found is not None
        return found[0]

    def entry(self, run: str) -> Entry:
        return self.book.entries[run]

    def states(self) -> dict[str, tuple[str, int]]:
        return {run: (entry.state, entry.workers) for run, entry in self.book.entries.items()}

    def over(self) -> bool:
        return all(entry.over for entry in self.book.entries.values())


QUICK = {"rules": {"snooze_s": 1.0}}


def test_a_job_goes_through_the_queue() -> None:
    world = World(works={"one": 8.0})
    wish = world.submit("one", most=4)
    world.begin()
    world.turn()
    assert world.book.answers[wish].said == "one is in the queue"
    assert world.people.wishes() == []
    assert world.states() == {"one": ("starting", 4)}
    world.until(lambda: world.entry("one").state == "running")
    world.until(world.over)
    assert world.states() == {"one": ("finished", 0)}
    assert world.cluster.acts == [f"start one {world.entry('one').start} 4"]
    told = [(each["run"], each["do"], each["workers"]) for each in world.people.decisions()]
    assert told == [("one", "start", 4), ("one", "running", 4), ("one", "finished", 0)]


def test_a_higher_priority_borrows_workers_and_they_go_back() -> None:
    world = World(works={"low": 100.0, "high": 6.0})
    world.submit("low", most=4)
    world.begin()
    world.wish("rules", QUICK)
    world.until(lambda: world.entry("low").state == "running")
    world.submit("high", most=2, least=2, priority=5)
    world.turn()
    assert (world.entry("low").workers, world.entry("high").workers) == (2, 2)
    assert world.cluster.starts[world.entry("low").start].has == 2  # in the very turn
    world.until(lambda: world.entry("high").over)
    world.until(lambda: world.entry("low").workers == 4)
    world.until(world.over)
    assert world.states() == {"low": ("finished", 0), "high": ("finished", 0)}
    assert not any(act.startswith("pause") for act in world.cluster.acts)
    assert len(world.cluster.runs["low"].starts) == 1


def test_a_worker_that_needs_a_whole_node_has_one_left_for_it() -> None:
    """Two free places on two nodes would not do."""
    world = World(works={"low": 100.0, "high": 6.0})
    world.submit("low", most=4)
    world.begin()
    world.wish("rules", QUICK)
    world.until(lambda: world.entry("low").state == "running")
    world.submit("high", most=1, priority=5, each={"CPU": 2.0})
    world.turn()
    low = world.entry("low")
    assert low.workers == 2
    assert low.leave in (("n0", "n0"), ("n1", "n1"))
    assert world.cluster.asked_to_leave == {low.order: low.leave}
    world.until(lambda: world.entry("high").over)
    world.until(lambda: world.entry("low").workers == 4)
    assert world.entry("low").leave == ()


def test_a_job_is_paused_where_its_least_is_in_the_way_and_goes_on_as_the_same_run() -> None:
    world = World(works={"low": 60.0, "high": 8.0})
    world.submit("low", most=4, least=3)
    world.begin()
    world.until(lambda: world.entry("low").state == "running")
    world.submit("high", most=4, least=4, priority=5)
    world.until(lambda: world.entry("low").state == "paused")
    done = world.cluster.runs["low"].done
    world.until(lambda: world.entry("low").state == "running" and world.entry("high").over)
    assert world.cluster.runs["low"].done >= done > 0
    world.until(world.over)
    low = world.entry("low")
    assert (low.state, low.starts) == ("finished", 2)
    assert world.cluster.runs["low"].starts == [f"{low.attempt}-1", f"{low.attempt}-2"]


@pytest.mark.parametrize(("by", "state"), [("the queue", "paused"), ("ann@here", "stopped")])
def test_one_that_somebody_stops_while_it_pauses_is_not_begun_again(by: str, state: str) -> None:
    world = World(works={"low": 60.0, "high": 30.0})
    world.submit("low", most=4, least=3)
    world.begin()
    world.until(lambda: world.entry("low").state == "running")
    world.submit("high", most=4, least=4, priority=5)
    world.cluster.starts[world.entry("low").start].by = by
    world.until(lambda: world.entry("low").state not in ("running", "pausing"))
    assert world.entry("low").state == state


def test_one_whose_driver_was_killed_goes_on_and_one_that_never_gets_on_is_given_up() -> None:
    world = World(works={"good": 40.0, "bad": 40.0})
    world.submit("good", most=2)
    world.submit("bad", most=2)
    world.cluster.refuses = {"bad": "platform"}
    world.begin()
    world.until(lambda: world.entry("good").state == "running" and world.entry("good").steps > 0)
    world.cluster.lose("good")
    world.until(lambda: world.entry("good").starts == 2)
    world.until(world.over)
    assert world.entry("good").state == "finished"
    bad = world.entry("bad")
    assert (bad.state, bad.starts) == ("failed", enqueued.MOST_IN_VAIN)


def test_a_task_that_fails_is_not_tried_again() -> None:
    world = World()
    world.submit("wrong")
    world.cluster.refuses = {"wrong": "task"}
    world.begin()
    world.until(world.over)
    assert (world.entry("wrong").state, world.entry("wrong").starts) == ("failed", 1)


def test_what_cannot_be_held_is_refused_and_what_is_in_the_queue_waits_for_a_machine_that_went() -> None:
    world = World()
    world.begin()
    wish = world.submit("vast", most=9, least=9)
    world.turn()
    answer = world.book.answers[wish]
    assert answer.refused
    assert "9 workers" in answer.fact
    assert "4" in answer.reason
    assert "vast" not in world.book.entries
    world.submit("three", most=3, least=3)
    del world.cluster.has["n1"]
    world.keeper = None
    world.begin()
    world.cluster.could_grow = True
    vast = world.submit("vast", most=9, least=9)
    world.turn(turns=6)
    assert not world.book.answers[vast].refused
    assert world.entry("three").state == "waiting"
    world.cluster.could_grow = False
    world.turn(turns=6)
    assert world.entry("three").state == "waiting"
    assert "2" in world.book.waits["three"]
    world.cluster.has["n1"] = 2
    world.until(lambda: world.entry("three").state == "running")


def test_wishes_are_granted_or_refused_once_each() -> None:
    world = World({"n0": 1}, works={"a": 5.0, "b": 5.0, "c": 5.0})
    for run in "abc":
        world.submit(run)
    world.begin()
    world.turn()
    again = world.submit("b")
    asked = {
        "set": world.wish("set", {"run": "c", "priority": 3}),
        "move": world.wish("move", {"run": "b", "before": "a"}),
        "nobody": world.wish("rm", {"run": "d"}),
        "odd": world.wish("dance", {"run": "a"}),
        "broken": world.wish("set", {"nothing": 1}),
    }
    world.turn()
    answers = world.book.answers
    assert answers[again].refused
    assert "b is in the queue" in answers[again].fact
    assert answers[asked["set"]].said == "c has priority 3"
    assert answers[asked["move"]].said == "b is before a"
    assert "d is not in the queue" in answers[asked["nobody"]].fact
    assert answers[asked["odd"]].refused
    assert answers[asked["broken"]].refused
    assert world.entry("c").priority == 3
    assert world.entry("b").rank < world.entry("a").rank
    assert world.people.wishes() == []
    world.wish("rm", {"run": "b"})
    world.wish("rm", {"run": "c"})
    world.until(world.over)
    states = {run: state for run, (state, _) in world.states().items()}
    assert states["b"] == "removed"
    assert states["c"] in ("removed", "stopped")


def test_quotas_hold_at_every_moment() -> None:
    world = World({"n0": 6}, works={f"j{number}": 6.0 for number in range(6)})
    world.begin()
    rules = bookings.rules_tree(Rules(quotas=(Quota(team="ml", workers=2),), most_running=2))
    world.wish("rules", {"rules": rules})
    for number in range(6):
        world.submit(f"j{number}", most=2, team="ml" if number % 2 else "")
    for _ in range(300):
        world.turn()
        held = [entry for entry in world.book.entries.values() if entry.holds]
        assert sum(entry.workers for entry in held if entry.team == "ml") <= 2
        assert len(held) <= 2
        if world.over():
            break
    assert world.over()
    assert {state for state, _ in world.states().values()} == {"finished"}


def test_who_gives_up_counts_until_it_has() -> None:
    """A pause, and a smaller size, which a cluster takes its time over."""
    world = World({"n0": 4, "n1": 4}, works={"low": 60.0, "high": 4.0})
    world.begin()
    world.wish("rules", {"rules": bookings.rules_tree(Rules(quotas=(Quota(user="ann", workers=4),)))})
    world.submit("low", most=4)
    world.until(lambda: world.entry("low").state == "running")
    world.turn(turns=2)
    hears = world.cluster.resize
    world.cluster.resize = lambda entry: None  # type: ignore[method-assign]
    world.submit("high", most=3, least=3, priority=1)
    world.turn(turns=8)
    assert world.states() == {"low": ("running", 1), "high": ("waiting", 0)}
    assert "low gave up" in world.book.waits["high"]
    world.cluster.resize = hears  # type: ignore[method-assign]
    world.until(lambda: world.entry("high").state == "running")
    assert world.cluster.most == 4
    world.until(world.over)
    world = World({"n0": 4, "n1": 4}, works={"low": 60.0, "high": 4.0})
    world.begin()
    world.wish("rules", {"rules": bookings.rules_tree(Rules(most_running=1))})
    world.submit("low", most=4)
    world.until(lambda: world.entry("low").state == "running")
    world.submit("high", priority=1)
    for _ in range(300):
        world.turn()
        assert sum(entry.holds for entry in world.book.entries.values()) <= 1
        if world.over():
            break
    assert {state for state, _ in world.states().values()} == {"finished"}
    assert world.entry("low").starts == 2


@pytest.mark.parametrize(
    "rules",
    [
        {"raised_s": 0},
        {"raised_s": -5},
        {"held_for_s": float("inf")},
        {"snooze_s": "soon"},
        {"most_running": 0},
        {"fair": "dogs"},
        {"quotas": [{"user": "ann", "share": 0}]},
        {"quotas": [{"user": "ann", "workers": "many"}]},
        {"quotas": [{"user": "ann", "shoes": 2}]},
        ["raised_s"],
    ],
)
def test_rules_by_which_nothing_can_be_decided_are_refused(rules: object) -> None:
    world = World(works={"one": 100.0})
    world.begin()
    asked = world.wish("rules", {"rules": rules})
    world.submit("one", most=4)
    world.turn()
    assert world.book.answers[asked].refused
    assert world.book.answers[asked].reason
    assert world.book.rules == Rules()
    assert world.states() == {"one": ("starting", 4)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"least": "1"},
        {"most": 1.5},
        {"sizes": [1, "x"]},
        {"each": {"CPU": "1"}},
        {"each": {"CPU": -1.0}},
        {"each": 3},
        {"rank": float("nan")},
        {"priority": None},
        {"parcels": "abc"},
        {"state": "odd"},
        {"prepared": 1},
        {"run": ""},
    ],
)
def test_an_entry_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    world = World()
    world.begin()
    asked = world.wish("submit", {"entry": {"run": "odd", "attempt": "a", **wrong}})
    world.submit("one", most=4)
    world.turn()
    assert world.book.answers[asked].refused
    assert world.states() == {"one": ("starting", 4)}


def test_rules_of_before_stop_nobody() -> None:
    """As a keeper of an earlier release took them."""
    book = bookings.from_tree({"rules": {"raised_s": 0}})
    waiting = Entry("one", "a").queued(10.0)
    found = decide(10.0, [waiting, replace(waiting, job="two", least=9, most=9, waited_s=7.0)], [], book.rules)
    assert found.waits.keys() == {"one", "two"}


def test_one_with_which_nothing_can_be_decided_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the fault is: who brings it is refused, and who was there before is left alone."""
    odd: set[str] = {"odd"}

    def deciding(now: float, jobs: Any, *rest: Any) -> Any:
        jobs = list(jobs)
        if odd & {job.job for job in jobs}:
            raise IndexError("out of range")
        return decide(now, jobs, *rest)

    monkeypatch.setattr("headway.queues.keeper.decide", deciding)
    world = World(works={"one": 4.0, "two": 4.0, "three": 100.0})
    world.begin()
    first, wrong, last = world.submit("one"), world.submit("odd"), world.submit("two", most=2)
    world.turn(turns=2)
    assert {run: state for run, (state, _) in world.states().items()} == {"one": "starting", "two": "starting"}
    refusals = {wish: world.book.answers[wish].refused for wish in (first, wrong, last)}
    assert refusals == {first: False, wrong: True, last: False}
    assert "out of range" in world.book.answers[wrong].reason
    world.submit("three", most=4, least=4)
    world.submit("four")
    world.turn(turns=2)
    odd.add("three")
    world.until(lambda: world.entry("one").over and world.entry("two").over and world.entry("four").over)
    assert world.entry("three").state == "waiting"
    assert "a fault of Headway's" in world.book.waits["three"]
    odd.clear()
    world.wish("set", {"run": "three", "priority": 1})
    world.until(lambda: world.entry("three").state == "running")


def story(seed: int) -> tuple[World, random.Random]:
    """Jobs that come by and by on a small cluster."""
    draw = random.Random(seed)
    works = {f"j{number}": draw.uniform(2.0, 30.0) for number in range(5)}
    return World({"n0": draw.randint(1, 3), "n1": draw.randint(1, 3)}, works), draw


def play(seed: int, trouble: Callable[[random.Random], Troubles], acts: bool) -> World:
    """A story in which keepers die, at a request of the store or before an act on the cluster."""
    world, draw = story(seed)
    waiting = sorted(world.cluster.works)
    capacity = sum(world.cluster.has.values())

    def between(_: str) -> None:
        if acts and draw.random() < 0.1:
            raise Stopped()

    world.cluster.between = between
    world.wish("rules", QUICK)
    for _ in range(1500):
        if world.keeper is None:
            try:
                world.begin(trouble(draw) if world.keepers < 12 else None)
            except Stopped:
                world.keepers += 1
                continue
        if waiting and draw.random() < 0.1:
            most = draw.randint(1, 4)
            least = min(draw.randint(1, most), capacity)
            world.submit(waiting.pop(), most=most, least=least, priority=draw.randint(0, 2))
        try:
            world.turn(draw.uniform(0.1, 1.0))
        except Stopped:
            world.keeper = None
            world.cluster.live()
        if world.keepers > 12:
            world.cluster.between = lambda _: None
        if not waiting and world.keeper is not None and world.people.wishes() == [] and world.over():
            break
    return world


@pytest.mark.parametrize("how", ["before", "after", "acts"])
def test_a_keeper_that_dies_anywhere_leaves_what_its_successor_goes_on_with(
    how: str, record_property: Callable[[str, object], None]
) -> None:
    base = random.randrange(2**32)
    print(f"seed {base}")
    record_property("seed", base)

    def trouble(draw: random.Random) -> Troubles:
        return Troubles() if how == "acts" else Troubles(stop_at=draw.randint(2, 60), stop_after=how == "after")

    deaths = 0
    for number in range(6):
        world = play(base + number, trouble, acts=how == "acts")
        deaths += world.keepers - 1
        assert world.over(), (base + number, world.states())
        assert len(world.book.entries) == 5
        assert {state for state, _ in world.states().values()} == {"finished"}, (base + number, world.states())
        assert world.cluster.doubled == [], base + number
        for run in world.cluster.runs.values():
            assert len(run.starts) == len(set(run.starts))
        for entry in world.book.entries.values():  # each start that was made is one of the book's
            names = {f"{entry.attempt}-{number}" for number in range(1, entry.starts + 1)}
            assert set(world.cluster.runs[entry.run].starts) <= names
    assert deaths


def test_a_store_that_loses_answers_and_is_away_for_a_while(record_property: Callable[[str, object], None]) -> None:
    base = random.randrange(2**32)
    print(f"seed {base}")
    record_property("seed", base)

    def trouble(draw: random.Random) -> Troubles:
        lost = frozenset(draw.sample(range(2, 400), 40))
        begin = 1000.0 + draw.uniform(5.0, 20.0)
        return Troubles(lost_answers=lost, outages=((begin, begin + 3.0), (begin + 10.0, begin + 14.0)))

    for number in range(4):
        world = play(base + number, trouble, acts=False)
        assert {state for state, _ in world.states().values()} == {"finished"}, (base + number, world.states())
        assert world.cluster.doubled == []


def test_of_two_keepers_one_acts() -> None:
    world = World(works={"one": 100.0})
    old = world.begin()
    world.submit("one", most=4)
    world.turn(turns=8)
    other = World()
    other.clock, other.store, other.cluster, other.people = world.clock, world.store, world.cluster, world.people
    with pytest.raises(Exception, match="led elsewhere"):
        _claim_while(world, old)
    world.keeper = None  # it stands still
    new = other.begin()
    other.wish("rm", {"run": "one"})
    other.turn()
    assert other.entry("one").state == "pausing"
    acts = len(world.cluster.acts)
    world.clock.pass_s(20.0)
    with pytest.raises(Superseded):
        old.turn()
    assert not any("start" in act or "resize" in act for act in world.cluster.acts[acts:])
    new.turn()
    found = other.people.read()
    assert found is not None
    assert found[1].epoch == 2


def _claim_while(world: World, old: Keeper) -> None:
    """As another process would, while the old one goes on."""

    def sleep(seconds: float) -> None:
        world.clock.pass_s(seconds)
        old._lease.renew()

    QueuePlace(world.store.client(), Waits(world.clock, sleep)).lead("other")


def test_a_keeper_that_is_away_is_taken_for_dead_after_its_lease() -> None:
    world = World()
    world.begin()
    found = world.people.read()
    assert found is not None
    assert lives(found[1])
    before = world.clock.now
    world.begin()
    assert LEASE_S <= world.clock.now - before < 2 * LEASE_S
    found = world.people.read()
    assert found is not None
    assert world.people.take_over(("nobody", 1)) is None
    head = found[1]
    before = world.clock.now
    lease = world.people.take_over((head.owner.host, head.owner.pid))
    assert lease is not None
    assert lease.epoch == head.epoch + 1
    assert world.clock.now == before


def test_the_book_is_the_same_after_it_was_written() -> None:
    world = World()
    world.begin()
    world.submit("a", most=4, least=2, sizes=(2, 4), team="ml", each={"CPU": 1.0, "GPU": 1.0})
    world.wish("rules", {"rules": bookings.rules_tree(Rules(quotas=(Quota(user="ann", gpus=2.0),), most_running=3))})
    world.turn(turns=3)
    book = world.book
    assert bookings.from_tree(bookings.to_tree(book)) == book
    with pytest.raises(ValueError, match="damaged"):
        bookings.from_tree({"entries": [1]})


def test_the_next_that_waits_has_all_ready_but_its_workers() -> None:
    world = World({"n0": 2}, works={"one": 40.0, "two": 6.0, "three": 4.0})
    for run in ("one", "two", "three"):
        world.submit(run, most=2, least=2)
    world.begin()
    world.until(lambda: world.entry("one").state == "running")
    two = world.entry("two")
    assert (two.state, two.prepared, two.starts) == ("waiting", True, 0)
    assert not world.entry("three").prepared
    world.turn(turns=12)
    start = world.cluster.starts[two.start]
    assert (start.phase, start.has, start.asked) == ("running", 0, 0)
    world.until(lambda: world.entry("one").over)
    granted = world.clock.now
    world.until(lambda: start.has == 2)
    assert world.clock.now - granted <= 1.0  # no start of 3 s any more
    assert (world.entry("two").start, world.entry("two").starts) == (two.start, 1)
    world.until(world.over)
    assert {state for state, _ in world.states().values()} == {"finished"}
    assert all(len(run.starts) == 1 for run in world.cluster.runs.values())


def test_one_that_fails_while_it_is_prepared_has_failed_and_one_that_is_taken_off_is_ended() -> None:
    world = World({"n0": 1}, works={"one": 50.0})
    world.submit("one")
    world.begin()
    world.until(lambda: world.entry("one").state == "running")
    world.cluster.refuses = {"wrong": "task"}
    world.submit("wrong")
    world.until(lambda: world.entry("wrong").state == "failed")
    assert world.entry("one").state == "running"
    world.submit("other")
    world.until(lambda: world.entry("other").prepared and world.entry("other").start in world.cluster.starts)
    world.wish("rm", {"run": "other"})
    world.until(lambda: world.entry("other").over)
    assert world.cluster.starts[world.entry("other").start].end == "stopped"
    wish = world.wish("rules", {"rules": {"prepared": 0}})
    world.submit("last")
    world.turn(turns=4)
    assert not world.book.answers[wish].refused
    assert not world.entry("last").prepared


def test_a_cluster_that_buys_machines_is_told_what_the_first_that_waits_lacks() -> None:
    """Nobody else asks for them: who waits has no placement group."""
    world = World(works={"one": 60.0, "two": 6.0})
    world.cluster.has.clear()
    world.begin()
    world.cluster.could_grow = True
    world.submit("one", most=4, least=2)
    world.turn(turns=2)
    assert world.cluster.ordered == ("one", 2)
    world.cluster.has["n0"] = 4
    world.until(lambda: world.entry("one").state == "running")
    assert world.entry("one").workers == 4
    assert world.cluster.ordered is None
    world.wish("rules", {"rules": {"most_running": 1}})
    world.submit("two", most=3, least=3)
    world.turn(turns=4)
    assert world.cluster.ordered is None, "it waits for a turn, and not for room"
    world.wish("rules", {"rules": {"most_running": 2}})
    world.turn(turns=4)
    assert world.cluster.ordered == ("two", 1), "two more it has of one, which keeps its least"
    world.wish("rm", {"run": "two"})
    world.turn(turns=4)
    assert world.cluster.ordered is None


def test_of_those_that_wait_the_first_whom_a_machine_helps_has_it_ordered() -> None:
    cpus, rules = Each(1.0), Rules(quotas=(Quota(user="ann", workers=2),), could_come=None)
    runs = Queued("runs", "ann", priority=1, least=2, most=2, each=cpus, state="running", size=2)
    bound = Queued("bound", "ann", least=1, most=1, each=cpus, priority=1)
    wide = Queued("wide", "bob", least=5, most=9, sizes=(1, 6, 8), each=cpus)
    nodes = [Node("n0", Each(4.0), (("runs", 2),))]
    for jobs in ([runs, bound, wide], [wide, runs, bound]):
        found = decide(0.0, jobs, nodes, rules)
        assert [*found.waits] == ["bound", "wide"]
        assert lacking(0.0, jobs, nodes, rules, found.waits) == Lacking("wide", 4)
    found = decide(0.0, [runs, bound], nodes, rules)
    assert lacking(0.0, [runs, bound], nodes, rules, found.waits) is None


def test_what_a_job_that_minds_money_leaves_of_its_workers_is_had_back_and_offered_again() -> None:
    world = World({"n0": 4}, works={"one": 1e5, "other": 1e5})
    world.cluster.content = {"one": 2}
    world.submit("one", most=4, minds=True)
    world.begin()
    world.wish("rules", QUICK)
    world.until(lambda: world.entry("one").state == "running")
    assert world.entry("one").workers == 4
    begun = world.clock.now
    world.turn(2.0, turns=int(enqueued.FEWER_S / 2.0) + 2)
    assert world.entry("one").workers == 2
    assert world.clock.now - begun >= enqueued.FEWER_S
    assert any("trains on 2" in each["why"] for each in world.people.decisions())
    world.turn(turns=20)
    assert world.entry("one").workers == 2, "nobody takes them, and it is not offered them at once"
    world.submit("other", most=2, least=2)
    world.until(lambda: world.entry("other").state == "running", 20)
    assert world.entry("one").workers == 2
    world.wish("rm", {"run": "other"})
    world.cluster.content = {}
    world.turn(5.0, turns=int(enqueued.CONTENT_S / 5.0))
    assert world.entry("one").workers == 4
    world.turn(5.0, turns=int(enqueued.FEWER_S / 2.5))
    assert world.entry("one").workers == 4, "it uses them now"


def test_one_that_minds_no_money_keeps_what_is_still_to_come() -> None:
    entry = Entry("one", "a", state="running", workers=4, most=4, trained_at=0.0, resized_at=0.0)
    seen = Seen("running", workers=2)
    for now in (10.0, 1000.0):
        assert enqueued.saw(entry, seen, now).workers == 4
    minds = enqueued.saw(replace(entry, minds=True), seen, 10.0)
    assert enqueued.saw(minds, replace(seen, workers=0), 1000.0).workers == 4, "nobody trains for a moment"
    assert enqueued.saw(enqueued.saw(minds, replace(seen, workers=4), 900.0), seen, 1000.0).workers == 4
    assert enqueued.saw(replace(minds, orders=1), seen, 1000.0).workers == 4, "it has not heard of its size"
    assert enqueued.saw(minds, seen, 1000.0).workers == 2
    assert enqueued.saw(replace(minds, sizes=(1, 3, 4)), seen, 1000.0).workers == 3, "a size that it may have"
    assert enqueued.saw(replace(minds, sizes=(4,)), seen, 1000.0).workers == 4
