"""A sweep of the image recipe, by us and by the peers, each in a process of its own: wall time, processes, memory.

`short.py` and `long.py` call it. All train the same sixteen configurations under ASHA with the same rungs, on as many
workers. Peers take turns, so that a noisy machine is noisy for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import summary
from sweep_peers import watched, workload

HERE = Path(__file__).parents[1]
BEST = 0.01
"""Accuracies of so few rows that differ by less are alike."""


def measure(name: str, options: argparse.Namespace, repeats: int) -> dict[str, Any]:
    """All peers by turns, and what ours comes to beside them."""
    size, earlier = workload.SIZES[name], options.earlier.get("peers", {})
    chosen = options.peers.split(",") if options.peers else list(PEERS)
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.repeats or repeats):
        for peer in chosen:
            load = round(os.getloadavg()[0], 1)
            with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
                figures = {**PEERS[peer](Path(folder), size), "load": load}
            print(f"  {peer}: {figures}", flush=True)
            found.setdefault(peer, []).append(figures)
    peers = {**earlier, **{peer: condensed(repeats) for peer, repeats in found.items()}}
    return {"size": asdict(size), "workers": workload.WORKERS, "peers": peers, "ratios": ratios(peers)}


def condensed(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and every repeat."""
    medians = {
        key: summary([r[key] for r in repeats])["median"] for key in ("wall_s", "processes", "memory_mb", "best")
    }
    return {**medians, "repeats": repeats}


def ratios(peers: dict[str, Any]) -> dict[str, Any]:
    """Ours over each peer's."""
    ours = peers.get("ours")
    if ours is None:
        return {}
    keys = ("wall_s", "memory_mb")
    others = {peer: figures for peer, figures in peers.items() if peer != "ours"}
    return {peer: {key: round(ours[key] / figures[key], 3) for key in keys} for peer, figures in others.items()}


def ours(folder: Path, size: workload.Size) -> dict[str, Any]:
    """`headway sweep`."""
    file = workload.write(folder, size)
    command = [sys.executable, "-m", "headway.cli.app", "sweep", str(file), "--name", "images", "--json"]
    seen = watched.run([*command, "--runs", str(folder / "runs")], folder, environment())
    report = json.loads(seen.output[seen.output.index("\n{") + 1 if "\n{" in seen.output else seen.output.index("{") :])
    return {**seen.figures(), **_of(report)}


def _of(report: dict[str, Any]) -> dict[str, Any]:
    trials = report["trials"]
    found = {key: report[key] for key in ("goodput", "worker_s", "idle_s", "ledger_s", "seconds")}
    return {
        "best": report["best"]["best"],
        "best_at_the_end": max(trial["value"] or 0.0 for trial in trials),
        "steps": sum(trial["step"] for trial in trials),
        "failed": sum(trial["state"] == "failed" for trial in trials),
        **found,
    }


def peer(module: str) -> Callable[[Path, workload.Size], dict[str, Any]]:
    def measured(folder: Path, size: workload.Size) -> dict[str, Any]:
        command = [sys.executable, "-m", f"sweep_peers.{module}", workload.saved(size)]
        seen = watched.run(command, folder, environment())
        lines = [line for line in seen.output.splitlines() if line.startswith("{")]
        return {**seen.figures(), **json.loads(lines[-1])}

    return measured


def environment() -> dict[str, str]:
    """For a peer and for ours."""
    path = os.pathsep.join([str(HERE), str(HERE.parent / "platform")])
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": _short()}


def _short() -> str:
    """A folder with a short name, for Ray's sockets."""
    folder = Path(tempfile.gettempdir()) / "sweeps"
    folder.mkdir(exist_ok=True)
    return str(folder)


PEERS: dict[str, Callable[[Path, workload.Size], dict[str, Any]]] = {
    "ours": ours,
    "tuner": peer("tuner"),
    "optuna": peer("processes"),
}
