"""One measurement of ours apart from the rates, in its own process: `python -m data_peers.probe WHAT FOLDER ...`."""

from __future__ import annotations

import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import torch

from data_peers.ours import Reader

STEP_S = 0.002  # of a training step that leaves the cores alone, as on an accelerator
MEMORY_PREFETCH = 64 << 20  # bytes read ahead where memory is measured: less than the smaller dataset
AROUND = 40  # batches before and after the end of an epoch


def resume(folder: Path, lanes: int) -> dict[str, float]:
    """Time from nothing but a running process to the batches of a step in the middle of an epoch."""
    before = Reader(folder, lanes)
    _step(before, 0)  # a run that resumes has loaded all code
    step = before.order.steps_per_epoch // 2
    before.close()
    begun = time.perf_counter(), time.process_time()
    _step(Reader(folder, lanes, step), step)
    return _since(*begun)


def first_batch(folder: Path, lanes: int) -> dict[str, float]:
    """Time to the batches of the first step, in a process that has imported Headway and read nothing yet."""
    import headway.data.read.streams  # noqa: F401  # as the session has

    begun = time.perf_counter(), time.process_time()
    _step(Reader(folder, lanes), 0)
    return _since(*begun)


def _since(wall_s: float, cpu_s: float) -> dict[str, float]:
    """Milliseconds since; those of CPU time are less disturbed by others on the machine."""
    return {"ms": (time.perf_counter() - wall_s) * 1e3, "cpu_ms": (time.process_time() - cpu_s) * 1e3}


def _step(reader: Reader, step: int) -> None:
    for lane in range(reader.order.lanes):
        reader.batch(0, step, lane)


def epoch_boundary(folder: Path, step_s: float) -> float:
    """Milliseconds by which the longest wait around the end of an epoch exceeds the median wait.

    Args:
        folder: of the dataset.
        step_s: seconds that the consumer is busy with each batch.
    """
    reader = Reader(folder)
    waits: list[float] = []
    steps = reader.order.steps_per_epoch
    asked = [(0, step) for step in range(steps)] + [(1, step) for step in range(AROUND)]
    for epoch, step in asked:
        begun = time.perf_counter()
        reader.batch(epoch, step)
        waits.append(time.perf_counter() - begun)
        if step_s:
            time.sleep(step_s)
    return (max(waits[steps - 1 : steps + 2]) - statistics.median(waits)) * 1e3


def memory(folder: Path, epochs: int) -> dict[str, float]:
    """Peak MiB over so many epochs: of memory of its own (not of mapped files), of all that is resident, and before."""
    before = _status("RssAnon")
    reader, own = Reader(folder, prefetch=MEMORY_PREFETCH), 0.0
    for epoch in range(epochs):
        for number, _ in enumerate(reader.epoch(epoch)):
            if number % 8 == 0:
                own = max(own, _status("RssAnon"))
    return {"own_mib": own, "resident_mib": _status("VmHWM"), "before_mib": before, "rows": reader.rows}


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def prepare(folder: Path) -> dict[str, float]:
    """Rows per second of `headway data prepare` from Parquet files, all cores; Ray's own start is left out.

    `cold` is the first one in a Ray, whose workers import Headway and whose Ray Data begins; `warm` is the next.
    """
    import ray

    from headway.data.prepare import prepare as run

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    found = {}
    for name in ("cold", "warm"):
        with tempfile.TemporaryDirectory(dir=folder.parent) as target:
            begun = time.perf_counter()
            manifest = run(folder, Path(target) / "prepared", force=True)
            found[name] = manifest.rows / (time.perf_counter() - begun)
    return found


def rewrite(folder: Path) -> float:
    """Rows per second of pyarrow reading the same files and writing them anew, a process per core."""
    files = sorted(folder.glob("*.parquet"))
    with tempfile.TemporaryDirectory(dir=folder.parent) as target, get_context("spawn").Pool() as pool:
        pool.starmap(_rewrite, [(files[0], Path(target) / "warm")] * len(os.sched_getaffinity(0)), chunksize=1)
        begun = time.perf_counter()
        rows = sum(pool.starmap(_rewrite, [(file, Path(target) / file.name) for file in files], chunksize=1))
        return rows / (time.perf_counter() - begun)


def _rewrite(file: Path, target: Path) -> int:
    import pyarrow.parquet as pq

    table = pq.read_table(file, use_threads=False)
    with pq.ParquetFile(file) as opened:
        group_rows = opened.metadata.row_group(0).num_rows
    pq.write_table(table, f"{target}.{os.getpid()}", compression="zstd", row_group_size=group_rows)
    return int(table.num_rows)


def copies(folder: Path, times: int) -> Path:
    """The dataset so many times over, as a dataset beside it."""
    from headway.data.manifest import load
    from headway.data.write.sizing import Sizes
    from headway.data.write.writer import write_dataset

    target = folder.with_name(f"{folder.name}-{times}x")
    shutil.rmtree(target, ignore_errors=True)
    manifest = load(folder)
    sizes = Sizes(manifest.groups[0], manifest.shards[0].rows)
    write_dataset(target, _tables(folder, times), name=target.name, source=str(folder), sizes=sizes)
    return target


def _tables(folder: Path, times: int) -> Iterator[object]:
    import pyarrow.parquet as pq

    import headway.data  # noqa: F401  # the tensor type

    for _ in range(times):
        for path in sorted(folder.glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                for group in range(file.metadata.num_row_groups):
                    yield file.read_row_group(group)


def main(what: str, folder: str, *rest: str) -> None:
    torch.set_num_threads(1)
    place = Path(folder)
    if what in ("resume", "first_batch"):
        print(json.dumps({"resume": resume, "first_batch": first_batch}[what](place, int(rest[0]))))
    elif what == "epoch_boundary":
        print(json.dumps({"ms": epoch_boundary(place, float(rest[0]))}))
    elif what == "copies":
        print(json.dumps(str(copies(place, int(rest[0])))))
    elif what == "memory":
        print(json.dumps(memory(place, int(rest[0]))))
    else:
        print(json.dumps({"prepare": prepare, "rewrite": rewrite}[what](place)))


if __name__ == "__main__":
    main(*sys.argv[1:])
