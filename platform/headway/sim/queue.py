"""Many jobs on one cluster under a virtual clock: the queue that decides in production, and three others beside it.

Jobs are drawn as published traces describe them. Lengths are lognormal: sigma 2.65 is what mean and median of the
Helios trace give (6,652 s and 206 s, and exp(sigma^2 / 2) is 32; Hu et al., "Characterization and prediction of deep
learning workloads in large-scale GPU datacenters", SC'21); the median here, 847 s, makes the mean that of Philly
(28,329 s; Jeon et al., "Analysis of large-scale multi-tenant GPU clusters for DNN training workloads", ATC'19), cut at
the longest there, 60 days. Half the jobs ask for one GPU, and the mean is 3.8 (3.72 in Helios, 1.75 in Philly). They
come in bursts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from headway.core.queue import decide
from headway.core.queued import Each, Node, Pause, Queued, Refuse, Resize, Rules, Speedup

SIGMA = 2.65
MEDIAN_S = 847.0
LONGEST_S = 60 * 86400.0
ASKED = ((1, 0.50), (2, 0.15), (4, 0.15), (8, 0.14), (16, 0.04), (32, 0.02))
PRIORITIES = ((0, 0.7), (1, 0.2), (2, 0.1))
BURSTS = 1.5
"""Sigma of the lognormal times between arrivals."""

ONE = Each(1.0, 1.0)
CURVE = Speedup(serial=0.02)


@dataclass(frozen=True)
class Drawn:
    """A job: when it comes, what it asks for, and how long it is in seconds on one worker."""

    job: str
    at: float
    priority: int
    least: int
    asked: int
    most: int
    work_s: float


@dataclass(frozen=True)
class Setting:
    """What is drawn, and what it runs on.

    Args:
        jobs: how many.
        gpus: of the cluster, on nodes of 8.
        load: GPU-seconds that come, at the sizes asked for, as a part of what the cluster has meanwhile.
        most: as a multiple of what is asked for; the least is a `least`-th of it.
        curve: of all jobs.
        start_s: until a job that starts, or starts anew, does its first step.
        resize_s: how long a live change of its size stops a job.
        warm_up_s: how long a new worker warms up beside the others.
        known_after_s: how long a job runs until it is known what is left of it; inf: never.
    """

    jobs: int = 1000
    gpus: int = 128
    load: float = 3.0
    most: int = 4
    least: int = 4
    curve: Speedup = CURVE
    start_s: float = 30.0
    resize_s: float = 1.0
    warm_up_s: float = 10.0
    known_after_s: float = 60.0


def draw(setting: Setting, seed: int) -> list[Drawn]:
    """The jobs of a seed, in order of arrival."""
    chance = random.Random(seed)
    found = []
    sizes, parts = zip(*ASKED, strict=True)
    ranks, of_ranks = zip(*PRIORITIES, strict=True)
    for number in range(setting.jobs):
        asked = min(chance.choices(sizes, parts)[0], setting.gpus)
        length_s = min(MEDIAN_S * math.exp(SIGMA * chance.gauss(0, 1)), LONGEST_S)
        priority = chance.choices(ranks, of_ranks)[0]
        gap = math.exp(BURSTS * chance.gauss(0, 1))
        most = min(setting.gpus, asked * setting.most)
        work_s = length_s * setting.curve.at(asked)
        found.append(Drawn(f"j{number:04}", gap, int(priority), max(1, asked // setting.least), asked, most, work_s))
    offered = sum(job.asked * job.work_s / setting.curve.at(job.asked) for job in found)
    span = offered / (setting.gpus * setting.load)
    scale = span / sum(job.at for job in found)
    now, placed = 0.0, []
    for job in found:
        now += job.at * scale
        placed.append(replace(job, at=now))
    return placed


@dataclass
class Alive:
    """A job that has come and has not ended.

    Args:
        drawn: it.
        size: workers that it holds.
        useful: those of them that are warm.
        warm_at: when all are.
        stopped_until: it does nothing before.
    """

    drawn: Drawn
    size: int = 0
    useful: int = 0
    warm_at: float = 0.0
    stopped_until: float = 0.0
    done_s: float = 0.0
    held_s: float = 0.0
    ran_s: float = 0.0
    waited_s: float = 0.0
    resized_at: float | None = None
    changes: int = 0
    pauses: int = 0
    started: bool = False

    def speeds(self, now: float, curve: Callable[[int], float]) -> list[tuple[float, float]]:
        """(from when, speed) from now on."""
        begins = max(now, self.stopped_until)
        if not self.size:
            return [(now, 0.0)]
        found = [(now, 0.0)] if begins > now else []
        if self.warm_at > begins:
            return [*found, (begins, curve(self.useful)), (self.warm_at, curve(self.size))]
        return [*found, (begins, curve(self.size))]

    def goes_on(self, now: float, until: float, curve: Callable[[int], float]) -> None:
        """Time passes."""
        marks = self.speeds(now, curve)
        for (start, speed), (end, _) in zip(marks, [*marks[1:], (math.inf, 0.0)], strict=True):
            if start < until:
                self.done_s += speed * (min(end, until) - start)
        if self.warm_at <= until:
            self.useful = self.size
        self.held_s += self.size * (until - now)
        if self.size:
            self.ran_s += until - now
        else:
            self.waited_s += until - now

    def ends_at(self, now: float, curve: Callable[[int], float]) -> float:
        left = self.drawn.work_s - self.done_s
        marks = self.speeds(now, curve)
        for (start, speed), (end, _) in zip(marks, [*marks[1:], (math.inf, 0.0)], strict=True):
            if speed > 0 and start + left / speed <= end:
                return start + left / speed
            left -= speed * (end - start) if end < math.inf else 0.0
        return math.inf


Sizes = dict[str, int]


class Policy:
    """Says how many workers each job has. live: a change of size does not stop a job for long."""

    live = False
    again_at: float | None = None

    def sizes(self, now: float, alive: dict[str, Alive]) -> Sizes:
        raise NotImplementedError


class Fifo(Policy):
    """Whoever came first, at the size asked for; nobody overtakes."""

    def __init__(self, setting: Setting) -> None:
        self._gpus = setting.gpus

    def sizes(self, now: float, alive: dict[str, Alive]) -> Sizes:
        free, found = self._gpus, {}
        for name, job in alive.items():
            if job.drawn.asked > free:
                break
            found[name] = job.drawn.asked
            free -= job.drawn.asked
        return found


class Eviction(Policy):
    """By priority, at the size asked for: lower ones are evicted where a higher one would wait, and start anew from a
    checkpoint. Those that fit go before those that do not."""

    def __init__(self, setting: Setting) -> None:
        self._gpus = setting.gpus

    def sizes(self, now: float, alive: dict[str, Alive]) -> Sizes:
        free, found = self._gpus, {}
        order = sorted(alive.values(), key=lambda job: (-job.drawn.priority, not job.size, job.drawn.at))
        for job in order:
            if job.drawn.asked <= free:
                found[job.drawn.job] = job.drawn.asked
                free -= job.drawn.asked
        return found


class Fair(Policy):
    """All have the same, from their least to their most, by starting anew on another number: at a change of a quarter
    or more, or where another would have no place."""

    MOVES = 1.25

    def __init__(self, setting: Setting) -> None:
        self._gpus = setting.gpus

    def sizes(self, now: float, alive: dict[str, Alive]) -> Sizes:
        free, in_turn = self._gpus, []
        for job in sorted(alive.values(), key=lambda job: (not job.size, job.drawn.at)):
            if job.drawn.least <= free:
                in_turn.append(job)
                free -= job.drawn.least
        found = {job.drawn.job: job.drawn.least for job in in_turn}
        growing = sorted(in_turn, key=lambda job: (found[job.drawn.job], job.drawn.at))
        while free and growing:
            growing = [job for job in growing if found[job.drawn.job] < job.drawn.most]
            growing.sort(key=lambda job: (found[job.drawn.job], job.drawn.at))
            lowest = found[growing[0].drawn.job] if growing else 0
            for job in growing:
                if not free or found[job.drawn.job] > lowest:
                    break
                found[job.drawn.job] += 1
                free -= 1
        kept = dict(found)
        for job in in_turn:
            name, now_has = job.drawn.job, job.size
            if now_has and found[name] != now_has and now_has / self.MOVES < found[name] < now_has * self.MOVES:
                kept[name] = now_has
        return kept if sum(kept.values()) <= self._gpus else found


class Ours(Policy):
    """The queue's own decision (`headway.core.queue.decide`), on nodes of 8 GPUs."""

    live = True

    def __init__(self, setting: Setting, rules: Rules | None = None) -> None:
        self._setting = setting
        self.rules = replace(rules or Rules(), speedup=setting.curve)
        self._on: dict[str, dict[str, int]] = {}
        self._names = [f"n{number:04}" for number in range(math.ceil(setting.gpus / 8))]
        self.decisions = 0

    def sizes(self, now: float, alive: dict[str, Alive]) -> Sizes:
        for gone in self._on.keys() - alive.keys():
            del self._on[gone]
        decision = decide(now, (self._seen(job) for job in alive.values()), self._nodes(), self.rules)
        self.again_at = decision.again_at
        self.decisions += 1
        found = {name: job.size for name, job in alive.items() if job.size}
        for action in decision.actions:
            if isinstance(action, Refuse):
                raise AssertionError(f"{action.job} was refused: {action.fact}")
            name = action.job
            on = self._on.setdefault(name, {})
            if isinstance(action, Pause):
                on.clear()
                del found[name]
                continue
            if isinstance(action, Resize):
                for node, workers in action.leave:
                    on[node] -= workers
            found[name] = action.size
            self._place(on, action.size - sum(on.values()))
        return found

    def _place(self, on: dict[str, int], more: int) -> None:
        free = {node.node: int(node.has.gpus) - sum(n for _, n in node.held) for node in self._nodes()} if more else {}
        for node in sorted(free, key=lambda node: (-free[node], node)):
            take = min(free[node], more)
            if take > 0:
                on[node] = on.get(node, 0) + take
                more -= take
        assert more == 0, "more workers than there is room for"

    def _nodes(self) -> list[Node]:
        held: dict[str, list[tuple[str, int]]] = {name: [] for name in self._names}
        for job, places in self._on.items():
            for node, workers in places.items():
                if workers:
                    held[node].append((job, workers))
        left = self._setting.gpus
        found = []
        for name in self._names:
            gpus = min(8, left)
            left -= gpus
            found.append(Node(name, Each(float(gpus), float(gpus)), tuple(held[name])))
        return found

    def _seen(self, job: Alive) -> Queued:
        drawn = job.drawn
        known = job.ran_s >= self._setting.known_after_s
        return Queued(
            drawn.job,
            "somebody",
            priority=drawn.priority,
            least=drawn.least,
            most=drawn.most,
            wanted=drawn.asked,
            each=ONE,
            submitted_at=drawn.at,
            state="running" if job.size else "paused" if job.started else "waiting",
            size=job.size,
            resized_at=job.resized_at,
            waited_s=job.waited_s,
            rest_s=max(0.0, drawn.work_s - job.done_s) if known else None,
            done_s=job.done_s,
            held_s=job.held_s,
        )


@dataclass
class Outcome:
    """What came of one policy on one draw: hours, and the most that was held at a time."""

    completion_h: list[float] = field(default_factory=list)
    first_step_h: list[float] = field(default_factory=list)
    by_priority_h: dict[int, list[float]] = field(default_factory=dict)
    gpu_h: float = 0.0
    changes: int = 0
    pauses: int = 0
    until_h: float = 0.0
    most_held: int = 0

    @property
    def mean_h(self) -> float:
        return sum(self.completion_h) / len(self.completion_h)


def play(setting: Setting, jobs: Iterable[Drawn], policy: Policy) -> Outcome:
    """All of them, to the end.

    Raises:
        RuntimeError: somebody waits for ever, or more is held than there is.
    """
    table: dict[int, float] = {}

    def curve(workers: int) -> float:
        if workers not in table:
            table[workers] = setting.curve.at(workers)
        return table[workers]

    coming = sorted(jobs, key=lambda job: (job.at, job.job))
    alive: dict[str, Alive] = {}
    outcome, now, at = Outcome(), 0.0, 0
    while at < len(coming) or alive:
        ends = min((job.ends_at(now, curve) for job in alive.values()), default=math.inf)
        then = min(ends, coming[at].at if at < len(coming) else math.inf)
        then = min(then, max(policy.again_at, now + 1e-3) if policy.again_at is not None else math.inf)
        if then == math.inf:
            raise RuntimeError(f"{len(alive)} jobs wait for ever")
        for job in alive.values():
            job.goes_on(now, then, curve)
        now = then
        for name in [name for name, job in alive.items() if job.drawn.work_s - job.done_s <= 1e-6 * job.drawn.work_s]:
            _end(outcome, alive.pop(name), now)
        while at < len(coming) and coming[at].at <= now:
            alive[coming[at].job] = Alive(coming[at])
            at += 1
        _change(setting, policy.live, now, alive, policy.sizes(now, alive), outcome)
        outcome.most_held = max(outcome.most_held, sum(job.size for job in alive.values()))
        if outcome.most_held > setting.gpus:
            raise RuntimeError(f"{outcome.most_held} GPUs are held of {setting.gpus}")
    outcome.until_h = now / 3600
    return outcome


def _change(setting: Setting, live: bool, now: float, alive: dict[str, Alive], sizes: Sizes, outcome: Outcome) -> None:
    for name, job in alive.items():
        then = sizes.get(name, 0)
        if then == job.size:
            continue
        if not job.size:
            job.stopped_until = now + setting.start_s
            job.useful, job.warm_at = then, now
            if not job.started:
                outcome.first_step_h.append((job.stopped_until - job.drawn.at) / 3600)
            job.started = True
        elif not then:
            job.pauses += 1
            job.useful = 0
        elif live:
            job.stopped_until = max(job.stopped_until, now) + setting.resize_s
            if then > job.size and job.stopped_until <= now + setting.resize_s:
                job.useful = min(job.useful, job.size)
                job.warm_at = now + setting.warm_up_s
            else:
                job.useful = min(job.useful, then)
            job.changes += 1
        else:
            job.stopped_until = now + setting.start_s
            job.useful, job.warm_at = then, now
            job.changes += 1
        job.size, job.resized_at = then, now


def _end(outcome: Outcome, job: Alive, now: float) -> None:
    hours = (now - job.drawn.at) / 3600
    outcome.completion_h.append(hours)
    outcome.by_priority_h.setdefault(job.drawn.priority, []).append(hours)
    outcome.gpu_h += job.held_s / 3600
    outcome.changes += job.changes
    outcome.pauses += job.pauses


POLICIES: dict[str, Callable[[Setting], Policy]] = {"ours": Ours, "fifo": Fifo, "eviction": Eviction, "fair": Fair}
