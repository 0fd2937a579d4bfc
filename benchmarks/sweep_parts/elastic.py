"""Four workers until the same deadline, on recorded learning curves and a virtual clock: trials that share the workers,
against trials of one worker each under ASHA. How many worker-seconds does it take until the regret is as small? Some
minutes on two cores.

A trial has four lanes, so that on two or four workers a step takes a half or a quarter of its time; whenever a trial
begins, goes on, or has other workers, it loses a tenth of a stretch. Workers are held until the deadline by both.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

from headway.sweeps.named import Scheduler, Search
from headway.sweeps.replay.clock import Cluster
from headway.sweeps.replay.replaying import once, sweep_of
from sweep_parts.replay import curves, table_of

WORKERS = 4
DEADLINE = 250
"""Units of time: of a stretch on one worker. 1,000 stretches, if nothing is lost."""
SETTLE = 0.1
SEEDS = 40
GRID = 4
"""Looks at the regret in a unit of time."""


@dataclass(frozen=True)
class Way:
    """One way to spend the workers."""

    search: Search
    scheduler: Scheduler
    cluster: Cluster


def _ways() -> dict[str, Way]:
    asha, stops = Scheduler(name="asha"), Scheduler(name="asha", promote=False)
    fixed = Cluster(workers=WORKERS, settle=SETTLE)
    elastic = {
        width: Cluster(workers=WORKERS, lanes=WORKERS, width=width, settle=SETTLE, rule="best_first")
        for width in (1, 2, WORKERS)
    }
    return {
        "asha that stops, one worker each": Way(Search(name="random"), stops, fixed),
        "asha, one worker each": Way(Search(name="random"), asha, fixed),
        "asha, elastic, 1 at once": Way(Search(name="random"), asha, elastic[1]),
        "default, one worker each": Way(Search(), asha, fixed),
        **{f"default, elastic, {width} at once": Way(Search(), asha, elastic[width]) for width in elastic},
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    seeds, folder = options.repeats or SEEDS, curves()
    if folder is None:
        return {"left_out": "shared/curves is not there"}
    paths = sorted(map(str, folder.glob("*.parquet")))
    means: dict[str, list[float]] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for name in _ways():
            print(f"  {name}: {seeds} seeds on {len(paths)} tables", flush=True)
            jobs = list(product(paths, [name], range(seeds)))
            found = list(pool.map(_one, *zip(*jobs, strict=True), chunksize=5))
            means[name] = [fmean(column) for column in zip(*found, strict=True)]
    peer = "asha, one worker each"
    goals = [0.2, 0.15, round(means[peer][-1], 4)]
    return {
        "workers": WORKERS,
        "deadline": DEADLINE,
        "settle": SETTLE,
        "seeds": seeds,
        "regret_at_the_deadline": {name: round(mean[-1], 4) for name, mean in means.items()},
        "worker_seconds_to": {str(goal): {name: _until(mean, goal) for name, mean in means.items()} for goal in goals},
        "peer": peer,
    }


def _one(path: str, name: str, seed: int) -> list[float]:
    """The regret over time, at `GRID` places in each unit of it."""
    table, way = table_of(path), _ways()[name]
    sweep = sweep_of(table, way.search, way.scheduler)
    played = once(table, sweep, seed, WORKERS * DEADLINE, way.cluster)
    return [table.regret(loss) for loss in _over_time(played.at, played.seen)]


def _over_time(at: Sequence[float], seen: Sequence[float]) -> list[float]:
    found, number = [], 0
    for tick in range(DEADLINE * GRID + 1):
        while number + 1 < len(at) and at[number + 1] <= tick / GRID:
            number += 1
        found.append(seen[number])
    return found


def _until(mean: Sequence[float], goal: float) -> float | None:
    """Worker-seconds until the mean regret is as small; None: it never is before the deadline."""
    return next((WORKERS * tick / GRID for tick, regret in enumerate(mean) if regret <= goal), None)
