"""Step time of Headway against bare torchrun DDP: same model, same data, same global batch, same machine.

    python benchmarks/step_time.py [--steps 60] [--repeats 3]
    python benchmarks/step_time.py --strategies    the exchange of gradients alone, without Ray and without data

2 workers, 2 and 20 million parameters, `reproducible` order and bitwise. Two shapes: lanes = workers (the same kernels
on both sides: what is left is Headway's own cost) and 8 lanes (smaller batches, more of them, against DDP's one batch
per worker). Sides alternate, so that a noisy machine is noisy for all. With --strategies they alternate step by step in
the same two processes. Data: data/fashion-mnist, from `headway data get fashion-mnist`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import keep, kept, summary

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "fashion-mnist"
WORKERS, GLOBAL_BATCH, WARM = 2, 256, 10
SIZES = {"2M": {"width": 1075, "hidden": 2}, "20M": {"width": 2975, "hidden": 3}}
OURS = list(itertools.product(("order", "bitwise"), (WORKERS, 8)))
sys.path.insert(0, str(HERE / "mlp"))


def peer(size: str, steps: int) -> float:
    """Seconds per step of torchrun DDP."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}"]
    done = subprocess.run(
        [*command, __file__, "--as-peer", size, "--steps", str(steps)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )
    return float(json.loads(done.stdout.strip().splitlines()[-1])["step_s"])


def be_peer(size: str, steps: int) -> None:
    """The loop that torchrun starts: plain DDP, a DataLoader over tensors in memory."""
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    import torch.distributed as dist
    from task import Mlp
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, TensorDataset
    from torch.utils.data.distributed import DistributedSampler

    from headway.testing.forks import for_good

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(7)
    task = Mlp(**SIZES[size])
    table = pq.read_table(sorted((DATA / "train").glob("*.parquet")))
    arrays = task.transform(table, np.random.default_rng(0), False)
    dataset = TensorDataset(torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["label"]))
    sampler = DistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=GLOBAL_BATCH // WORKERS, sampler=sampler)
    model = for_good(DistributedDataParallel(task.model()))
    optimizer = task.optimizer(model)
    times: list[float] = []
    while len(times) <= steps:
        for images, labels in loader:
            optimizer.zero_grad()
            task.loss(model, {"image": images, "label": labels}).backward()
            optimizer.step()
            times.append(time.perf_counter())
            if len(times) > steps:
                break
    dist.barrier()
    if dist.get_rank() == 0:
        print(json.dumps({"step_s": per_step(times)}))
    dist.destroy_process_group()


def ours(size: str, steps: int, reproducible: str, lanes: int) -> float:
    """Seconds per step of Headway."""
    import headway
    from headway.job import load
    from headway.runs import RunFolder

    settings = [f"steps={steps + 1}", f"lanes={lanes}", f"lane_batch={GLOBAL_BATCH // lanes}"]
    settings += [f"arguments.{key}={value}" for key, value in SIZES[size].items()]
    job = load(HERE / "mlp" / "job.yaml", [*settings, f"reproducible={reproducible}"])
    with tempfile.TemporaryDirectory() as runs:
        report = headway.train(job, runs_folder=runs)
        return per_step([step["time"] for step in RunFolder(Path(report.path)).steps()])


def strategies_alone(group: Any, folder: str, size: str, steps: int) -> dict[str, list[tuple[float, float]]]:
    """Of each step by side, seconds and seconds of processor time, in one of two processes; sides take turns."""
    import torch
    import torch.distributed as dist
    from task import Mlp
    from torch.nn.parallel import DistributedDataParallel

    from headway.strategies import create
    from headway.testing.forks import for_good

    dist.init_process_group("gloo", init_method=f"file://{folder}/ddp", rank=group.rank, world_size=group.size)
    torch.manual_seed(7)
    task, share = Mlp(**SIZES[size]), GLOBAL_BATCH // group.size
    batch = {"image": torch.randn(share, 1, 28, 28), "label": torch.randint(10, (share,))}

    def ddp() -> Callable[[], None]:
        model = for_good(DistributedDataParallel(task.model()))
        optimizer = task.optimizer(model)

        def step() -> None:
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()

        return step

    def lanes_of(reproducible: Any, lanes: int) -> Callable[[], None]:
        model = task.model()
        optimizer = task.optimizer(model)
        # The tail has about the size that the session's has.
        made = create(
            "all_reduce", model, reproducible=reproducible, lanes=lanes, tail=18 * lanes, changes=0, group=group
        )
        each = lanes // group.size
        mine = range(group.rank * each, (group.rank + 1) * each)
        parts = [{key: value.chunk(each)[i] for key, value in batch.items()} for i in range(each)]
        tail, change = torch.zeros(18 * lanes), torch.zeros(0)

        def step() -> None:
            made.begin(mine)
            for lane, part in zip(mine, parts, strict=True):
                loss = task.loss(model, part) / lanes
                made.before_backward(lane, last=lane == mine[-1])
                loss.backward()
                made.after_backward()
                made.lane_done(change)
            made.finish(tail)
            optimizer.step()

        return step

    sides = {"ddp": ddp(), **{f"{mode}_{lanes}_lanes": lanes_of(mode, lanes) for mode, lanes in OURS}}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(WARM // 3 + steps):
        for name, step in sides.items():
            group.barrier()
            begun, worked = time.perf_counter(), time.process_time()
            step()
            found[name].append((time.perf_counter() - begun, time.process_time() - worked))
    dist.destroy_process_group()
    return {name: seconds[WARM // 3 :] for name, seconds in found.items()}


def per_step(times: list[float]) -> float:
    """Median seconds between two steps, the first ones left out."""
    return statistics.median(b - a for a, b in zip(times[WARM:], times[WARM + 1 :], strict=False))


def measure_strategies(sizes: list[str], steps: int) -> None:
    from headway.testing.workers import run

    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found = run(strategies_alone, WORKERS, Path(folder), folder, size, steps, deadline_s=900.0)[0]
        theirs = found["ddp"]
        for name, seconds in found.items():
            wall, work = (statistics.median(a[i] / b[i] for a, b in zip(seconds, theirs, strict=True)) for i in (0, 1))
            took = statistics.median(a[0] for a in seconds) * 1e3
            print(f"{size}: {name:16} {took:7.1f} ms, {wall:.3f} of ddp; processor time {work:.3f}", flush=True)


def measure(sizes: list[str], steps: int, repeats: int) -> None:
    """Sizes that are not measured this time keep their figures."""
    known = kept("step_time")
    figures: dict[str, Any] = {size: known[size] for size in SIZES if size in known}
    for size in sizes:
        theirs: list[float] = []
        found: dict[str, list[float]] = {f"{mode}_{lanes}_lanes": [] for mode, lanes in OURS}
        for _ in range(repeats):
            theirs.append(peer(size, steps))
            for mode, lanes in OURS:
                found[f"{mode}_{lanes}_lanes"].append(ours(size, steps, mode, lanes))
        figures[size] = {"torchrun_ddp_s": summary(theirs), "when": time.strftime("%Y-%m-%d")}
        for name, seconds in found.items():
            ratios = [a / b for a, b in zip(seconds, theirs, strict=True)]
            figures[size][name] = {"step_s": summary(seconds), "ratio": summary(ratios)}
    what = f"MLP on Fashion-MNIST, {WORKERS} workers, batch {GLOBAL_BATCH}, median of {steps - WARM} steps"
    keep("step_time", {"what": what, **figures})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--strategies", action="store_true")
    parser.add_argument("--size", choices=SIZES, action="append", help="one or more; default all")
    parser.add_argument("--as-peer", choices=SIZES)
    options = parser.parse_args()
    if options.as_peer:
        be_peer(options.as_peer, options.steps)
    elif options.strategies:
        measure_strategies(options.size or list(SIZES), options.steps)
    else:
        measure(options.size or list(SIZES), options.steps, options.repeats)


if __name__ == "__main__":
    main()
