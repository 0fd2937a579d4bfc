"""Who holds what while a decision of the queue is made: the plan, which begins with what is there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from headway.core.queued import Each, Node, Queued, Rules
from headway.core.quotas import Allowances
from headway.core.slots import Layers, Places, Room, Shape, less, room

UNKNOWN_S = 600.0
"""How long a job of which nobody knows is held to take on what it wants, at least. Of lengths with a heavy tail about
as much is left as has been done."""

NOTHING: Room = (0, 0, 0)


def count(places: Places) -> int:
    return sum(workers for _, workers in places)


def first(places: Places, workers: int) -> Places:
    """So many workers of them, from the front."""
    found: Places = []
    for node, there in places:
        if workers <= 0:
            break
        found.append((node, min(there, workers)))
        workers -= there
    return found


class Entry:
    """A job in the plan.

    Args:
        job: it.
        rank: its priority, raised by how long it has waited: who runs is decided by it.
        each: what one of its workers takes, the same for all jobs of which that is the same.
    """

    __slots__ = (
        "coming",
        "each",
        "guess_s",
        "had",
        "job",
        "least",
        "lost",
        "places",
        "rank",
        "runs",
        "size",
        "stays",
        "target",
        "why",
    )

    def __init__(self, job: Queued, rank: int, each: Shape) -> None:
        self.job, self.rank, self.each = job, rank, each
        self.least = at_least(job)
        """The fewest workers that it may have."""
        self.had = job.size if job.state == "running" else 0
        """Workers that it was given before."""
        self.stays: Places = []
        """Where its workers are that it was given, or will be; the first `least` of them are kept for it."""
        self.size = 0
        """How many those are."""
        self.runs = self.had > 0
        """In the plan."""
        self.target = 0
        """Workers that it has in the plan."""
        self.places: Places = []
        """Where those are that are new to it."""
        self.guess_s = UNKNOWN_S
        """What is left of it if nobody knows and nothing has been done, in seconds on one worker."""
        self.why = ""
        """Why it is paused, or waits."""
        self.coming = False
        """Whether some of those that it was given are not there yet."""
        self.lost = 0
        """How many of them have no room any more."""

    @property
    def rest_s(self) -> float:
        """What is left of it, known or guessed, in seconds on one worker."""
        if self.job.rest_s is not None:
            return self.job.rest_s
        return max(self.job.done_s, self.guess_s)

    def allowed(self, workers: int) -> int:
        """The largest size that it may have with so many; 0: none."""
        if workers < self.least:
            return 0
        if not self.job.sizes:
            return min(workers, self.job.most)
        at = bisect_right(self.job.sizes, min(workers, self.job.most))
        return self.job.sizes[at - 1] if at else 0


def at_least(job: Queued) -> int:
    """The smallest size that a job may have; more than its most where it may have none."""
    if not job.sizes:
        return job.least
    return next((size for size in job.sizes if size >= job.least), job.most + 1)


def wanted(job: Queued) -> int:
    """What it asks for."""
    return max(job.least, min(job.wanted or job.most, job.most))


class Plan:
    """What will be: first what is there, then as it is decided.

    Args:
        now: the time.
        jobs, nodes, rules: as they are.
    """

    def __init__(self, now: float, jobs: Iterable[Queued], nodes: Sequence[Node], rules: Rules) -> None:
        self.now, self.rules = now, rules
        self.nodes = sorted(nodes, key=lambda node: node.node)
        self.rooms = [NOTHING if node.draining else room(node.has) for node in self.nodes]
        jobs = list(jobs)
        known: dict[Each, Shape] = {}
        self.each = {job.job: known.get(job.each) or known.setdefault(job.each, Shape(job.each)) for job in jobs}
        entries = [Entry(job, rank(job, rules), self.each[job.job]) for job in jobs if job.state != "ended"]
        self._speeds: dict[int, float] = {}
        for entry in entries:
            if entry.job.rest_s is None:
                entry.guess_s = UNKNOWN_S * self.speed(entry.job, wanted(entry.job))
        entries.sort(key=lambda entry: (-entry.rank, entry.job.submitted_at, entry.job.job))
        self.entries = entries
        self.named = {entry.job.job: entry for entry in entries}
        self.allowances = Allowances(rules.quotas)
        self.held: dict[str, Places] = {}
        """Where the workers of each job are now."""
        for number, node in enumerate(self.nodes):
            if not node.draining:
                for job, workers in node.held:
                    self.held.setdefault(job, []).append((number, workers))
        self.weights: dict[str, float] = {}
        """Of those who share, once they are asked for."""
        self.running = 0
        """Jobs that hold a place among those that run at a time."""
        self.layers = self._lay()
        self._come()

    def speed(self, job: Queued, workers: int) -> float:
        """Of a job on so many."""
        if job.speedup is not None:
            return job.speedup.at(workers)
        found = self._speeds.get(workers)
        if found is None:
            found = self._speeds[workers] = self.rules.speedup.at(workers)
        return found

    def _lay(self) -> Layers:
        later, kept = list(self.rooms), list(self.rooms)
        for entry in self.entries:
            if not entry.runs:
                continue
            held = self.held.get(entry.job.job, [])
            entry.stays = first(sorted(held, key=lambda place: (-place[1], place[0])), entry.had)
            entry.size = count(entry.stays)
            each, least = entry.each, entry.least
            for number, workers in entry.stays:
                later[number] = less(later[number], each, workers)
                if least > 0:
                    kept[number] = less(kept[number], each, min(workers, least))
                least -= workers
            entry.target = min(entry.size, entry.least)
            self.count(entry, entry.target, 1)
        return Layers(later, kept)

    def _come(self) -> None:
        """Workers that were given and are not there: they will be, where there is room for them."""
        for entry in self.entries:
            missing = entry.had - entry.size
            if not entry.runs or missing <= 0:
                continue
            each = entry.each
            places = self.layers.later.pick(each, missing)
            self.layers.later.put(places, each)
            self.layers.at_least.put(first(entry.stays, entry.least), each, -1)
            entry.stays = merged(entry.stays + places)
            self.layers.at_least.put(first(entry.stays, entry.least), each)
            entry.coming, entry.size = True, count(entry.stays)
            entry.lost = entry.had - entry.size
            target = min(entry.size, entry.least)
            self.count(entry, target - entry.target, 0)
            entry.target = target

    def count(self, entry: Entry, workers: int, jobs: int, sign: int = 1) -> None:
        """Against quotas and the number of jobs at a time."""
        self.running += sign * jobs
        if self.allowances.quotas:
            self.allowances.add(entry.job, workers, jobs, sign)

    def pause(self, entry: Entry) -> None:
        """It gives up all that it holds."""
        each = entry.each
        self.layers.later.put(entry.stays, each, -1)
        self.layers.at_least.put(first(entry.stays, entry.least), each, -1)
        self.count(entry, entry.target, 1, -1)
        entry.runs, entry.target = False, 0

    def unpause(self, entry: Entry) -> None:
        """It keeps what it had after all."""
        each = entry.each
        self.layers.later.put(entry.stays, each)
        self.layers.at_least.put(first(entry.stays, entry.least), each)
        entry.runs, entry.target = True, min(entry.least, entry.size)
        self.count(entry, entry.target, 1)

    def begin(self, entry: Entry) -> bool:
        """It has its least, or what is missing of it, if there is room."""
        missing = entry.least - entry.target
        places = self.layers.take(entry.each, missing)
        if places is None:
            return False
        self.count(entry, missing, 0 if entry.runs else 1)
        entry.runs, entry.places, entry.target = True, places, entry.least
        return True

    def unbegin(self, entry: Entry) -> None:
        self.layers.put(entry.places, entry.each, -1)
        self.count(entry, entry.target, 1, -1)
        entry.runs, entry.places, entry.target = False, [], 0


class Present:
    """What all hold at this moment, those that give it up until they have: quotas hold then too, not only in the plan.

    Args:
        plan: once it is decided.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan, self._allowances = plan, Allowances(plan.rules.quotas)
        there: dict[str, int] = {}
        for node in plan.nodes:
            for name, workers in node.held:
                there[name] = there.get(name, 0) + workers
        self._has: dict[str, int] = {}
        """Of those that run or pause: what they were given last, and all that they have not given up."""
        self._known: dict[tuple[tuple[int, ...], bool], list[str]] = {}
        for entry in plan.entries:
            job = entry.job
            has = max(job.size, there.get(job.job, 0)) if job.state in ("running", "pausing") else 0
            if has:  # one that pauses before it had any takes nobody's place
                self._has[job.job] = has
                self._allowances.add(job, has, 1)

    def take(self, entry: Entry) -> tuple[str, ...]:
        """It has what it is to have in the plan, too. Or who has to give up before that may be, if somebody has."""
        job, most = entry.job, self._plan.rules.most_running
        begins = job.job not in self._has
        more = max(0, entry.target - self._has.get(job.job, 0))
        broken = tuple(self._allowances.exceeded(job, more, int(begins))) if self._allowances.quotas else ()
        full = begins and most is not None and len(self._has) >= most
        found = tuple(name for name in self._givers(broken, full) if name != job.job) if broken or full else ()
        if not found:
            self._has[job.job] = max(entry.target, self._has.get(job.job, 0))
            self._allowances.add(job, more, int(begins))
        return found

    def _givers(self, broken: tuple[int, ...], full: bool) -> list[str]:
        """Who gives up what counts against one of these quotas; full: and who ends."""
        known = self._known.get((broken, full))
        if known is None:
            known = self._known[broken, full] = [
                entry.job.job
                for entry in self._plan.entries
                if self._has.get(entry.job.job, 0) > (entry.target if entry.runs else 0)
                and ((full and not entry.runs) or not set(broken).isdisjoint(self._allowances.of(entry.job)))
            ]
        return known


def merged(places: Places) -> Places:
    found: dict[int, int] = {}
    for number, workers in places:
        found[number] = found.get(number, 0) + workers
    return list(found.items())


def rank(job: Queued, rules: Rules) -> int:
    """A job's priority, one higher with each `raised_s` that it has waited."""
    return job.priority + (int(job.waited_s / rules.raised_s) if rules.raised_s > 0 else 0)
