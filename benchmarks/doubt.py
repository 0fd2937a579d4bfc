"""Whether healthy workers are ever killed: simulated runs in bad weather, and real ones on a cluster of this machine.

    python benchmarks/doubt.py [--simulated 200] [--real 20] [--seed 0]

All that goes wrong passes within the patience for it: links that are down, one way, slow or lossy, a driver that stands
still, code that keeps the interpreter's lock, slow first steps and stores. Asked: nobody is given up. About a minute
for each real run; the seeds are printed, and kept in results/elasticity.json beside those of earlier seeds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from elastic_peers.ours import write
from elastic_peers.workload import GLOBAL_BATCH
from measure import keep, kept

from headway.errors import HeadwayError
from headway.sim.doubt import doubt
from headway.testing.drill import drill
from headway.testing.faults import BENIGN, random_faults, script
from headway.testing.links import lacking

STEPS = 200
NODES = 3
PARAMETERS = 200_000


def simulated(seeds: range) -> dict[str, Any]:
    """Runs on a virtual clock, with the real watch and membership."""
    done = [doubt(seed) for seed in seeds]
    return {
        "runs": len(done),
        "seeds": [seeds.start, seeds.stop],
        "faults": sum(len(d.faults) for d in done),
        "killed": sum(d.killed for d in done),
        "trained to the end": sum(d.resumed for d in done),
    }


def real(seeds: range) -> list[dict[str, Any]]:
    """Runs on a local cluster whose machines and links are harmed for a while."""
    runs = []
    for seed in seeds:
        faults = random_faults(seed, STEPS, NODES, without=lacking(), kinds=BENIGN)
        print(f"seed {seed}: {script(faults)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="doubt-") as folder:
            job = write(Path(folder), PARAMETERS, seed, STEPS, rows=STEPS * GLOBAL_BATCH)
            try:
                found = drill(job, faults=faults, nodes=NODES, quiet_run=False)
            except HeadwayError as error:
                failed = {"state": "failed", "message": str(error), "killed": 0, "same_samples": False}
                runs.append({"seed": seed, "script": script(faults), **failed})
                continue
        runs.append(
            {
                "seed": seed,
                "script": script(faults),
                "state": found.state,
                "same_samples": found.same_samples,
                "steps_repeated": found.steps_repeated,
                "killed": found.healthy_killed,
                "who": found.killed,
            }
        )
        print(f"    {found.state}, {found.healthy_killed} healthy workers killed", flush=True)
    return runs


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the runs of all seeds came to, each seed's newest."""
    bad = [run for run in runs if run["state"] != "finished" or run["killed"] or not run["same_samples"]]
    return {
        "runs": len(runs),
        "killed": sum(run.get("killed", 0) for run in runs),
        "finished with the same samples": sum(run["state"] == "finished" and run["same_samples"] for run in runs),
        "not well": [run["seed"] for run in bad],
        "cannot be done here": sorted(lacking()),
        "each": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulated", type=int, default=200)
    parser.add_argument("--real", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tree = kept("elasticity")
    found = tree.get("healthy runs killed", {})
    if options.simulated:
        found["simulated"] = simulated(range(options.seed, options.seed + options.simulated))
    if options.real:
        seeds = range(options.seed, options.seed + options.real)
        others = [run for run in found.get("real", {}).get("each", []) if run["seed"] not in seeds]
        found["real"] = summed(sorted([*others, *real(seeds)], key=lambda run: int(run["seed"])))
    found["when"] = time.strftime("%Y-%m-%d")
    keep("elasticity", {**tree, "healthy runs killed": found})


if __name__ == "__main__":
    main()
