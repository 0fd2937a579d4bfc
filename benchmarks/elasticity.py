"""What a fault costs: Headway, stock elastic Ray Train, torchrun elastic and torchft, each at its best settings.

    python benchmarks/elasticity.py [--repeats 5] [--faults worker-killed,join] [--peers ours,torchft] [--parameters N]

All train the same model on the same numbered samples (elastic_peers/workload.py), and are measured by turns, so that a
noisy machine is noisy for all of them. `load` beside each repeat says how noisy it was. About an hour and a half; a
fault or a peer that is not measured this time keeps its figures in the results, with their date.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from importlib import import_module
from typing import Any

from elastic_peers.faults import FAULTS, OURS
from measure import keep, kept, summary

PEERS = {
    "ours": "Headway",
    "ray_train": "stock elastic Ray Train",
    "torchrun": "torchrun elastic",
    "torchft": "torchft",
}
COUNTS = ("steps_repeated", "samples_repeated", "samples_missed")


def measured(fault: str, peers: list[str], repeats: int, parameters: int, seed: int) -> dict[str, Any]:
    """One fault, all peers by turns: figures by peer."""
    found: dict[str, dict[str, Any]] = {}
    for repeat in range(repeats):
        for peer in peers:
            if peer in found and found[peer]["repeats"] is None:
                continue
            print(f"{fault}, {PEERS[peer]}", flush=True)
            measure = import_module(f"elastic_peers.{peer}").measure
            result = measure(fault, 1, parameters, seed + 1000 * repeat)
            if peer in found:
                found[peer]["repeats"] += result["repeats"]
            else:
                found[peer] = result
    return {peer: {**condensed(result), **result} for peer, result in found.items()}


def condensed(result: dict[str, Any]) -> dict[str, Any]:
    """Medians of what was measured. A repeat that never resumed counts as one that took for ever."""
    if result["repeats"] is None:
        return {"resume_s": None}
    seconds = [repeat.get("resume_s", math.inf) for repeat in result["repeats"]]
    resumed = [s for s in seconds if math.isfinite(s)]
    figures: dict[str, Any] = {"resume_s": summary(resumed) if math.isfinite(statistics.median(seconds)) else None}
    figures["did_not_resume"] = len(seconds) - len(resumed)
    full = [s for repeat in result["repeats"] if (s := repeat.get("full_strength_s")) is not None]
    figures["full_strength_s"] = summary(full) if full else None
    for count in COUNTS:
        values = [repeat[count] for repeat in result["repeats"] if count in repeat]
        figures[count] = summary(values) if values else None
    return figures


def ratios(figures: dict[str, Any]) -> dict[str, float | None]:
    """How many times as long as ours each peer takes, in medians."""
    medians = {peer: f["resume_s"] and f["resume_s"]["median"] for peer, f in figures.items()}
    ours = medians.pop("ours", None)
    return {peer: round(median / ours, 2) if ours and median else None for peer, median in medians.items()}


def table(found: dict[str, dict[str, Any]]) -> str:
    """For people: a line for each fault and peer."""
    lines = [
        f"{'fault':14} {'':24} {'resumed in':>12} {'x ours':>7} {'steps rep.':>11} {'samples rep.':>13} {'missed':>7}"
    ]
    for fault, figures in found.items():
        for peer in (p for p in PEERS if p in figures):
            f = figures[peer]
            if f["resume_s"] is None:
                why = f.get("reason") or f["repeats"][0].get("failed", "did not resume")
                lines.append(f"{fault:14} {PEERS[peer]:24} {why}")
                continue
            times = figures["ratios"].get(peer)
            counts = [f"{f[count]['median']:.0f}" for count in COUNTS]
            lines.append(
                f"{fault:14} {PEERS[peer]:24} {f['resume_s']['median']:10.2f} s {times or '':>7} "
                f"{counts[0]:>11} {counts[1]:>13} {counts[2]:>7}"
                + (f"   all there in {full['median']:.2f} s" if (full := f.get("full_strength_s")) else "")
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--faults", default=",".join(fault.replace(" ", "-") for fault in (*FAULTS, *OURS)))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--parameters", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="elasticity", help="of the file in results/")
    options = parser.parse_args()
    chosen = [fault.replace("-", " ") for fault in options.faults.split(",")]
    peers = options.peers.split(",")
    if not set(chosen) <= {*FAULTS, *OURS} or not set(peers) <= set(PEERS):
        parser.error(f"faults are {', '.join((*FAULTS, *OURS))} (with dashes); peers are {', '.join(PEERS)}")
    found: dict[str, dict[str, Any]] = kept(options.name).get("faults", {})
    for fault in chosen:
        figures = measured(
            fault, ["ours"] if fault in OURS else peers, options.repeats, options.parameters, options.seed
        )
        for figure in figures.values():
            figure["when"] = time.strftime("%Y-%m-%d")
        found[fault] = {**found.get(fault, {}), **figures, "ratios": ratios(figures)}
        what = f"{options.parameters:,} parameters, 2 workers, global batch 64, {options.repeats} repeats"
        others = {k: v for k, v in kept(options.name).items() if k == "healthy runs killed"}
        keep(
            options.name, {"what": what, "parameters": options.parameters, "faults": found, **others}
        )  # as far as it got
    print(table(found))


if __name__ == "__main__":
    main()
