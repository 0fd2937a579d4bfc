"""Step time of Headway against a bare torchrun DDP loop: same model, same data, same global batch, same machine.

    python benchmarks/step_time.py [--steps 150] [--repeats 3]

The two alternate, so that a noisy machine is noisy for both. Two shapes: lanes = workers (the same kernels on both
sides: what is left is Headway's own cost) and 8 lanes (what the recipe uses: smaller batches, more of them, against
DDP's one batch per worker). Data: data/fashion-mnist, from `headway data get fashion-mnist`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import keep, summary

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "fashion-mnist"
WORKERS, GLOBAL_BATCH, WARM = 2, 256, 30


def peer(steps: int) -> float:
    """Seconds per step of torchrun DDP."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}"]
    done = subprocess.run(
        [*command, __file__, "--as-peer", "--steps", str(steps)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )
    return float(json.loads(done.stdout.strip().splitlines()[-1])["step_s"])


def be_peer(steps: int) -> None:
    """The loop that torchrun starts: plain DDP, a DataLoader over tensors in memory."""
    import os

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, TensorDataset
    from torch.utils.data.distributed import DistributedSampler

    sys.path.insert(0, str(HERE.parent / "trainers" / "image_classification"))
    from task import ImageClassification

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(7)
    task = ImageClassification()
    table = pq.read_table(sorted((DATA / "train").glob("*.parquet")))
    arrays = task.transform(table, np.random.default_rng(0), False)
    dataset = TensorDataset(torch.from_numpy(arrays["image"]), torch.from_numpy(arrays["label"]))
    sampler = DistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=GLOBAL_BATCH // WORKERS, sampler=sampler)
    model = DistributedDataParallel(task.model())
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


def ours(steps: int, lanes: int) -> float:
    """Seconds per step of Headway."""
    import headway
    from headway.job import load
    from headway.runs import RunFolder

    settings = [f"steps={steps + 1}", "epochs=null", f"lanes={lanes}", f"lane_batch={GLOBAL_BATCH // lanes}"]
    settings += [f"workers.max={WORKERS}", "checkpoint.every_steps=null", "tracking.enabled=false"]
    settings += ["evaluate_every_steps=1000000", "data.validation=null"]
    job = load(HERE.parent / "trainers" / "image_classification" / "job.yaml", settings)
    with tempfile.TemporaryDirectory() as runs:
        report = headway.train(job, runs_folder=runs)
        return per_step([step["time"] for step in RunFolder(Path(report.path)).steps()])


def per_step(times: list[float]) -> float:
    """Median seconds between two steps, the first ones left out."""
    return statistics.median(b - a for a, b in zip(times[WARM:], times[WARM + 1 :], strict=False))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--as-peer", action="store_true")
    options = parser.parse_args()
    if options.as_peer:
        be_peer(options.steps)
        return
    found: dict[str, list[float]] = {"torchrun_ddp_s": [], "headway_2_lanes_s": [], "headway_8_lanes_s": []}
    for _ in range(options.repeats):
        found["torchrun_ddp_s"].append(peer(options.steps))
        found["headway_2_lanes_s"].append(ours(options.steps, WORKERS))
        found["headway_8_lanes_s"].append(ours(options.steps, 8))
    pairs = {k: [a / b for a, b in zip(v, found["torchrun_ddp_s"], strict=True)] for k, v in found.items()}
    keep(
        "step_time",
        {
            "what": f"Fashion-MNIST CNN, {WORKERS} workers, batch {GLOBAL_BATCH}, median of {options.steps} steps",
            **{k: summary(v) for k, v in found.items()},
            "ratio_2_lanes": summary(pairs["headway_2_lanes_s"]),
            "ratio_8_lanes": summary(pairs["headway_8_lanes_s"]),
        },
    )


if __name__ == "__main__":
    main()
