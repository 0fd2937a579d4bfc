"""What the queue decides: of single cases what, of worlds that change at random what must always hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.queue import decide
from headway.core.queue_door import refuse
from headway.core.queued import (
    Action,
    Decision,
    Each,
    Node,
    Pause,
    Queued,
    Quota,
    Refuse,
    Resize,
    Resume,
    Rules,
    Speedup,
    Start,
)

GPU = Each(1.0, 1.0)


def nodes(count: int, gpus: int = 8, **held: tuple[int, ...]) -> list[Node]:
    """So many nodes; held: by job, its workers on each."""
    on = [tuple((job, n[i]) for job, n in held.items() if i < len(n) and n[i]) for i in range(count)]
    return [Node(f"n{i}", Each(float(gpus), float(gpus)), on[i]) for i in range(count)]


def job(name: str, least: int, most: int, **more: object) -> Queued:
    return replace(Queued(name, "ann", least=least, most=most, each=GPU), **more)  # type: ignore[arg-type]


def runs(name: str, least: int, most: int, size: int, **more: object) -> Queued:
    return job(name, least, most, state="running", size=size, **more)


def told(decision: Decision) -> dict[str, object]:
    """By job its new size, or what else is done."""
    return {a.job: a.size if isinstance(a, Start | Resize | Resume) else type(a).__name__ for a in decision.actions}


def test_an_empty_queue_does_nothing() -> None:
    assert decide(0.0, [], nodes(2), Rules()) == Decision(())


def test_a_job_alone_has_all_that_it_wants() -> None:
    assert told(decide(0.0, [job("a", 2, 12)], nodes(2), Rules())) == {"a": 12}


def test_nodes_that_drain_hold_nobody() -> None:
    there = [replace(nodes(1)[0], draining=True), Node("n1", Each(8.0, 8.0))]
    assert told(decide(0.0, [job("a", 2, 12)], there, Rules())) == {"a": 8}


def test_a_higher_priority_shrinks_lower_ones_live() -> None:
    there = nodes(2, a=(8, 2), b=(0, 6))
    found = decide(0.0, [runs("a", 2, 16, 10), runs("b", 2, 8, 6), job("c", 10, 10, priority=1)], there, Rules())
    sizes = told(found)
    assert sizes["c"] == 10
    assert isinstance(sizes["a"], int)
    assert sizes["a"] >= 2
    assert sum(sizes.get(name, before) for name, before in (("a", 10), ("b", 6))) == 6  # type: ignore[misc]
    assert [type(action) for action in found.actions][-1] is Start
    assert set(found.actions[-1].after) == sizes.keys() - {"c"}  # type: ignore[union-attr]


def test_it_shrinks_them_to_their_least_before_one_is_paused() -> None:
    there = nodes(2, a=(8, 0), b=(0, 8))
    running = [runs("a", 2, 8, 8), runs("b", 6, 8, 8)]
    assert told(decide(0.0, [*running, job("c", 8, 8, priority=1)], there, Rules())) == {"a": 2, "b": 6, "c": 8}
    found = told(decide(0.0, [*running, job("c", 9, 9, priority=1)], there, Rules()))
    assert sorted(map(str, found.values())) == ["7", "9", "Pause"] or sorted(map(str, found.values())) == ["9", "Pause"]


def test_equals_are_shrunk_and_never_paused() -> None:
    there = nodes(2, a=(8, 8))
    assert told(decide(0.0, [runs("a", 4, 16, 16), job("b", 12, 12)], there, Rules())) == {"a": 4, "b": 12}
    found = decide(0.0, [runs("a", 4, 16, 16), job("b", 13, 13)], there, Rules())
    assert not found.actions
    assert "needs 13 workers of 1 CPU, 1 GPU, and room for 12" in found.waits["b"]


def test_they_grow_back_when_room_is_there_but_not_at_once() -> None:
    there = nodes(2, a=(4,))
    small = runs("a", 4, 16, 4, resized_at=100.0)
    asleep = decide(130.0, [small], there, Rules())
    assert not asleep.actions
    assert asleep.again_at == 160.0
    assert told(decide(160.0, [small], there, Rules())) == {"a": 16}


def test_only_allowed_sizes_are_given() -> None:
    lanes = (1, 2, 3, 4, 8)
    assert told(decide(0.0, [job("a", 2, 8, sizes=lanes)], nodes(1, 7), Rules())) == {"a": 4}
    assert told(decide(0.0, [job("a", 5, 8, sizes=lanes)], nodes(1, 8), Rules())) == {"a": 8}


def test_a_big_job_does_not_block_small_ones() -> None:
    there = nodes(2, a=(8, 0))
    found = decide(0.0, [runs("a", 8, 8, 8), job("big", 12, 16), job("small", 1, 2, submitted_at=9.0)], there, Rules())
    assert told(found) == {"small": 2}


def test_room_is_held_for_one_that_has_waited_long() -> None:
    there = nodes(2, a=(8, 0))
    rules = Rules(held_for_s=600.0)
    first = runs("a", 8, 8, 8, rest_s=Speedup().at(8) * 100.0)
    big = job("big", 12, 16, waited_s=700.0)
    long, short = job("long", 1, 2, submitted_at=9.0), job("short", 1, 1, submitted_at=9.0, rest_s=50.0)
    found = decide(0.0, [first, big, long, short], there, rules)
    assert told(found) == {"long": 2, "short": 1}, "4 of 16 are to spare once a has ended"
    assert told(decide(0.0, [first, replace(big, least=15), short, job("long", 2, 2)], there, rules)) == {"short": 1}
    unknown = replace(first, rest_s=None)
    found = decide(0.0, [unknown, replace(big, least=15), short, long], there, rules)
    assert not found.actions
    assert "held for big" in found.waits["long"]


def test_who_has_waited_a_day_counts_as_one_higher() -> None:
    there = nodes(1, a=(8,))
    old = job("old", 8, 8, waited_s=86400.0)
    assert told(decide(0.0, [runs("a", 8, 8, 8), old], there, Rules())) == {"a": "Pause", "old": 8}
    assert not decide(0.0, [runs("a", 8, 8, 8), replace(old, waited_s=86399.0)], there, Rules()).actions


def test_at_most_so_many_run() -> None:
    there = nodes(3, a=(8,))
    waiting = [job("b", 1, 1), job("c", 1, 1, submitted_at=1.0)]
    found = decide(0.0, [runs("a", 1, 8, 8), *waiting], there, Rules(most_running=2))
    assert told(found) == {"b": 1}
    assert "as many as may" in found.waits["c"]
    found = decide(0.0, [runs("a", 1, 8, 8), job("hi", 1, 1, priority=1)], there, Rules(most_running=1))
    assert told(found) == {"a": "Pause", "hi": 1}


def test_what_a_quota_allows_is_given_once_who_has_it_has_given_it_up() -> None:
    """Not only where it is to be in the end: at every moment."""
    there = nodes(2, a=(4,))
    high = job("hi", 1, 1, priority=1)
    one_at_a_time, four = Rules(most_running=1), Rules(quotas=(Quota(user="ann", workers=4),))
    for rules in (one_at_a_time, Rules(quotas=(Quota(user="ann", jobs=1),))):
        found = decide(0.0, [runs("a", 4, 4, 4), high], there, rules)
        assert told(found) == {"a": "Pause", "hi": 1}
        assert found.actions[-1].not_before == found.actions[-1].after == ("a",)  # type: ignore[union-attr]
        pausing = job("a", 4, 4, state="pausing", size=4)
        found = decide(1.0, [pausing, high], there, rules)
        assert [(a.job, a.not_before) for a in found.actions] == [("hi", ("a",))]  # type: ignore[union-attr]
        other = runs("c", 1, 1, 1, user="bob")
        found = decide(1.0, [pausing, other, high], nodes(2, a=(4,), c=(0, 1)), replace(rules, most_running=2))
        assert "c" not in told(found), "nobody more is paused for what is on its way"
        (start,) = decide(1.0, [replace(pausing, size=0), high], nodes(2), rules).actions
        assert (start.job, start.not_before) == ("hi", ()), "it was only prepared"  # type: ignore[union-attr]
        paused = replace(pausing, state="paused", size=0)
        (start,) = decide(2.0, [paused, high], nodes(2), rules).actions
        assert (start.job, start.not_before) == ("hi", ())  # type: ignore[union-attr]
    found = decide(0.0, [runs("a", 1, 4, 4), job("b", 3, 3)], there, four)
    assert told(found) == {"a": 1, "b": 3}
    assert found.actions[-1].not_before == ("a",)  # type: ignore[union-attr]
    smaller = runs("a", 1, 4, 1, resized_at=0.0)
    (start,) = decide(1.0, [smaller, job("b", 3, 3)], there, four).actions
    assert (start.job, start.not_before) == ("b", ("a",))  # type: ignore[union-attr]
    (start,) = decide(1.0, [smaller, job("b", 3, 3)], nodes(2, a=(1,)), four).actions
    assert (start.job, start.not_before) == ("b", ())  # type: ignore[union-attr]
    found = decide(0.0, [runs("a", 1, 16, 16), job("b", 3, 3)], nodes(2, a=(8, 8)), Rules())
    assert found.actions[-1].after == ("a",)  # type: ignore[union-attr]
    assert found.actions[-1].not_before == (), "for room alone it waits by itself"  # type: ignore[union-attr]


def test_quotas_are_kept() -> None:
    rules = Rules(quotas=(Quota(user="ann", gpus=6), Quota(team="vision", jobs=1)))
    assert told(decide(0.0, [job("a", 2, 12)], nodes(2), rules)) == {"a": 6}
    bobs = [job("b", 1, 1, user="bob", team="vision"), job("c", 1, 1, user="cid", team="vision", submitted_at=1.0)]
    found = decide(0.0, bobs, nodes(2), rules)
    assert told(found) == {"b": 1}
    assert found.waits["c"] == "team vision has 1 of 1 jobs"


def test_shares_are_fair_among_users() -> None:
    rules = Rules(fair="user", quotas=(Quota(user="bob", share=3.0),))
    many = [job(f"a{i}", 1, 16) for i in range(3)]
    found = told(decide(0.0, [*many, job("b", 1, 16, user="bob")], nodes(2), rules))
    assert found["b"] == 12


@pytest.mark.parametrize(
    ("wanted", "rules", "fact", "remedy"),
    [
        (job("a", 17, 20), Rules(could_come=()), "needs 17 workers", "set workers.min to 16 or less"),
        (job("a", 1, 1, each=Each(1.0, 9.0)), Rules(could_come=()), "needs 1 worker", "ask for less per worker"),
        (job("a", 4, 5), Rules(quotas=(Quota(user="ann", gpus=3),)), "needs 4 workers", "have the quota raised"),
        (job("a", 5, 7, sizes=(1, 2, 3, 4, 8)), Rules(), "of sizes 1, 2, 3, 4, 8", "allow a size between"),
    ],
)
def test_what_no_size_can_hold_is_refused(wanted: Queued, rules: Rules, fact: str, remedy: str) -> None:
    found = decide(0.0, [wanted], nodes(2), rules)
    assert found.actions == (refuse(wanted, nodes(2), rules),)
    assert isinstance(found.actions[0], Refuse)
    assert fact in found.actions[0].fact
    assert remedy in found.actions[0].remedy


def test_machines_that_could_come_count() -> None:
    assert refuse(job("a", 17, 20), nodes(2), Rules(could_come=((Each(8.0, 8.0), 1),))) is None
    assert refuse(job("a", 1000, 1000), [], Rules()) is None, "nobody knows what may join"


def test_one_for_whom_others_leave_no_room_just_now_waits() -> None:
    """They may be through in a minute; the door is shut to what would not fit beside nobody."""
    busy = [replace(node, has=Each(2.0, 2.0), total=node.has) for node in nodes(2)]
    closed = Rules(could_come=())
    assert refuse(job("a", 12, 12), busy, closed) is None
    found = decide(0.0, [job("a", 12, 12)], busy, closed)
    assert not found.actions
    assert "room for 4" in found.waits["a"]
    assert refuse(job("a", 17, 17), busy, closed) is not None


def test_one_whose_node_is_lost_goes_on_smaller_or_is_paused() -> None:
    assert told(decide(0.0, [runs("a", 4, 16, 16)], nodes(1, a=(8,)), Rules())) == {"a": 8}
    found = decide(0.0, [runs("a", 9, 16, 16)], nodes(1, a=(8,)), Rules())
    assert told(found) == {"a": "Pause"}
    assert "needs 9 workers" in found.waits["a"]


def test_those_that_were_given_and_are_on_their_way_keep_their_room() -> None:
    """a shrinks for b, whose workers are not there yet: nothing more is taken, and c has to wait."""
    there = nodes(1, a=(8,))
    running = [runs("a", 2, 8, 2, resized_at=0.0), runs("b", 6, 6, 6, priority=1, resized_at=0.0)]
    found = decide(1.0, [*running, job("c", 1, 1)], there, Rules())
    assert not found.actions
    assert found.waits.keys() == {"c"}


def test_the_shorter_have_more() -> None:
    there = nodes(4)
    pair = [job("long", 1, 32, rest_s=1e6), job("short", 1, 32, rest_s=1e4)]
    found = told(decide(0.0, pair, there, Rules()))
    assert found["short"] > found["long"]  # type: ignore[operator]


# --- worlds ---------------------------------------------------------------------------------------------------------


class World:
    """A cluster that carries out what is decided, as far as it can, workers one by one."""

    def __init__(self, has: list[Each], rules: Rules) -> None:
        self.rules, self.now = rules, 0.0
        self.has = {f"n{i}": each for i, each in enumerate(has)}
        self.draining: set[str] = set()
        self.jobs: dict[str, Queued] = {}
        self.on: dict[str, dict[str, int]] = {}
        self.numbers = 0

    def nodes(self) -> list[Node]:
        return [
            Node(name, has, tuple((j, n[name]) for j, n in self.on.items() if n.get(name)), name in self.draining)
            for name, has in self.has.items()
        ]

    def submit(self, **more: object) -> None:
        name = f"j{self.numbers}"
        self.numbers += 1
        self.jobs[name] = replace(Queued(name, "ann", submitted_at=self.now), **more)  # type: ignore[arg-type]

    def end(self, number: int) -> None:
        running = [name for name, job in self.jobs.items() if job.state == "running"]
        if running:
            name = running[number % len(running)]
            del self.jobs[name]
            self.on.pop(name, None)

    def lose(self, number: int) -> None:
        if len(self.has) > 1:
            gone = sorted(self.has)[number % len(self.has)]
            del self.has[gone]
            self.draining.discard(gone)
            for places in self.on.values():
                places.pop(gone, None)

    def drain(self, number: int) -> None:
        self.draining.add(sorted(self.has)[number % len(self.has)])

    def passes(self, seconds: float) -> None:
        self.now += seconds
        for name, job in self.jobs.items():
            if job.state == "running":
                left = None if job.rest_s is None else max(0.0, job.rest_s - seconds * Speedup().at(job.size))
                self.jobs[name] = replace(job, rest_s=left, done_s=job.done_s + seconds, held_s=job.held_s + seconds)
            else:
                self.jobs[name] = replace(job, waited_s=job.waited_s + seconds)

    def decide(self) -> Decision:
        jobs, there = list(self.jobs.values()), self.nodes()
        found = decide(self.now, jobs, there, self.rules)
        assert found == decide(self.now, jobs[::-1], there[::-1], self.rules), "whatever their order"
        return found

    def carry_out(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if isinstance(action, Refuse):
                del self.jobs[action.job]
                continue
            job = self.jobs[action.job]
            if isinstance(action, Pause):
                assert job.state == "running"
                self.jobs[action.job] = replace(job, state="paused", size=0, resized_at=self.now)
                self.on.pop(action.job, None)
                continue
            assert {Start: "waiting", Resume: "paused", Resize: "running"}[type(action)] == job.state
            assert action.size != job.size
            assert job.least <= action.size <= job.most
            assert not job.sizes or action.size in job.sizes
            self.jobs[action.job] = replace(job, state="running", size=action.size, resized_at=self.now)
        for name in [name for name, job in self.jobs.items() if job.state == "running"]:
            self._fit(name)
        for name in [name for name, job in self.jobs.items() if job.state == "running"]:
            self._fit(name)

    def _fit(self, name: str) -> None:
        """Workers leave or come, wherever there is room."""
        job, places = self.jobs[name], self.on.setdefault(name, {})
        while sum(places.values()) > job.size:
            node = max(places, key=lambda node: (node in self.draining, -places[node], node))
            places[node] -= 1
            if not places[node]:
                del places[node]
        for node in sorted(self.has):
            while sum(places.values()) < job.size and node not in self.draining and self._fits(node, job.each):
                places[node] = places.get(node, 0) + 1

    def _fits(self, node: str, each: Each) -> bool:
        has = self.has[node]
        held = [(self.jobs[j].each, n.get(node, 0)) for j, n in self.on.items()]
        return all(
            sum(getattr(one, what) * n for one, n in held) + getattr(each, what) <= getattr(has, what) + 1e-6
            for what in ("cpus", "gpus", "memory")
        )

    def holds(self, decision: Decision) -> None:
        """What must be so after each decision was carried out."""
        running = [job for job in self.jobs.values() if job.state == "running"]
        whole = [has for name, has in self.has.items() if name not in self.draining]
        for what in ("cpus", "gpus", "memory"):
            given = sum(getattr(job.each, what) * job.size for job in running)
            assert given <= sum(getattr(has, what) for has in whole) + 1e-6, f"more {what} than there are"
        assert self.rules.most_running is None or len(running) <= self.rules.most_running
        for quota in self.rules.quotas:
            theirs = [job for job in running if (quota.user and job.user == quota.user) or job.team == quota.team != ""]
            assert quota.jobs is None or len(theirs) <= quota.jobs
            assert quota.gpus is None or sum(job.each.gpus * job.size for job in theirs) <= quota.gpus + 1e-6
            assert quota.workers is None or sum(job.size for job in theirs) <= quota.workers
        waiting = {name for name, job in self.jobs.items() if job.state in ("waiting", "paused")}
        assert decision.waits.keys() == waiting, "whoever waits is told why"

    def nobody_sits_on_what_a_higher_one_waits_for(self, decision: Decision) -> None:
        """With workers that are all alike: those of lower priority have their least, and are paused where that helps;
        those of the same have their least."""
        slots = sum(int(has.gpus) for name, has in self.has.items() if name not in self.draining)
        running = [job for job in self.jobs.values() if job.state == "running"]
        for name, why in decision.waits.items():
            if not why.startswith("needs"):
                continue
            wants = self.jobs[name]
            rank = wants.priority + int(wants.waited_s / self.rules.raised_s)
            could = slots
            for other in running:
                theirs = other.priority + int(other.waited_s / self.rules.raised_s)
                could -= other.least if theirs >= rank else 0
            assert could < wants.least, f"{name} waits for {wants.least} and could have {could}"


SHAPES = st.sampled_from([Each(1.0, 1.0), Each(2.0, 0.0), Each(4.0, 2.0), Each(3.0, 1.0, 2.0**30), Each(1.0, 0.5)])
CHANGES = st.lists(
    st.tuples(st.sampled_from(["submit"] * 3 + ["end"] * 2 + ["lose", "drain", "wait"]), st.integers(0, 99)),
    min_size=1,
    max_size=14,
)
JOBS = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 2),
        "least": st.integers(1, 6),
        "most": st.integers(6, 20),
        "wanted": st.one_of(st.none(), st.integers(1, 20)),
        "sizes": st.sampled_from([(), (), (1, 2, 3, 4, 8), (1, 2, 4, 8, 16)]),
        "rest_s": st.one_of(st.none(), st.floats(10.0, 1e6)),
        "user": st.sampled_from(["ann", "bob", "cid"]),
        "team": st.sampled_from(["", "vision"]),
    }
)
RULES = st.builds(
    Rules,
    most_running=st.one_of(st.none(), st.integers(1, 4)),
    quotas=st.sampled_from(
        [(), (), (Quota(user="ann", gpus=6.0, jobs=2),), (Quota(user="bob", workers=5), Quota(team="vision", gpus=9.0))]
    ),
    fair=st.sampled_from([None, None, "user", "team"]),
    held_for_s=st.sampled_from([600.0, 1e9]),
)


def drawn(data: st.DataObject, world: World, kind: str, number: int, each: Each | None) -> None:
    """One change of a world."""
    if kind == "submit":
        shape = each if each is not None else data.draw(SHAPES)
        world.submit(each=shape, **data.draw(JOBS))
    elif kind == "wait":
        world.passes(float(number * number * 10))
    else:
        getattr(world, kind)(number)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 4), RULES, CHANGES, st.sampled_from([GPU, None]))
def test_what_holds_in_every_world(
    data: st.DataObject, count: int, rules: Rules, changes: list[tuple[str, int]], each: Each | None
) -> None:
    world = World([Each(8.0, 8.0, 2.0**33)] * count, rules)
    for kind, number in changes:
        drawn(data, world, kind, number, each)
        decision = world.decide()
        world.carry_out(decision.actions)
        world.holds(decision)
        if each is not None:
            world.nobody_sits_on_what_a_higher_one_waits_for(decision)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4), RULES, CHANGES)
def test_what_is_decided_stays_so_until_something_changes(
    data: st.DataObject, count: int, rules: Rules, changes: list[tuple[str, int]]
) -> None:
    """All alike: once it is carried out there is nothing to do, and in a quiet half an hour each changes rarely."""
    world = World([Each(8.0, 8.0)] * count, rules)
    for kind, number in changes:
        drawn(data, world, kind, number, GPU)
        world.carry_out(world.decide().actions)
        assert world.decide().actions == ()
    resized: dict[str, int] = {}
    for _ in range(30):
        world.passes(60.0)
        decision = world.decide()
        world.carry_out(decision.actions)
        for action in decision.actions:
            resized[action.job] = resized.get(action.job, 0) + 1
    assert max(resized.values(), default=0) <= 4, resized
