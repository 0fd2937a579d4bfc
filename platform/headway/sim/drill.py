"""Random drills without machines: a seed decides what goes wrong, and the samples must be those of the quiet run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from headway.core.events import End
from headway.core.membership import Policy
from headway.sim.workers import World, quiet_digest

FAULTS_AT_MOST = 12


@dataclass(frozen=True)
class Drilled:
    """How a drill ended.

    Args:
        ended: whether all steps were done.
        same_samples: whether every worker that holds the last state saw the samples of the quiet run, once each.
        reason: of the end.
    """

    seed: int
    ended: bool
    same_samples: bool
    workers: int
    faults: int
    generations: int
    commits: int
    reason: str


def drill(seed: int, steps: int = 20) -> Drilled:
    """A run of a few workers under random faults at random moments, and in random order of all messages."""
    chance = random.Random(seed)
    most = chance.randint(2, 6)
    slow = chance.choice(["report", "rebalance", "replace"])
    spares = random.Random(f"spares {seed}").choice((0, 0, 1, 2))
    policy = Policy(chance.randint(most, 12), chance.randint(1, most // 2 + 1), most, slow=slow, spares=spares)
    world = World(policy, steps)
    # Few enough that the membership does not give the run up for workers that die and die.
    faults, allowed, rate = 0, min(FAULTS_AT_MOST, 3 * most - 1), chance.choice([0.005, 0.02, 0.05])
    for _ in range(chance.choice([200, 600, 1200])):
        if world.ended is not None:
            break
        draw = chance.random()
        wrong = list(world.faults()) if draw < rate and faults < allowed else []
        if wrong:
            faults += 1
        possible: list[Callable[[], None]] = wrong or list(world.moves())
        if possible and draw < 0.98:
            chance.choice(possible)()
        else:
            world.tick(chance.choice([0.3, 1.0, 5.0]))
    settle(world, chance)
    return Drilled(
        seed,
        isinstance(world.ended, End),
        unharmed(world),
        most,
        faults,
        world.number,
        world.commits,
        world.ended.reason if world.ended else "no progress",
    )


def drills(seeds: range, steps: int = 20) -> tuple[list[Drilled], Counter[str]]:
    """Many; also how they ended, in words."""
    done = [drill(seed, steps) for seed in seeds]
    return done, Counter("as the quiet run" if d.ended and d.same_samples else d.reason for d in done)


def settle(world: World, chance: random.Random, most: int = 6000) -> None:
    """Let happen what can happen, with nothing more going wrong, until the run has ended; at most so many events."""
    world.heal()
    for event in range(most):
        if world.ended is not None:
            return
        possible = list(world.moves())
        if possible and event % 50:
            chance.choice(possible)()
        else:
            world.tick()


def unharmed(world: World) -> bool:
    """Whether the last state holds every lane of every step once."""
    expected = quiet_digest(world.steps, world.machine.policy.lanes)
    last = [p.state[1] for p in world.processes.values() if p.state is not None and p.state[0] == world.steps]
    return bool(last) and all(state == expected for state in last)
