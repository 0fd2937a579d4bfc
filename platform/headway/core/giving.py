"""Who is given what is left once everybody who runs has their least: pure arithmetic.

One worker more is worth what it adds to a job's speed. Where the sum of all completion times is to be small, what it
adds counts the more, the less is left of the job: of jobs whose speed is workers^p the best share of the one that is
the i-th longest grows about like i^(p/(1-p)) (heSRPT: Berg, Vesilo and Harchol-Balter, "heSRPT: Parallel scheduling to
minimize mean slowdown", 2020), which is what is given if each weighs i^p. That holds of jobs that are all there at
once; with others still to come a steeper weight was better in all that was simulated (docs/queue.md).

Up to what a job wanted it counts several times more with each priority; what jobs want beyond that, where it pays,
counts as if they had the lowest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from heapq import heapify, heappop, heappush

from headway.core.holdings import Entry, Plan, count, first, merged, wanted
from headway.core.queued import Speedup
from headway.core.slots import Places, Shape, fit

LEFT_ALONE = 0.99
"""A job that has just changed keeps its workers as if it were so much of a priority higher."""

MOST_RANKS = 300
"""Priorities that are told apart when workers are given."""

WEIGHT_POWER = 1.5
"""What the place in order of length is raised to, the longest being the first."""

SLACK = 0.3
"""How far below `Rules.dearer` it begins to count."""

Step = tuple[int, int, float]
"""From so many workers to so many, and what each of them adds to the speed, as a multiple of that on one."""


@lru_cache(maxsize=8192)
def steps(
    speedup: Speedup, least: int, wanted: int, most: int, sizes: tuple[int, ...], worth: float, also: int = 0
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The sizes of a job above its least, up to what it wanted, and beyond where that pays. What one more brings falls
    from step to step: where it would rise, steps are one.

    Args:
        also: a size that is to be among them.
    """
    within: list[Step] = []
    beyond: list[Step] = []
    pays = worth
    now = least
    while now < most:
        if sizes:
            then = next((size for size in sizes if size > now), most + 1)
        else:
            then = now + max(1, now // 8)
            then = min(then, *(stop for stop in (wanted, also, most) if stop > now))
        if then > most:
            break
        brings = (speedup.at(then) - speedup.at(now)) / (then - now)
        if then <= wanted:
            _add(within, (now, then, brings), also)
        elif brings >= pays:
            _add(beyond, (now, then, brings), also)
        else:
            break
        now = then
    return tuple(within), tuple(beyond)


def _add(found: list[Step], step: Step, also: int) -> None:
    while found and step[2] > found[-1][2] and step[0] != also:
        first = found.pop()
        workers = step[1] - first[0]
        brings = (first[2] * (first[1] - first[0]) + step[2] * (step[1] - step[0])) / workers
        step = (first[0], step[1], brings)
    found.append(step)


class Giving:
    """Who will have how many, by count; then where.

    Args:
        plan: in which everybody who runs has their least.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.again_at = math.inf
        slots = plan.layers.at_least
        self._left = [sum(max(0, free[i]) for free in slots.free) for i in range(3)]
        self._all = [sum(has[i] for has in plan.rooms) or 1 for i in range(3)]
        self._fit: dict[Shape, int] = {}
        self._cost: dict[Shape, float] = {}
        self.capped: dict[str, int] = {}
        """How far each could be given anything."""

    def give(self) -> None:
        """Decide it all."""
        wants = self._wants()
        if self.plan.rules.fair is None:
            for group in sorted(wants):
                stuck: set[int] = set()
                for _, place, _, then in sorted(wants[group]):
                    if place not in stuck and not self._one(self.plan.entries[place], then):
                        stuck.add(place)
        else:
            for group in sorted(wants):
                self._fairly(sorted(wants[group]))
        self._settle()

    def _wants(self) -> dict[int, list[tuple[float, int, int, int]]]:
        """Steps: (worth, negated; place of the entry; from; to). Where shares are fair, by priority, negated; else all
        in one."""
        plan, rules = self.plan, self.plan.rules
        running = [place for place, entry in enumerate(plan.entries) if entry.runs]
        by_rest = sorted(running, key=lambda place: (-plan.entries[place].rest_s, place))
        found: dict[int, list[tuple[float, int, int, int]]] = {}
        worth = self._worth(running)
        ranks = sorted({plan.entries[place].job.priority for place in running})
        ahead = {rank: rules.ahead ** min(number, MOST_RANKS) for number, rank in enumerate(ranks)}
        low = round(worth / rules.keeps, 2)
        for number, place in enumerate(by_rest, start=1):
            entry = plan.entries[place]
            job = entry.job
            wants = max(entry.least, wanted(job))
            has = entry.size
            curve = job.speedup or rules.speedup
            within, beyond = steps(curve, entry.least, wants, job.most, job.sizes, low)
            if has > entry.least and not job.sizes and all(step[1] != has for step in (*within, *beyond)):
                within, beyond = steps(curve, entry.least, wants, job.most, job.sizes, low, has)
            self.capped[job.job] = beyond[-1][1] if beyond else within[-1][1] if within else entry.least
            weight = number**WEIGHT_POWER / self.cost(entry.each)
            asleep = job.resized_at is not None and plan.now - job.resized_at < rules.snooze_s and entry.had > 0
            keeps = max(rules.keeps, LEFT_ALONE * rules.ahead) if asleep else rules.keeps
            for further, some in enumerate((within, beyond)):
                if not some:
                    continue
                group = -job.priority if rules.fair is not None else 0
                into = found.setdefault(-ranks[0] if further and group else group, [])
                counts = weight * (1.0 if further else ahead[job.priority])
                for now, then, brings in some:
                    if then <= has:
                        into.append((-brings * counts * keeps, place, now, then))
                    elif further and brings < worth:
                        break
                    elif asleep:
                        if job.resized_at is not None:
                            self.again_at = min(self.again_at, job.resized_at + rules.snooze_s)
                        break
                    else:
                        into.append((-brings * counts, place, now, then))
        return found

    def _worth(self, running: list[int]) -> float:
        """What a worker beyond those asked for has to bring: the more, the more the jobs that run have cost beyond what
        they would have at the sizes that they asked for."""
        plan, rules = self.plan, self.plan.rules
        spent = would = 0.0
        for place in running:
            entry = plan.entries[place]
            job = entry.job
            if job.done_s > 0 and job.held_s > 0:
                wants, cost = wanted(job), self.cost(entry.each)
                spent += job.held_s * cost
                would += job.done_s * wants / plan.speed(job, wants) * cost
        if would <= 0:
            return rules.worth
        over = (spent / would - 1.0 - rules.dearer + SLACK) / SLACK
        return round(rules.worth + (1.0 - rules.worth) * min(1.0, max(0.0, over)), 2)

    def cost(self, each: Shape) -> float:
        """The part of the cluster that one such worker takes, of what it takes most of."""
        if each not in self._cost:
            parts = zip((each.cpus, each.gpus, each.memory), self._all, strict=True)
            self._cost[each] = max((one / there for one, there in parts), default=0.0) or 1e-9
        return self._cost[each]

    def _one(self, entry: Entry, then: int) -> bool:
        """Give a job as many as that, or as many as are left; whether it got all."""
        job, each = entry.job, entry.each
        if each not in self._fit:
            self._fit[each] = self.plan.layers.at_least.total(each)
        more = then - entry.target
        left = self._left
        able = min(more, self._fit[each])
        if each.cpus * able > left[0] or each.gpus * able > left[1] or each.memory * able > left[2]:
            able = min(able, fit((left[0], left[1], left[2]), each))
        if self.plan.allowances.quotas:
            able = self.plan.allowances.more(job, able)
        given = more if able >= more else entry.allowed(entry.target + able) - entry.target
        if given > 0:
            self._fit[each] -= given
            left[0] -= given * each.cpus
            left[1] -= given * each.gpus
            left[2] -= given * each.memory
            entry.target += given
            self.plan.count(entry, given, 0)
        return given >= more

    def _fairly(self, wants: list[tuple[float, int, int, int]]) -> None:
        """The one who has least, by the weights, is next each time."""
        plan = self.plan
        has = holdings(plan, self.cost)
        queues: dict[str, list[tuple[float, int, int, int]]] = {}
        for want in reversed(wants):
            queues.setdefault(owner(plan, plan.entries[want[1]]), []).append(want)
        heap = [(has.get(name, 0.0), name) for name in sorted(queues)]
        heapify(heap)
        stuck: set[int] = set()
        while heap:
            there, name = heappop(heap)
            mine, until = queues[name], heap[0] if heap else (math.inf, "")
            share = weight(plan, name)
            while mine and (there, name) < until:
                _, place, _, then = mine.pop()
                if place not in stuck:
                    entry = plan.entries[place]
                    before = entry.target
                    if not self._one(entry, then):
                        stuck.add(place)
                    there += (entry.target - before) * self.cost(entry.each) / share
            if mine:
                heappush(heap, (there, name))

    def _settle(self) -> None:
        """Where the workers are: who has fewer gives up, who has more takes; what nobody took stays."""
        plan = self.plan
        later = plan.layers.later
        over = {node for node, free in enumerate(later.free) if min(free) < 0}
        fewer = [entry for entry in plan.entries if entry.runs and entry.target < entry.size]
        shrunk = [(entry, self._leave(entry, entry.size - entry.target, over)) for entry in fewer]
        self._clear(over)
        for entry in plan.entries:
            more = entry.target - entry.size - (count(entry.places) if entry.runs else 0)
            if not entry.runs or more <= 0:
                continue
            places = later.pick(entry.each, more)
            had = entry.size + count(entry.places)
            can = entry.allowed(had + count(places))
            if can < entry.target:
                plan.count(entry, entry.target - max(can, had), 0, -1)
                entry.target = max(can, had)
                places = first(places, entry.target - had)
            later.put(places, entry.each)
            entry.places = entry.places + places
        for entry, left in reversed(shrunk):
            self._stay(entry, left)

    def _leave(self, entry: Entry, workers: int, over: set[int]) -> Places:
        """It gives up so many: where others come, then where it has fewest."""
        later, each = self.plan.layers.later, entry.each
        kept = dict(first(entry.stays, entry.least))
        beyond = {node: there - kept.get(node, 0) for node, there in entry.stays}
        gone: Places = []
        for node in sorted(beyond, key=lambda node: (node not in over, beyond[node], node)):
            take = min(beyond[node], workers)
            if take > 0:
                gone.append((node, take))
                workers -= take
        later.put(gone, each, -1)
        over -= {node for node, _ in gone if min(later.free[node]) >= 0}
        less = dict(gone)
        entry.stays = [(node, there - less.get(node, 0)) for node, there in entry.stays if there > less.get(node, 0)]
        entry.size = count(entry.stays)
        return gone

    def _clear(self, over: set[int]) -> None:
        """Those who come, come to the nodes where they were put: others leave what is beyond their least there."""
        plan = self.plan
        later = plan.layers.later
        on = {node: [name for name, _ in plan.nodes[node].held] for node in over}
        for entry in plan.entries if over else ():  # those that were given workers and are not there yet
            for node, _ in entry.stays:
                if node in on and entry.job.job not in on[node]:
                    on[node].append(entry.job.job)
        for node in sorted(over):
            lowest_first = sorted(
                (plan.named[name] for name in on[node] if name in plan.named and plan.named[name].runs),
                key=lambda entry: (entry.job.priority, -entry.rest_s, entry.job.job),
            )
            for entry in lowest_first:
                while min(later.free[node]) < 0 and entry.size > entry.least:
                    here = dict(entry.stays).get(node, 0)
                    if not here:
                        break
                    smaller = entry.allowed(entry.size - 1)
                    if smaller < entry.least:
                        break
                    plan.count(entry, entry.target - smaller, 0, -1)
                    entry.target = smaller
                    self._leave(entry, entry.size - smaller, {node})

    def _stay(self, entry: Entry, left: Places) -> None:
        """What it gave up and nobody took, as far as it pays for it."""
        plan = self.plan
        each = entry.each
        most = self.capped.get(entry.job.job, entry.least)
        back: Places = []
        for node, workers in left:
            here = min(workers, plan.layers.later.fits(node, each))
            if here > 0:
                back.append((node, here))
        able = min(count(back), most - entry.size)
        if plan.allowances.quotas:
            able = plan.allowances.more(entry.job, max(0, able))
        if entry.places or able < 1:
            return
        more = entry.allowed(entry.size + able) - entry.size
        if more > 0:
            back = first(back, more)
            plan.layers.later.put(back, each)
            plan.count(entry, more, 0)
            entry.stays = merged(entry.stays + back)
            entry.size += more
            entry.target = entry.size


def owner(plan: Plan, entry: Entry) -> str:
    """The user, or the team, with whom it shares."""
    return entry.job.user if plan.rules.fair == "user" else entry.job.team


def weight(plan: Plan, name: str) -> float:
    """Of an owner."""
    if not plan.weights:
        kind = "user" if plan.rules.fair == "user" else "team"
        plan.weights.update({getattr(quota, kind): quota.share for quota in plan.rules.quotas})
        plan.weights[""] = 1.0
    return plan.weights.get(name, 1.0)


def holdings(plan: Plan, cost: Callable[[Shape], float]) -> dict[str, float]:
    """The part of the cluster that each owner has, by its weight."""
    found: dict[str, float] = {}
    for entry in plan.entries:
        if entry.runs:
            name = owner(plan, entry)
            found[name] = found.get(name, 0.0) + entry.target * cost(entry.each) / weight(plan, name)
    return found
