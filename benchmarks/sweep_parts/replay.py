"""Searchers and schedulers on recorded learning curves, on a virtual clock: the regret after so many stretches of
training, mean over tables and 100 paired seeds; what the default's settings were chosen on; and what a decision costs.
About 15 minutes on two cores, most of them Optuna's TPE, which has fewer seeds.

The tables are those of shared/curves, in a folder above; without them one of our own making, with other figures.
Regret: (least validation loss seen - the table's least) / (median loss before training - the table's least).
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from headway.core.densities import Smoothing
from headway.sweeps.named import Scheduler, Search
from headway.sweeps.replay import table as tables
from headway.sweeps.replay.clock import Cluster
from headway.sweeps.replay.making import make
from headway.sweeps.replay.replaying import once, sweep_of
from headway.sweeps.replay.rows import Promising
from headway.sweeps.replay.table import Table
from headway.sweeps.search.density import CHANCE, STARTUP

BUDGET = 1_000
SEEDS = 100
DEAR = 0.05
"""Of the seeds, for searchers that take seconds of each sweep."""
POINTS = (125, 250, 500, 750, 1000)
DEFAULT = "density, asha"
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    DEFAULT: ({}, {}),
    "random, none": ({"name": "random"}, {"name": "none"}),
    "random, hyperband": ({"name": "random"}, {"name": "hyperband", "factor": 3}),
    "random, asha that stops": ({"name": "random"}, {"name": "asha", "promote": False}),
    "random, asha": ({"name": "random"}, {"name": "asha"}),
    "density, none": ({}, {"name": "none"}),
    "tpe, none": ({"name": "tpe"}, {"name": "none"}),
    "tpe, asha": ({"name": "tpe"}, {"name": "asha"}),
}
SETTINGS: dict[str, tuple[Smoothing, int, float]] = {
    "as shipped": (Smoothing(), STARTUP, CHANCE),
    "32 by chance first": (Smoothing(), 32, 0.1),
    "wider, more good": (Smoothing(0.1, 3, 0.2, 0.3, 0.5), 24, 0.1),
    "more good, whole repulsion": (Smoothing(0.06, 10, 0.05, 1.0, 1.0), 48, 0.05),
    "fewer good, half repulsion": (Smoothing(0.04, 4, 0.12, 0.1, 0.5), 32, 0.1),
    "no repulsion": (Smoothing(repulsion=0.0), 16, 0.1),
    "no chance": (Smoothing(), 16, 0.0),
}
"""Of the density model, that were tried: smoothing, observations before it counts, chance."""
SPLIT = ((0, 1), (2, 3))
"""Tables on which settings are chosen, and on which they are reported; and the other way round."""
Regrets = list[float]
"""At POINTS."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    seeds = options.repeats or SEEDS
    folder = curves()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(options.jobs) as pool:
        if folder is None:
            make(Path(scratch) / "digits.parquet")
            folder = Path(scratch)
        paths = sorted(map(str, folder.glob("*.parquet")))
        found = {name: _method(pool, paths, name, seeds) for name in METHODS}
        settings = _settings(pool, paths, max(4, seeds // 5)) if len(paths) == 4 else {}
        uneven = {name: _uneven(pool, paths, name, max(2, seeds // 5)) for name in (DEFAULT, "random, asha")}
        return {
            "tables": [Path(path).stem for path in paths],
            "budget": BUDGET,
            "seeds": seeds,
            "points": list(POINTS),
            "methods": {name: _summary(regrets) for name, regrets in found.items()},
            "default_against_asha_at_1000": _paired(found[DEFAULT], found["random, asha"]),
            "settings": settings,
            "on_4_workers_of_uneven_pace": {name: _summary(regrets) for name, regrets in uneven.items()},
            "speed": _speed(paths[0]),
            "seconds": round(time.perf_counter() - began),
        }


def curves() -> Path | None:
    """The folder with other people's tables, where there is one."""
    above = (each / "shared/curves" for each in Path(__file__).parents)
    return next((each for each in above if each.is_dir()), None)


@lru_cache(maxsize=8)
def table_of(path: str) -> Table:
    return tables.load(path)


def _at_points(table: Table, seen: Sequence[float]) -> Regrets:
    return [table.regret(seen[min(point, len(seen) - 1)]) for point in POINTS]


def _one(path: str, name: str, seed: int, cluster: Cluster) -> Regrets:
    table = table_of(path)
    search, scheduler = METHODS[name]
    sweep = sweep_of(table, Search(**search), Scheduler(**scheduler))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _at_points(table, once(table, sweep, seed, BUDGET, cluster).seen)


def _one_of_settings(path: str, name: str, seed: int) -> Regrets:
    table = table_of(path)
    sweep = sweep_of(table)
    smoothing, startup, chance = SETTINGS[name]
    searcher = Promising(table.configs, sweep.searched, seed, table.mode, startup, smoothing, chance, table.cells)
    return _at_points(table, once(table, sweep, seed, BUDGET, Cluster(), searcher).seen)


def _method(pool: ProcessPoolExecutor, paths: list[str], name: str, seeds: int) -> list[list[Regrets]]:
    """By table, by seed."""
    number = max(2, int(seeds * DEAR)) if "tpe" in name else seeds
    print(f"  {name}: {number} seeds on {len(paths)} tables", flush=True)
    jobs = list(product(paths, range(number)))
    found = list(
        pool.map(_one, *zip(*((path, name, seed, Cluster()) for path, seed in jobs), strict=True), chunksize=5)
    )
    return [found[at : at + number] for at in range(0, len(found), number)]


def _uneven(pool: ProcessPoolExecutor, paths: list[str], name: str, seeds: int) -> list[list[Regrets]]:
    cluster = Cluster(workers=4, noise=0.3)
    jobs = [(path, name, seed, cluster) for path, seed in product(paths, range(seeds))]
    found = list(pool.map(_one, *zip(*jobs, strict=True), chunksize=5))
    return [found[at : at + seeds] for at in range(0, len(found), seeds)]


def _summary(regrets: list[list[Regrets]]) -> dict[str, Any]:
    """Mean over tables with its standard error over seeds, and each table's mean, at POINTS."""
    over_tables = [[fmean(column) for column in zip(*of_seed, strict=True)] for of_seed in zip(*regrets, strict=True)]
    return {
        "regret": [round(fmean(column), 4) for column in zip(*over_tables, strict=True)],
        "error": [round(_error(column), 4) for column in zip(*over_tables, strict=True)],
        "by_table": [[round(fmean(column), 4) for column in zip(*of_table, strict=True)] for of_table in regrets],
        "seeds": len(over_tables),
    }


def _error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _paired(one: list[list[Regrets]], other: list[list[Regrets]]) -> dict[str, float]:
    """How much less the one's regret is than the other's, seed by seed, mean over tables."""
    gains = [
        fmean(theirs[-1] - ours[-1] for ours, theirs in zip(a, b, strict=True))
        for a, b in zip(zip(*one, strict=True), zip(*other, strict=True), strict=True)
    ]
    return {"less": round(fmean(gains), 4), "error": round(_error(gains), 4)}


def _settings(pool: ProcessPoolExecutor, paths: list[str], seeds: int) -> dict[str, Any]:
    """What was tried, what two tables would have chosen, and what that comes to on the other two."""
    found: dict[str, list[list[Regrets]]] = {}
    for name in SETTINGS:
        print(f"  {name}: {seeds} seeds", flush=True)
        jobs = [(path, name, seed) for path, seed in product(paths, range(seeds))]
        flat = list(pool.map(_one_of_settings, *zip(*jobs, strict=True), chunksize=5))
        found[name] = [flat[at : at + seeds] for at in range(0, len(flat), seeds)]
    means = {name: _summary(regrets) for name, regrets in found.items()}
    half, whole = POINTS.index(500), POINTS.index(1000)

    def on(name: str, which: Sequence[int], point: int) -> float:
        return round(fmean(means[name]["by_table"][table][point] for table in which), 4)

    def worth(name: str, which: Sequence[int]) -> float:
        return on(name, which, half) / 0.15 + on(name, which, whole) / 0.055

    chosen = []
    for here, there in (SPLIT, SPLIT[::-1]):
        best = min(SETTINGS, key=lambda name, here=here: worth(name, here))  # type: ignore[misc]
        told = {"at_500": on(best, there, half), "at_1000": on(best, there, whole)}
        shipped = {"at_500": on("as shipped", there, half), "at_1000": on("as shipped", there, whole)}
        chosen.append({"on": list(here), "best": best, "reported_on": list(there), **told, "as_shipped": shipped})
    return {"tried": means, "chosen": chosen}


def _speed(path: str) -> dict[str, Any]:
    """Seconds for a thousand trials, each once to its first rung at least, and of a decision."""
    table = table_of(path)
    found: dict[str, Any] = {}
    for name, trials in (("random", 1000), ("density", 1000), ("tpe", 1000)):
        sweep = sweep_of(table, Search(name=name)).model_copy(update={"trials": trials})
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            played = once(table, sweep, 0, 50 * len(table.configs), Cluster())
        seconds = time.perf_counter() - began
        found[name] = {
            "trials": played.trials,
            "seconds": round(seconds, 2),
            "ms_a_stretch": round(1000 * seconds / (len(played.seen) - 1), 3),
        }
    return found
