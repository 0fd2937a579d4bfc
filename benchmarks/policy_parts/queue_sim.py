"""1,000 jobs on one cluster, simulated: the queue against FIFO, priority with eviction, and fair share with restarts.

The decision is the very function of production (`headway.core.queue.decide`). Jobs, lengths and arrivals are drawn as
published traces describe them (`headway.sim.queue`), one speed-up curve for all; mean of the seeds, which are none of
those on which the rules were chosen (0 to 2). The main table is that of `--load` and `--most`; the others say what
becomes of it with other loads, and where jobs may have more or fewer workers beyond what they ask for. "generous" is
ours where GPU-hours are no matter, "blind" where nobody ever knows how much is left of a job. Takes five minutes on one
core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from measure import keep

from headway.core.queued import Rules
from headway.sim.queue import POLICIES, Ours, Outcome, Policy, Setting, draw, play

ALL: dict[str, Callable[[Setting], Policy]] = {
    **POLICIES,
    "generous": lambda setting: Ours(setting, Rules(dearer=math.inf)),
    "blind": lambda setting: Ours(replace(setting, known_after_s=math.inf)),
}


def table(setting: Setting, seeds: range) -> dict[str, Any]:
    """By policy: hours to completion, GPU-hours against FIFO's, and what it took."""
    found: dict[str, list[Outcome]] = {name: [] for name in ALL}
    for seed in seeds:
        jobs = draw(setting, seed)
        for name, policy in ALL.items():
            found[name].append(play(setting, jobs, policy(setting)))
    rows: dict[str, Any] = {}
    whole = sum(outcome.gpu_h for outcome in found["fifo"])
    for name, outcomes in found.items():
        by_priority = {
            str(rank): round(sum(mean(outcome.by_priority_h[rank]) for outcome in outcomes) / len(seeds), 2)
            for rank in sorted(outcomes[0].by_priority_h)
        }
        hours = sorted(hour for outcome in outcomes for hour in outcome.completion_h)
        rows[name] = {
            "mean_h": round(sum(outcome.mean_h for outcome in outcomes) / len(seeds), 2),
            "by_seed_h": [round(outcome.mean_h, 2) for outcome in outcomes],
            "median_h": round(hours[len(hours) // 2], 2),
            "p99_h": round(hours[int(0.99 * len(hours))], 1),
            "first_step_h": round(sum(mean(outcome.first_step_h) for outcome in outcomes) / len(seeds), 2),
            "mean_h_by_priority": by_priority,
            "gpu_hours_of_fifo": round(sum(outcome.gpu_h for outcome in outcomes) / whole, 3),
            "resized": sum(outcome.changes for outcome in outcomes) // len(seeds),
            "paused": sum(outcome.pauses for outcome in outcomes) // len(seeds),
        }
    return rows


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=10)
    parser.add_argument("--load", type=float, default=Setting.load)
    parser.add_argument("--most", type=int, default=Setting.most, help="as a multiple of what is asked for")
    parser.add_argument("--loads", default="1,2,3,4", help="of the further tables")
    parser.add_argument("--mosts", default="1,2,4", help="of the further tables")


def measure(told: argparse.Namespace) -> None:
    setting = Setting(jobs=told.jobs, load=told.load, most=told.most)
    curve = {str(workers): round(setting.curve.at(workers), 2) for workers in (1, 2, 4, 8, 16, 32, 64, 128)}
    print(f"speed by workers: {curve}")
    tables: dict[str, Any] = {}
    seeds = range(told.first_seed, told.first_seed + told.seeds)
    wanted = [(setting.load, setting.most)]
    wanted += [(float(load), setting.most) for load in told.loads.split(",")]
    wanted += [(setting.load, int(most)) for most in told.mosts.split(",")]
    for load, most in dict.fromkeys(wanted):
        label = f"load {load:g}, most {most} x asked"
        tables[label] = table(replace(setting, load=load, most=most), seeds)
        for name, row in tables[label].items():
            print(f"{label:26} {name:9} {row}", flush=True)
    keep(
        "policy_queue_sim",
        {"curve": curve, "seeds": list(seeds), "jobs": told.jobs, "gpus": setting.gpus, "tables": tables},
    )
