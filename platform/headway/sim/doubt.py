"""Healthy runs in bad weather: all that goes wrong passes within the patience for it, and nobody may be killed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from headway.core.membership import Policy
from headway.core.watch import At, Patience
from headway.sim.air import HEAD, Fault
from headway.sim.weather import Weather

PATIENCE = Patience.of(silence_s=2.0, hang_s=60.0, slow_s=300.0)
BETWEEN_S = 6.0
REST_S = 20.0


@dataclass(frozen=True)
class Doubted:
    """How a run ended.

    Args:
        faults: kinds.
        killed: workers that were given up though they lived.
        resumed: whether all were training again at the end.
        doubt_s: for how long the watch doubted itself.
    """

    seed: int
    workers: int
    faults: tuple[str, ...]
    killed: int
    resumed: bool
    doubt_s: float
    generations: int


def doubt(seed: int) -> Doubted:
    """One run. Outages follow each other; losses, delays and slow phases go on beside them."""
    chance = random.Random(seed)
    most = chance.randint(2, 6)
    nodes = [f"n{i % chance.randint(3, 6)}" for i in range(most)]
    if chance.random() < 0.4:
        nodes[chance.randrange(most)] = HEAD
    phases, begin, slow = _phases(chance)
    faults, at = [], begin
    for _ in range(chance.randint(2, 5)):
        fault = _outage(chance, at, nodes, most)
        faults.append(fault)
        at = fault.end + BETWEEN_S + chance.random()
    loss, delay = chance.choice([0.0, 0.05, 0.2]), chance.choice([0.0, 0.1, 0.3])
    beside = [Fault("loss", begin, at, tuple(nodes), loss), Fault("delay", begin, at, tuple(nodes), delay)]
    weather = Weather(Policy(12, 1, most, patience=PATIENCE), tuple(nodes), faults + beside, phases, seed)
    quiet = max(at, sum(phases.values()) + BETWEEN_S)
    weather.run(quiet + sum(phases.values()) * (At.FIRST_STEP not in phases and At.STARTING not in phases) + REST_S)
    late = {w for t, w, _, _ in weather.commits if t > quiet}
    kinds = [f.kind for f in faults] + [f.kind for f in beside if f.amount] + slow
    return Doubted(
        seed,
        most,
        tuple(kinds),
        len(weather.killed),
        weather.ended is None and len(late) == most,
        round(weather.facts()["doubt_s"], 1),
        len(weather.generations),
    )


def _phases(chance: random.Random) -> tuple[dict[At, float], float, list[str]]:
    """Seconds of slow phases, when faults begin, and what is slow."""
    match chance.choice(["compile", "restore", "store", "user", None, None, None, None]):
        case "compile":
            return {At.FIRST_STEP: 200.0}, chance.choice([10.0, 215.0]), ["slow compile"]
        case "restore":
            return {At.STARTING: 200.0}, chance.choice([10.0, 215.0]), ["slow restore"]
        case "store":
            return {At.SAVING: 100.0}, 15.0, ["slow store"]
        case "user":
            return {At.USER: 25.0}, 15.0, ["slow user's code"]
    return {}, 15.0, []


def _outage(chance: random.Random, at: float, nodes: list[str], most: int) -> Fault:
    """Something that is over within the patience for it."""
    long, short = at + chance.uniform(1.0, 10.0), at + chance.uniform(0.5, 1.5)
    worker, node = f"w{chance.randrange(most)}", chance.choice(nodes)
    match chance.choice(
        ["head", "head one way", "freeze", "freeze all", "link", "one way", "part", "stop", "lock", "all"]
    ):
        case "head" if len(set(nodes) - {HEAD}) > 1:
            return Fault("cut", at, long, (HEAD,))
        case "head one way" if len(set(nodes) - {HEAD}) > 1:
            return Fault(chance.choice(["in", "out"]), at, long, (HEAD,))
        case "freeze":
            return Fault("freeze", at, long, (), chance.choice([0.0, 1.0]))
        case "freeze all":
            # Who is on that machine is silent as well, and the others wait for it as they do for one that is stopped.
            return Fault("freeze", at, long, (HEAD,), chance.choice([0.0, 1.0]))
        case "one way":
            return Fault(chance.choice(["in", "out"]), at, short, (node,))
        case "part" if len(apart := sorted(set(nodes) - {HEAD})) > 1:
            return Fault("part", at, at + chance.uniform(0.5, 2.5), tuple(chance.sample(apart, 2)))
        case "stop":
            return Fault("stop", at, at + chance.uniform(0.5, 3.5), (worker,))
        case "lock":
            return Fault("lock", at, at + 8.0, (worker,))
        case "all" if len(set(nodes) - {HEAD}) > 1:
            return Fault("cut", at, long, tuple({*nodes, HEAD}))
    return Fault("cut", at, short, (node,))
