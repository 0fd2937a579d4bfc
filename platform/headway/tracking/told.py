"""What a run's tags say: whose it is and what of, when it starts; what came of it, when it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def at_start(by: str, place: str, host: str, digest: str, datasets: Mapping[str, str]) -> dict[str, str]:
    """Of a run that starts. MLflow's page shows `mlflow.user` in a column of its own.

    Args:
        by: who started it.
        place: its folder or URL.
        host: of what leads it.
        digest: of what decides its result: the job, the code and the data.
        datasets: digests of their manifests, by what they are used for.
    """
    found = {"mlflow.user": by.partition("@")[0], "headway.by": by, "headway.place": place, "headway.host": host}
    found["headway.digest"] = digest
    return found | {f"headway.data.{use}": manifest for use, manifest in datasets.items()}


def at_end(facts: Mapping[str, Any]) -> dict[str, str]:
    """Of one that ends, from the facts of its run.json: the best of its metric, where the workers' time went, and how
    often it went on after a loss."""
    found = {}
    best = facts.get("best") or {}
    if best.get("history"):
        step, value = best["history"][-1]
        found[f"best_validation/{best['metric']}"] = f"{value:.6g} at step {step}"
    if facts.get("ledger_s"):
        found["headway.worker_seconds"] = json.dumps(facts["ledger_s"])
    found |= {
        f"headway.{name}": str(facts[name])
        for name in ("goodput", "recoveries", "exchanged_bytes")
        if facts.get(name) is not None
    }
    return found
