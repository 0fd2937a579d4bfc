"""Headway from an S3 service on loopback, 50 ms per request, against the same dataset on the local disk."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measure import summary

from data_peers import environments

KIND = "images28"
LATENCY_S = 0.05
NEEDED = ("headway.data.store.cache", "headway.testing.s3", "moto")


def object_store(folder: Path, repeats: int) -> dict[str, Any]:
    """Rows per second, by turns.

    `first_epoch`: nothing is cached. `second_epoch`, `third_epoch`: a later process's first two, which find all of it
    in the cache. `local`: a process's third epoch from the disk. `small_cache`: a quarter of the dataset fits.
    """
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        return {"reason": f"not measured: {', '.join(missing)} is not there"}
    found: list[dict[str, float]] = []
    for repeat in range(repeats):
        said = environments.run((), "data_peers.remote_rate", "serve", str(folder / KIND / "parquet"), str(LATENCY_S))
        found.append(json.loads(said))
        print(f"object store {repeat + 1}/{repeats}: {found[-1]}", flush=True)
    return {name: summary([f[name] for f in found]) for name in found[0]}
