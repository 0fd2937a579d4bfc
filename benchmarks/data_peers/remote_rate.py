"""Epochs from an S3 service that answers late, and the same from the local disk: see `data_peers.object_store`.

python -m data_peers.remote_rate serve FOLDER LATENCY_S
python -m data_peers.remote_rate read PLACE ENDPOINT CACHE CACHE_BYTES EPOCHS
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from data_peers import environments
from data_peers.ours import Reader

TIMES = 4  # over is the dataset stored, so that the start of an epoch weighs little
LARGE = 4 << 30


def serve(folder: Path, latency_s: float) -> dict[str, float]:
    """Rates from the store by a process of its own, and what they should be: those from the disk."""
    from headway.testing.s3 import KEYS, S3, Faults

    os.environ.update(KEYS)
    place = Path(json.loads(environments.run((), "data_peers.probe", "copies", str(folder), str(TIMES))))
    size = sum(path.stat().st_size for path in place.iterdir())
    with S3(Faults(latency_s=latency_s)) as s3, tempfile.TemporaryDirectory() as caches:
        url = s3.put("bucket", "train", place)
        local = _read(place, s3.endpoint, f"{caches}/none", LARGE, 3)
        remote = _read(url, s3.endpoint, f"{caches}/large", LARGE, 1)
        remote += _read(url, s3.endpoint, f"{caches}/large", LARGE, 3)
        small = _read(url, s3.endpoint, f"{caches}/small", size // 4, 2)
    if {epoch["labels"] for epoch in (*local, *remote, *small)} != {local[0]["labels"]}:
        raise ValueError(f"other labels from the store than from the disk: {local}, {remote}, {small}")
    return {
        "local_rows_per_s": local[-1]["rows_per_s"],
        "first_epoch_rows_per_s": remote[0]["rows_per_s"],
        "second_epoch_rows_per_s": remote[1]["rows_per_s"],
        "third_epoch_rows_per_s": remote[2]["rows_per_s"],
        "second_epoch_hit_rate": remote[1]["hit_rate"],
        "small_cache_rows_per_s": small[1]["rows_per_s"],
        "small_cache_hit_rate": small[1]["hit_rate"],
    }


def _read(place: Path | str, endpoint: str, cache: str, cache_bytes: int, epochs: int) -> list[dict[str, float]]:
    arguments = ["read", str(place), endpoint, cache, str(cache_bytes), str(epochs)]
    os.sync()  # what was written before is not written to the disk while this is measured
    found: list[dict[str, float]] = json.loads(environments.run((), "data_peers.remote_rate", *arguments))
    return found


def read(place: str, endpoint: str, cache: str, cache_bytes: int, epochs: int) -> list[dict[str, float]]:
    """Each epoch from its first batch on: rows per second, what the labels add up to, share of row groups cached."""
    settings: dict[str, Any] = {"store": {"endpoint": endpoint}, "cache": {"folder": cache, "bytes": cache_bytes}}
    reader = Reader(place, **settings)
    found = []
    for epoch in range(epochs):
        before, labels, late_rows, first = _counts(reader), 0, 0, 0.0
        for batch in reader.epoch(epoch):
            late_rows += len(batch["label"]) if first else 0
            first = first or time.perf_counter()
            labels += int(batch["label"].sum())
        rate = late_rows / (time.perf_counter() - first)
        hits, fetched = (now - then for now, then in zip(_counts(reader), before, strict=True))
        found.append({"rows_per_s": rate, "labels": labels, "hit_rate": hits / (hits + fetched) if hits else 0.0})
    reader.close()
    return found


def _counts(reader: Reader) -> tuple[int, int]:
    """Row groups that were in the cache, and that were brought; none of either for a folder of this machine."""
    counts = getattr(reader.files, "counts", None)
    return (counts.hits, counts.fetched) if counts else (0, 0)


def main(action: str, place: str, *rest: str) -> None:
    torch.set_num_threads(1)
    if action == "serve":
        print(json.dumps(serve(Path(place), float(rest[0]))))
    else:
        endpoint, cache, size, epochs = rest
        print(json.dumps(read(place, endpoint, cache, int(size), int(epochs))))


if __name__ == "__main__":
    main(*sys.argv[1:])
