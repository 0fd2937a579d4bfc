"""How long the queue takes to decide, at 1,000 jobs and 1,000 nodes: median and p99 by situation, CPU and wall.

A cluster of 1,000 nodes (16 CPUs, 8 GPUs, 128 GiB; every tenth has twice that and no GPU) and 1,000 jobs of six shapes,
three priorities, 40 users in 8 teams with quotas. Each draw begins with everything waiting; what is decided is carried
out, and the cluster goes on from there:

- all waiting: the first decision of all;
- nothing new: a minute later, all that run have got on;
- one comes: a small job more;
- some end: ten jobs are over, their room is given on;
- node lost: with all that is on it;
- giant comes: of the highest priority, for a third of the cluster at least.

Takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import replace
from typing import Any

from measure import keep

from headway.core.queue import decide
from headway.core.queued import Each, Node, Pause, Queued, Quota, Refuse, Resize, Rules
from headway.core.slots import Shape, Slots, room

GIB = 2.0**30
SHAPES = (
    *(Each(1, 1), Each(2, 1, 8 * GIB), Each(4, 1, 16 * GIB), Each(8, 2, 32 * GIB)),
    *(Each(2, 0, 4 * GIB), Each(1, 0.5, 2 * GIB)),
)
SITUATIONS = ("all waiting", "nothing new", "one comes", "some end", "node lost", "giant comes")


class Drawn:
    """A cluster and its jobs."""

    def __init__(self, seed: int, jobs: int, nodes: int, rules: Rules) -> None:
        self.chance, self.rules, self.now = random.Random(seed), rules, 1e6
        kinds = [Each(16, 8, 128 * GIB) if n % 10 else Each(32, 0, 256 * GIB) for n in range(nodes)]
        self.has = {f"n{n:05}": each for n, each in enumerate(kinds)}
        self.on: dict[str, dict[str, int]] = {}
        self.jobs: dict[str, Queued] = {}
        for _ in range(jobs):
            self.submit()

    def submit(self, **more: Any) -> None:
        chance, number = self.chance, len(self.jobs)
        least = chance.choice((1, 1, 1, 2, 2, 4, 8))
        most = least * chance.choice((1, 4, 8, 16))
        job = Queued(
            f"j{number:05}-{self.now:.0f}",
            f"u{number % 40}",
            f"t{number % 8}",
            chance.choice((0, 0, 0, 1, 2)),
            least,
            most,
            chance.choice((None, max(least, most // 2))),
            tuple(size for size in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if size <= most)
            if chance.random() < 0.5
            else (),
            chance.choice(SHAPES),
            submitted_at=self.now - chance.uniform(0, 1e5),
            waited_s=chance.uniform(0, 1e5),
            rest_s=chance.choice((None, 10 ** chance.uniform(2, 7))),
        )
        job = replace(job, **more)
        self.jobs[job.job] = job

    def timed(self) -> tuple[float, float, int]:
        """Decides once; CPU and wall in ms, and how many actions. What was decided is carried out."""
        jobs, nodes = list(self.jobs.values()), self.nodes()
        cpu, wall = time.process_time(), time.perf_counter()
        decision = decide(self.now, jobs, nodes, self.rules)
        found = (time.process_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3, len(decision.actions)
        for action in decision.actions:
            name = action.job
            if isinstance(action, Refuse):
                del self.jobs[name]
            elif isinstance(action, Pause):
                self.jobs[name] = replace(self.jobs[name], state="paused", size=0)
                self.on.pop(name, None)
            else:
                size = action.size
                self.jobs[name] = replace(self.jobs[name], state="running", size=size, resized_at=self.now)
                for node, workers in action.leave if isinstance(action, Resize) else ():
                    self.on[name][node] -= workers
        self._place()
        return found

    def _place(self) -> None:
        names = sorted(self.has)
        slots = Slots([room(self.has[name]) for name in names])
        index = {name: number for number, name in enumerate(names)}
        shapes = {each: Shape(each) for each in SHAPES}
        for name, places in self.on.items():
            each = shapes[self.jobs[name].each]
            slots.put([(index[node], workers) for node, workers in places.items()], each)
        for name, job in self.jobs.items():
            places = self.on.setdefault(name, {})
            more = job.size - sum(places.values())
            new = slots.pick(shapes[job.each], more) if more > 0 else []
            slots.put(new, shapes[job.each])
            for number, workers in new:
                places[names[number]] = places.get(names[number], 0) + workers

    def nodes(self) -> list[Node]:
        held: dict[str, list[tuple[str, int]]] = {name: [] for name in self.has}
        for job, places in self.on.items():
            for node, workers in places.items():
                if workers:
                    held[node].append((job, workers))
        return [Node(name, self.has[name], tuple(on)) for name, on in held.items()]

    def passes(self, seconds: float) -> None:
        self.now += seconds
        for name, job in self.jobs.items():
            if job.state == "running":
                rest_s = None if job.rest_s is None else job.rest_s * 0.97
                done_s, held_s = job.done_s + seconds * job.size * 0.8, job.held_s + seconds * job.size
                self.jobs[name] = replace(job, rest_s=rest_s, done_s=done_s, held_s=held_s)
            else:
                self.jobs[name] = replace(job, waited_s=job.waited_s + seconds)

    def end(self, number: int) -> None:
        for name in self.chance.sample([name for name, job in self.jobs.items() if job.size], number):
            del self.jobs[name]
            self.on.pop(name, None)

    def lose(self) -> None:
        gone = self.chance.choice(sorted(self.has))
        del self.has[gone]
        for places in self.on.values():
            places.pop(gone, None)


def play(drawn: Drawn, nodes: int) -> dict[str, tuple[float, float, int]]:
    """All situations, one after the other."""
    found = {"all waiting": drawn.timed()}
    drawn.passes(60.0)
    found["nothing new"] = drawn.timed()
    drawn.passes(60.0)
    drawn.submit(least=1, most=4, wanted=None)
    found["one comes"] = drawn.timed()
    drawn.passes(60.0)
    drawn.end(10)
    found["some end"] = drawn.timed()
    drawn.passes(60.0)
    drawn.lose()
    found["node lost"] = drawn.timed()
    drawn.passes(60.0)
    third = nodes * 8 // 3
    drawn.submit(priority=9, least=third, most=2 * third, wanted=None, sizes=(), each=SHAPES[0], user="chief", team="")
    found["giant comes"] = drawn.timed()
    return found


def quotas(nodes: int) -> tuple[Quota, ...]:
    """Some of which are reached."""
    users = tuple(Quota(user=f"u{n}", gpus=nodes * 8 / 30, jobs=60) for n in range(40))
    return users + tuple(Quota(team=f"t{n}", gpus=nodes * 8 / 7, share=1.0 + n % 3) for n in range(8))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=20)


def measure(told: argparse.Namespace) -> None:
    rules = {
        "no quotas": Rules(),
        "quotas": Rules(quotas=quotas(told.nodes)),
        "quotas, fair among teams": Rules(quotas=quotas(told.nodes), fair="team"),
    }
    rows: dict[str, Any] = {}
    for label, each in rules.items():
        taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in SITUATIONS}
        for seed in range(told.draws):
            for name, figures in play(Drawn(seed, told.jobs, told.nodes, each), told.nodes).items():
                taken[name].append(figures)
        for name, figures in {**taken, "all of these": [one for some in taken.values() for one in some]}.items():
            cpu, wall = sorted(one[0] for one in figures), sorted(one[1] for one in figures)
            row = {
                "decisions": len(figures),
                "actions_median": statistics.median(one[2] for one in figures),
                "cpu_ms_median": round(statistics.median(cpu), 1),
                "cpu_ms_p99": round(cpu[int(0.99 * (len(cpu) - 1))], 1),
                "wall_ms_median": round(statistics.median(wall), 1),
                "wall_ms_p99": round(wall[int(0.99 * (len(wall) - 1))], 1),
                "cpu_ms_max": round(cpu[-1], 1),
            }
            rows[f"{label}: {name}"] = row
            print(f"{label:26} {name:14} {row}", flush=True)
    keep("policy_decision", {"jobs": told.jobs, "nodes": told.nodes, "situations": rows})
