"""Every strategy under random harm: workers are killed, frozen, joined, sent away by plan, all killed at once, in an
order and at steps that a seed gives. What it was is printed, so that a failure can be done again:

    HEADWAY_TIER=soak pytest tests/unit/test_strategies_soak.py -k "diloco and 17"
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.tiers import SOAK
from tests.unit.test_elastic_run import data as data
from tests.unit.test_strategies_run import COMPRESSED, KINDS, STEPS, UNREPEATABLE, Calm, done, job, same, train
from tests.unit.test_strategies_run import calm as calm

from headway.testing.elastic import Run

SEEDS = range(int(os.environ.get("HEADWAY_DRILLS", "6")) if SOAK else 1)
FIRST = "diloco in fragments"
"""That is done in every tier."""
MOST = 4
"""Workers at a time."""
FROZEN_S = 0.4
VERBS = {"kill": 4, "freeze": 2, "away": 2, "join": 3, "leave": 2, "all": 1}
"""How often each is drawn. freeze: for less than a worker is waited for; away: for longer."""


@dataclass(frozen=True)
class Harm:
    """Something that is done to a run.

    Args:
        step: that the foremost worker has done by then.
        verb: see `VERBS`.
        whom: which of those that are there, as a share of them.
    """

    step: int
    verb: str
    whom: float

    def __str__(self) -> str:
        return f"{self.verb} at {self.step}"


def script(seed: int) -> tuple[int, list[Harm]]:
    """Of a seed: workers to begin with, and what is done, in order."""
    draw = random.Random(seed)
    workers = draw.randint(2, MOST)
    steps = sorted(draw.sample(range(1, STEPS - 3), draw.randint(2, 4)))
    verbs = draw.choices(list(VERBS), list(VERBS.values()), k=len(steps))
    return workers, [Harm(step, verb, draw.random()) for step, verb in zip(steps, verbs, strict=True)]


def do(harm: Harm, run: Run) -> bool:
    """Returns whether it was done: not where the run would be left without anybody, or is over first."""
    over = run._over.is_set
    run.wait_until(lambda: run.step >= harm.step or over())
    # Of two that have each other's copies nothing would be left: what was lost is back before anything else goes.
    run.wait_until(lambda: over() or _settled(run))
    since = run.step
    run.wait_until(lambda: over() or run.step >= min(STEPS, since + 2))
    there = [worker for worker in run.members if worker in run.processes]
    if over() or not there:
        return False
    whom = there[int(harm.whom * len(there))]
    match harm.verb:
        case "kill" | "freeze" | "away" if len(there) < 2:
            return False
        case "kill":
            run.kill(whom)
        case "freeze":
            run.stop(whom)
            run._over.wait(FROZEN_S)
            run.resume(whom)
        case "away":
            run.stop(whom)
            run.wait_until(lambda: over() or whom not in run.members)
            run.resume(whom)
        case "join":
            run.resize(1, MOST)
            run.places(1)
        case "leave":
            run.resize(1, max(1, len(there) - 1))
        case "all":
            for worker in there:
                run.kill(worker)
    return True


def _settled(run: Run) -> bool:
    """Whether all members are there, and train."""
    return bool(run.members) and set(run.members) <= run.processes.keys()


@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "kind", [kind if kind == FIRST else pytest.param(kind, marks=pytest.mark.long) for kind in sorted(KINDS)]
)
def test_whatever_happens(kind: str, seed: int, tmp_path: Path, data: Path, calm: Calm) -> None:
    workers, harms = script(seed)
    print(f"{kind}, seed {seed}: {workers} workers: {', '.join(map(str, harms))}")
    with Run(tmp_path / "run", job(data, kind, MOST), train, 0.02, places=workers) as run:
        told = [f"{harm}: {'done' if do(harm, run) else 'left out'}, {run.step} steps" for harm in harms]
        print("; ".join(told))
        outcome = done(run, 240)
    if kind in COMPRESSED:  # what was left out is lost with a worker
        assert [line["samples"] for line in outcome.steps] == [line["samples"] for line in calm(kind).steps]
        for found, wanted in zip(outcome.steps, calm(kind).steps, strict=True):
            assert found["loss"] == pytest.approx(wanted["loss"], rel=0.1)
    else:
        same(outcome, calm(kind), kind)
    ends = [{name: value.tobytes() for name, value in found["weights"].items()} for found in outcome.results.values()]
    assert all(end == ends[0] for end in ends), "not all end alike"


def test_a_script_hangs_on_its_seed_alone() -> None:
    assert script(7) == script(7)
    scripts = [script(seed) for seed in range(200)]
    assert {harm.verb for _, harms in scripts for harm in harms} == set(VERBS)
    assert {workers for workers, _ in scripts} == {2, 3, 4}
    for _, harms in scripts:
        steps = [harm.step for harm in harms]
        assert steps == sorted(set(steps))
        assert max(steps) < STEPS
    assert not set(UNREPEATABLE) & set(COMPRESSED)
