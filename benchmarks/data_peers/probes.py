"""What is measured of ours alone: resume, a cold start, the end of an epoch, memory, prepare, object stores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import summary

from data_peers import environments
from data_peers.object_store import object_store
from data_peers.probe import STEP_S

KIND = "images28"
LANES = (1, 8)
TIMES = 10


def resume(folder: Path, repeats: int) -> dict[str, Any]:
    return {f"{lanes}_lanes": _repeated("resume", folder, repeats, str(lanes)) for lanes in LANES}


def first_batch(folder: Path, repeats: int) -> dict[str, Any]:
    return {f"{lanes}_lanes": _repeated("first_batch", folder, repeats, str(lanes)) for lanes in LANES}


def epoch_boundary(folder: Path, repeats: int) -> dict[str, Any]:
    """With a consumer that trains 2 ms on each batch, and with one that does nothing."""
    consumers = {"training": STEP_S, "idle": 0.0}
    return {name: _repeated("epoch_boundary", folder, repeats, str(step_s)) for name, step_s in consumers.items()}


def memory(folder: Path, repeats: int) -> dict[str, Any]:
    """Peak memory over ten epochs of the dataset, and over one of ten times as many rows."""
    once, large = _dataset(folder), _copies(folder)
    figures: dict[str, Any] = {}
    for repeat in range(repeats):
        for name, place, epochs in (("1x", once, TIMES), (f"{TIMES}x", large, 1)):
            figures.setdefault(name, []).append(_probe("memory", place, str(epochs)))
            print(f"memory {repeat + 1}/{repeats} {name}: {figures[name][-1]}", flush=True)
    shutil.rmtree(large)
    found: dict[str, Any] = {"repeats": figures}
    for measure in ("own_mib", "resident_mib"):
        few, many = (summary([f[measure] for f in figures[name]]) for name in ("1x", f"{TIMES}x"))
        found |= {f"1x_{measure}": few, f"{TIMES}x_{measure}": many}
        found[f"{measure}_ratio"] = round(many["median"] / few["median"], 3)
    return found


def prepare(folder: Path, repeats: int) -> dict[str, Any]:
    """Parquet files made into a dataset, against pyarrow rewriting the same files; rows per second."""
    large = _copies(folder)
    figures: dict[str, list[float]] = {"warm": [], "cold": [], "pyarrow": []}
    for repeat in range(repeats):
        found = {**_probe("prepare", large), "pyarrow": _probe("rewrite", large)}
        for name, figure in found.items():
            figures[name].append(figure)
        print(f"prepare {repeat + 1}/{repeats}: {found}", flush=True)
    shutil.rmtree(large)
    medians = {f"{name}_rows_per_s": summary(all_of) for name, all_of in figures.items()}
    theirs = medians["pyarrow_rows_per_s"]["median"]
    shares = {f"{name}_ratio": round(medians[f"{name}_rows_per_s"]["median"] / theirs, 3) for name in ("warm", "cold")}
    return {**medians, **shares}


def _dataset(folder: Path) -> Path:
    return folder / KIND / "parquet"


def _copies(folder: Path) -> Path:
    return Path(_probe("copies", _dataset(folder), str(TIMES)))


def _repeated(what: str, folder: Path, repeats: int, argument: str) -> dict[str, Any]:
    found = [_probe(what, _dataset(folder), argument) for _ in range(repeats)]
    print(f"{what} {argument}: {found}", flush=True)
    return {unit: summary([f[unit] for f in found]) for unit in found[0]}


def _probe(what: str, place: Path, *arguments: str) -> Any:
    return json.loads(environments.run((), "data_peers.probe", what, str(place), *arguments))


PARTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "resume": resume,
    "first_batch": first_batch,
    "epoch_boundary": epoch_boundary,
    "memory": memory,
    "prepare": prepare,
    "object_store": object_store,
}
