"""How long schedulers and searchers think, on made-up trials without machines. Some 3 minutes.

Seconds of processor time, so that what else the machine does counts little. A decision: any one answer of a scheduler.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import mean, quantiles
from typing import Any

from headway.core.rungs import steps_of
from headway.sweeps.schedule import Lengths, kinds
from headway.sweeps.schedule.plain import Plain
from headway.sweeps.schedule.promoting import Promoting
from headway.sweeps.schedule.protocol import Scheduler
from headway.sweeps.search import draws, models
from headway.sweeps.search.density import Density
from headway.sweeps.search.protocol import Searcher
from headway.sweeps.space import parse
from headway.testing.scheduler import LENGTH, SPACE, Player

EIGHT = parse(
    {
        "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
        "optimizer.momentum": {"uniform": [0, 0.99]},
        "optimizer.weight_decay": {"loguniform": [1e-6, 1e-2]},
        "optimizer.name": {"choice": ["sgd", "adamw"]},
        "arguments.width": {"choice": [16, 32, 64, 128]},
        "arguments.layers": {"randint": [1, 9]},
        "arguments.dropout": {"uniform": [0, 0.5]},
        "arguments.scale": {"randn": [0, 1]},
    }
)
KEYS = tuple(SPACE.distributions)
LENGTHS = Lengths(LENGTH)
SCHEDULERS: dict[str, tuple[int, Callable[[int], Scheduler]]] = {
    "none": (1000, lambda trials: Plain()),
    "asha": (1000, lambda trials: Promoting(steps_of(1, 4, LENGTH), 4, "min")),
    "asha, promote: false": (1000, lambda trials: kinds.stopping(1, 4, "min", LENGTHS, 0)),
    "hyperband": (1000, lambda trials: kinds.hyperband(1, 3, "min", LENGTHS, trials, 0)),
    "median": (200, lambda trials: kinds.median(4, 3, "min", LENGTHS, 0)),
    "pbt": (200, lambda trials: kinds.pbt(SPACE, 4, 0.25, 0.25, KEYS, "min", LENGTHS, trials, 0)),
    "pb2": (8, lambda trials: kinds.pb2(SPACE, 8, 0.25, KEYS, "min", LENGTHS, trials, 0)),
}
"""With how many trials."""
SEARCHERS: dict[str, tuple[int, Callable[[], Searcher]]] = {
    "random": (1000, lambda: draws.Random(EIGHT, 0)),
    "sobol": (1000, lambda: draws.Sobol(EIGHT, 0)),
    "density": (1000, lambda: Density(EIGHT, 0, "min")),
    "tpe": (1000, lambda: models.Modelled(EIGHT, models.tpe(0, 10, groups=False), False, "min", 0)),
    "cmaes": (1000, lambda: models.Modelled(EIGHT, models.cmaes(0, 10), True, "min", 0)),
    "gp": (100, lambda: models.Modelled(EIGHT, models.gp(0, 10), True, "min", 0)),
}
"""How many suggestions."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    schedulers = {name: _scheduler(trials, make) for name, (trials, make) in SCHEDULERS.items()}
    searchers = {name: _searcher(calls, make) for name, (calls, make) in SEARCHERS.items()}
    return {"schedulers": schedulers, "searchers": searchers}


def _scheduler(trials: int, make: Callable[[int], Scheduler]) -> dict[str, Any]:
    Player(make(8), 8, width=4).play()  # imports, and what else happens once
    timed = Player(make(trials), trials, width=16)
    began = time.process_time()
    timed.play()
    seconds = time.process_time() - began
    found = {
        "trials": trials,
        "decisions": len(timed.said),
        "ms_a_decision": round(1000 * seconds / len(timed.said), 3),
        "ms_slowest": round(1000 * timed.slowest_s, 2),
    }
    print(f"  {found}", flush=True)
    return found


def _searcher(calls: int, make: Callable[[], Searcher]) -> dict[str, Any]:
    """Each suggestion is told of at once, at the first rung; one of four goes on."""
    searcher, times = make(), []
    for trial in range(1, calls + 1):
        began = time.process_time()
        config = searcher.suggest(trial)
        assert config is not None
        loss = abs(config["optimizer.momentum"] - 0.9) + config["arguments.dropout"]
        searcher.told(trial, 1, loss, False)
        if trial % 4 == 0:
            searcher.told(trial, 4, loss / 2, False)
        times.append(time.process_time() - began)
    late = times[-calls // 10 :]
    found = {
        "suggestions": calls,
        "seconds": round(sum(times), 2),
        "ms_of_the_last_tenth": round(1000 * mean(late), 2),
        "ms_p95": round(1000 * quantiles(times, n=20)[-1], 2),
    }
    print(f"  {found}", flush=True)
    return found
