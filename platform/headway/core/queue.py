"""The queue's decision: who of many jobs runs on one cluster, and on how many workers. Pure.

It takes workers, not jobs. Who runs is decided first, everybody at the least that its job may have: in order of
priority, those that run before those that wait. A job that waits takes what jobs of its priority or lower have beyond
their least; one of lower priority is paused only where even that is not enough. What is left is given by what it brings
(`headway.core.giving`).

A job that has waited long has room held for it, as in EASY backfilling (Lifka, "The ANL/IBM SP scheduling system",
1995): nothing behind it begins that would delay it. What is held does not lie idle: jobs that run have it until then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from headway.core import queue_words as words
from headway.core.giving import Giving, holdings, owner, weight
from headway.core.holdings import Entry, Plan, Present, first
from headway.core.queue_door import Door
from headway.core.queued import (
    Action,
    Decision,
    Node,
    Pause,
    Queued,
    Resize,
    Resume,
    Rules,
    Start,
)
from headway.core.slots import Room, Shape, less


def decide(now: float, jobs: Iterable[Queued], nodes: Sequence[Node], rules: Rules) -> Decision:
    """What to do now.

    Actions are in order: refusals, who gives up, who is given. Whoever carries them out need not wait for one before
    the next, and leaves out those that name somebody in `not_before`: it is decided again once anything has changed.
    Given the same it answers the same, in whatever order jobs and nodes are.

    Args:
        now: on the clock of `submitted_at` and `resized_at`.
        jobs: all that have not ended; ended ones are left out.
        nodes: that are there.
    """
    door = Door(nodes, rules)
    refused, taken = [], []
    for job in jobs:
        refusal = door.refuse(job) if job.state == "waiting" else None
        if refusal is None:
            taken.append(job)
        else:
            refused.append(refusal)
    plan = Plan(now, taken, nodes, rules)
    waits = Admission(plan).admit()
    giving = Giving(plan)
    giving.give()
    actions = [*sorted(refused, key=lambda each: each.job), *_actions(plan)]
    return Decision(tuple(actions), waits, _again_at(plan, giving.again_at))


@dataclass
class _Held:
    """Room that is held for a job.

    Args:
        entry: the job.
        at: when it is expected to be there; inf: nobody knows.
        spare: workers of its shape that others may have meanwhile, and keep.
    """

    entry: Entry
    at: float
    spare: int


class Admission:
    """Who runs, each at its least.

    Args:
        plan: in which those that run have their least.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.held: _Held | None = None
        self.waits: dict[str, str] = {}
        self._best: dict[Shape, int] = {}
        """Workers of a shape that could be had at most, found in vain."""
        runs = [entry for entry in plan.entries if entry.runs]
        self._victims = sorted(runs, key=lambda entry: (entry.rank, -entry.rest_s, entry.job.job))

    def admit(self) -> dict[str, str]:
        """Decides; returns why those that wait do."""
        plan = self.plan
        by_rank: dict[int, list[Entry]] = {}
        for entry in plan.entries:
            if entry.job.state != "pausing" and (not entry.runs or entry.target < entry.least):
                by_rank.setdefault(entry.rank, []).append(entry)
        for rank in sorted(by_rank, reverse=True):
            level = by_rank[rank]
            short = [entry for entry in level if entry.runs]
            for entry in short:
                if entry.runs and not self._try(entry):
                    plan.pause(entry)
                    entry.why = self.waits[entry.job.job]
            hold = plan.rules.held_for_s
            waiting = [entry for entry in level if entry.had == 0]
            old = [entry for entry in waiting if entry.job.waited_s >= hold]
            for entry in sorted(old, key=lambda entry: (-entry.job.waited_s, entry.job.submitted_at, entry.job.job)):
                self._try(entry)
            self._rest([entry for entry in waiting if entry.job.waited_s < hold])
        for entry in plan.entries:
            if entry.had and not entry.runs and entry.job.job not in self.waits:
                self.waits[entry.job.job] = entry.why
        return self.waits

    def _rest(self, waiting: list[Entry]) -> None:
        """Those of a priority that have not waited long: whoever has least of their share first, then the shortest."""
        plan = self.plan
        waiting.sort(key=_turn)
        if plan.rules.fair is None:
            for entry in waiting:
                self._try(entry)
            return
        cost = Giving(plan).cost
        has = holdings(plan, cost)
        queues: dict[str, list[Entry]] = {}
        for entry in reversed(waiting):
            queues.setdefault(owner(plan, entry), []).append(entry)
        heap = [(has.get(name, 0.0), name) for name in sorted(queues)]
        heapify(heap)
        while heap:
            there, name = heappop(heap)
            entry = queues[name].pop()
            if self._try(entry):
                there += entry.least * cost(entry.each) / weight(plan, name)
            if queues[name]:
                heappush(heap, (there, name))

    def _try(self, entry: Entry) -> bool:
        """Have it begin, or have what is missing of its least, if that can be."""
        plan = self.plan
        held = self.held
        before = plan.layers.at_least.total(held.entry.each) if held is not None else 0
        cause = self._cause(entry)
        if cause is not None and not self._make_room(entry):
            cause = self._cause(entry) or cause
            self.waits[entry.job.job] = self._said(entry, cause)
            long = entry.job.waited_s >= plan.rules.held_for_s and not entry.had
            if held is None and long and cause == "room":
                self.held = self._hold(entry)
            return False
        plan.begin(entry)
        if held is None or entry.had:
            return True
        lost = before - plan.layers.at_least.total(held.entry.each)
        rest_s = entry.job.rest_s
        speed = (entry.job.speedup or plan.rules.speedup).at(entry.least)
        through = rest_s is not None and plan.now + rest_s / speed <= held.at < math.inf
        if lost <= 0 or through:
            return True
        if lost <= held.spare:
            held.spare -= lost
            return True
        plan.unbegin(entry)
        self.waits[entry.job.job] = words.held_for(held.entry.job.job)
        return False

    def _cause(self, entry: Entry) -> str | int | None:
        """What keeps it from beginning now: the number of a quota, "jobs", "room"; None: nothing."""
        plan, each = self.plan, entry.each
        missing = entry.least - entry.target
        if not entry.runs:
            number = plan.allowances.blocks(entry.job, missing) if plan.allowances.quotas else None
            if number is not None:
                return number
            most = plan.rules.most_running
            if most is not None and plan.running >= most:
                return "jobs"
        return "room" if plan.layers.at_least.total(each) < missing else None

    def _make_room(self, entry: Entry) -> bool:
        """Pause those of lower priority, as few as are needed."""
        plan, each = self.plan, entry.each
        missing = entry.least - entry.target
        if missing > self._best.get(each, missing):
            return False
        paused: list[Entry] = []
        while (cause := self._cause(entry)) is not None:
            victim = self._victim(entry, cause)
            if victim is None:
                if cause == "room":
                    self._best[each] = plan.layers.at_least.total(each)
                for other in reversed(paused):
                    plan.unpause(other)
                return False
            plan.pause(victim)
            paused.append(victim)
        for other in reversed(paused):
            plan.unpause(other)
            if self._cause(entry) is not None:
                plan.pause(other)
                other.why = words.paused_for(entry.job.job)
        return True

    def _victim(self, entry: Entry, cause: str | int) -> Entry | None:
        """The next to be paused: of the lowest priority, and of those the one with most left."""
        for other in self._victims:
            if other.rank >= entry.rank:
                return None
            if other.runs and (isinstance(cause, str) or cause in self.plan.allowances.of(other.job)):
                return other
        return None

    def _said(self, entry: Entry, cause: str | int) -> str:
        plan = self.plan
        if cause == "jobs":
            return words.full(plan.running)
        if isinstance(cause, int):
            return plan.allowances.said(cause)
        return words.no_room(entry.least, entry.job.each, plan.layers.at_least.total(entry.each))

    def _hold(self, entry: Entry) -> _Held:
        """When there will be room for it, as far as is known, and how much more than it needs."""
        plan, each = self.plan, entry.each
        slots = plan.layers.at_least
        ends = []
        for other in plan.entries:
            if other.runs and other.job.rest_s is not None and other.size:
                speed = (other.job.speedup or plan.rules.speedup).at(other.size)
                ends.append((plan.now + other.job.rest_s / speed, other.job.job))
        gone = []
        at = math.inf
        for end, name in sorted(ends):
            other = plan.named[name]
            places = first(other.stays, other.least)
            slots.put(places, other.each, -1)
            gone.append((places, other.each))
            if slots.total(each) >= entry.least:
                at = end
                break
        spare = max(0, slots.total(each) - entry.least) if at < math.inf else 0
        for places, theirs in gone:
            slots.put(places, theirs)
        return _Held(entry, at, spare)


def _turn(entry: Entry) -> tuple[float, float, str]:
    """The shortest first, one of which nobody knows as if it were short; then who came first."""
    job = entry.job
    return (entry.rest_s, job.submitted_at, job.job)


def _actions(plan: Plan) -> list[Action]:
    """What changes, in order."""
    gives: list[Action] = []
    takers = tuple(entry.job.job for entry in plan.entries if entry.places)
    for entry in plan.entries:
        job = entry.job
        if entry.had and not entry.runs:
            gives.append(Pause(job.job, entry.why))
        elif entry.runs and entry.target < entry.had:
            why = words.shrinks(entry.target, entry.least, takers, entry.lost)
            gives.append(Resize(job.job, entry.target, why, leave=_leave(plan, entry)))
    return gives + _given(plan)


def _leave(plan: Plan, entry: Entry) -> tuple[tuple[str, int], ...]:
    """Those of its workers that are there and have no place in the plan."""
    stay = dict(entry.stays)
    there = plan.held.get(entry.job.job, ())
    return tuple((plan.nodes[node].node, more) for node, many in there if (more := many - stay.get(node, 0)) > 0)


def _given(plan: Plan) -> list[Action]:
    """Starts, and who is given more; each with those that have to give up first."""
    grown = [entry for entry in plan.entries if entry.runs and entry.places and entry.target > entry.had]
    if not grown:
        return []
    where = sorted({node for entry in grown for node, _ in entry.places})
    free, present = _really_free(plan, where), Present(plan)
    givers: dict[int, list[str]] = {}
    for node in where:
        for name, workers in plan.nodes[node].held:
            other = plan.named.get(name)
            stays = sum(n for there, n in other.stays if there == node) if other is not None and other.runs else 0
            if workers > stays:
                givers.setdefault(node, []).append(name)
    found: list[Action] = []
    for entry in grown:
        job, after = entry.job, dict[str, None]()
        for node, workers in entry.places:
            free[node] = less(free[node], entry.each, workers)
            if min(free[node]) < 0:
                after.update(dict.fromkeys(givers.get(node, ())))
        first_of_all = present.take(entry)
        givers_of = tuple(dict.fromkeys([*after, *first_of_all]))
        if entry.had:
            why = words.grows(entry.target, job.most)
            found.append(Resize(job.job, entry.target, why, givers_of, not_before=first_of_all))
            continue
        kind = Resume if job.state == "paused" else Start
        why = words.begins(entry.target, entry.least, job.most, givers_of)
        found.append(kind(job.job, entry.target, why, givers_of, first_of_all))
    return found


def _really_free(plan: Plan, where: list[int]) -> dict[int, Room]:
    """What nodes have now, beside who is there and who was given a place there before."""
    free = {}
    for node in where:
        left = plan.rooms[node]
        for name, workers in plan.nodes[node].held:
            if name in plan.each:
                left = less(left, plan.each[name], workers)
        free[node] = left
    for entry in plan.entries:
        if entry.runs and entry.coming:
            there = dict(plan.held.get(entry.job.job, ()))
            for node, workers in entry.stays:
                if node in free and workers > there.get(node, 0):
                    free[node] = less(free[node], entry.each, workers - there.get(node, 0))
    return free


def _again_at(plan: Plan, again_at: float) -> float | None:
    """When somebody will have waited long enough to be treated otherwise, or may be given more."""
    rules = plan.rules
    for entry in plan.entries:
        job = entry.job
        if job.state in ("waiting", "paused") and not entry.runs:
            waited = job.waited_s
            marks = [(int(waited / rules.raised_s) + 1) * rules.raised_s] if rules.raised_s > 0 else [math.inf]
            if waited < rules.held_for_s:
                marks.append(rules.held_for_s)
            again_at = min(again_at, plan.now + min(marks) - waited)
    return again_at if again_at < math.inf else None
