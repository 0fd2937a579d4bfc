"""What lanes cost: a session's step, lanes together and apart, against DDP, turn by turn in the same processes.

    python benchmarks/lanes.py [--model 2M --model 20M --model gpt] [--rounds 60]

2 workers over gloo, batches in memory, no Ray. Sides take turns at every few steps, in an order that is drawn anew for
each round, so that a noisy machine is noisy for all; the first step of a turn does not count, for it finds caches full
of another side's model. Of each side the median over rounds of its time by DDP's of the same
round, and a bootstrap interval of 95 % of it. `accumulated` is DDP that accumulates over the same micro-batches
(`no_sync`): what lanes apart are to be compared with.

Memory is that by which a process grows at its peak while it builds one side and does some steps, in processes of its
own for each side.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from measure import keep, kept

HERE = Path(__file__).parent
WORKERS, LANES, WARM, TURN, DRAWS, PEAK_STEPS = 2, 8, 20, 4, 2000, 12
MODELS: dict[str, tuple[str, dict[str, int], int]] = {
    "2M": ("mlp", {"width": 1075, "hidden": 2}, 256),
    "20M": ("mlp", {"width": 2975, "hidden": 3}, 256),
    "gpt": ("language_model", {"context": 64, "width": 128, "layers": 3}, 32),
}
"""By name: the task, its arguments, and rows of a step."""
SIDES: dict[str, tuple[int, dict[str, str]]] = {
    "lanes_are_workers": (WORKERS, {}),
    "8_together": (LANES, {}),
    "8_apart": (LANES, {"lanes_together": "never"}),
    "8_bitwise": (LANES, {"reproducible": "bitwise"}),
}


def task_of(name: str) -> Any:
    sys.path.insert(0, str(HERE / "mlp" if MODELS[name][0] == "mlp" else HERE.parent / "trainers" / MODELS[name][0]))
    import task

    kind = task.Mlp if MODELS[name][0] == "mlp" else task.LanguageModel
    return kind(**MODELS[name][1])


def batch_of(name: str, rows: int, seed: int) -> dict[str, Any]:
    """Arrays of so many rows."""
    import numpy as np

    chance = np.random.default_rng(seed)
    if MODELS[name][0] == "mlp":
        image = chance.normal(size=(rows, 1, 28, 28)).astype(np.float32)
        return {"image": image, "label": chance.integers(0, 10, rows)}
    words = chance.integers(0, 256, (rows, MODELS[name][1]["context"] + 1))
    return {"input": words[:, :-1].copy(), "target": words[:, 1:].copy()}


class Memory:
    """A reader of batches that lie in memory: a lane's is the same at every step."""

    def __init__(self, name: str, lanes: int, rows: int, steps: int) -> None:
        import numpy as np

        from headway.core.order import Order
        from headway.data.read.reader import Batch

        self.order = Order((rows * steps,), 7, lanes, rows // lanes, window=1, shuffle=False)
        each = rows // lanes
        self._batches = [
            Batch(batch_of(name, each, lane), np.arange(lane * each, (lane + 1) * each)) for lane in range(lanes)
        ]

    def use(self, *_: Any) -> None:
        pass

    def carry(self, *_: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def batch(self, epoch: int, step: int, lane: int) -> Any:
        return self._batches[lane]


def ours(name: str, group: Any, folder: Path, lanes: int, fields: dict[str, str], steps: int) -> Callable[[], None]:
    """A session's step, the exchange and the update in it."""
    import torch

    from headway.checkpoint.store import Store
    from headway.elastic.worker import context as contexts
    from headway.elastic.worker.context import Context
    from headway.elastic.worker.loop import run_step, session_of
    from headway.elastic.worker.members import Alone
    from headway.elastic.worker.saver import Saver
    from headway.job import parse
    from headway.testing.company import Notes

    rows = MODELS[name][2]
    tree = {"name": "n", "task": "t.py:T", "data": {"train": "none"}, "lanes": lanes, "lane_batch": rows // lanes}
    tree |= {"steps": steps, "workers": {"min": WORKERS, "max": WORKERS}, "checkpoint": {"every_steps": None}}
    job, notes = parse({**tree, **fields, "replica_check_every": None}), Notes()
    share = tuple(range(lanes))[group.rank * lanes // group.size : (group.rank + 1) * lanes // group.size]
    reader: Any = Memory(name, lanes, rows, steps)
    saver = Saver(Store(folder, "a" * 64, job.checkpoint), job.checkpoint, notes)  # type: ignore[arg-type]
    members = Alone(lanes, group, share)
    torch.manual_seed(7)
    task = task_of(name)
    journal: Any = notes
    context = Context(job, "cpu", reader, None, saver, journal, "r", members)
    contexts.enter(context)
    session = session_of(task).__enter__()
    walk = session.steps()

    def step() -> None:
        run_step(task, session, next(walk))

    return step


def ddp(name: str, rank: int, parts: int) -> Callable[[], None]:
    """DDP's step over the same rows; in so many parts."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from headway.testing.forks import for_good

    torch.manual_seed(7)
    task, rows = task_of(name), MODELS[name][2] // WORKERS
    whole = {key: torch.from_numpy(value) for key, value in batch_of(name, rows, rank).items()}
    cut = [{key: value.chunk(parts)[at].clone() for key, value in whole.items()} for at in range(parts)]
    model = for_good(DistributedDataParallel(task.model()))
    optimizer = task.optimizer(model)

    def step() -> None:
        optimizer.zero_grad()
        for at, batch in enumerate(cut):
            with nullcontext() if at + 1 == parts else model.no_sync():
                (task.loss(model, batch) / parts).backward()
        optimizer.step()

    return step


def rounds(group: Any, folder: str, name: str, count: int) -> dict[str, list[float]]:
    """Seconds of each side's steps, in one of the processes."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/ddp", rank=group.rank, world_size=group.size)
    steps: dict[str, Callable[[], None]] = {"ddp": ddp(name, group.rank, 1)}
    steps["accumulated"] = ddp(name, group.rank, LANES // WORKERS)
    for side, (lanes, fields) in SIDES.items():
        place = Path(folder) / f"{side}-{group.rank}"
        steps[side] = ours(name, group, place, lanes, fields, WARM + count * (TURN + 1) + 10)
    found: dict[str, list[float]] = {side: [] for side in steps}
    draw = random.Random(7)  # the same on both
    for number in range(WARM + count):
        for side in draw.sample(list(steps), len(steps)):
            steps[side]()
            if number < WARM:
                continue
            group.barrier()
            begun = time.perf_counter()
            for _ in range(TURN):
                steps[side]()
            found[side].append((time.perf_counter() - begun) / TURN)
    dist.destroy_process_group()
    return found


def peak(group: Any, folder: str, name: str, side: str) -> float:
    """Bytes by which one of the processes grows at its peak, in so many steps of one side."""
    import torch
    import torch.distributed as dist

    from headway.elastic.worker.footprint import status

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/ddp", rank=group.rank, world_size=group.size)
    task_of(name)  # what is imported for it
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    if side == "ddp":
        step = ddp(name, group.rank, 1)
    else:
        lanes, fields = SIDES[side]
        step = ours(name, group, Path(folder) / f"{side}-{group.rank}", lanes, fields, PEAK_STEPS + 10)
    for _ in range(PEAK_STEPS):
        step()
    dist.destroy_process_group()
    return float(status("VmHWM") - before)


def interval(ratios: list[float]) -> tuple[float, float]:
    """Of the median, 95 %, by bootstrap."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(DRAWS))
    return medians[int(0.025 * DRAWS)], medians[int(0.975 * DRAWS)]


def main() -> None:
    from headway.testing.workers import run

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args()
    figures: dict[str, Any] = {name: each for name, each in kept("lanes").items() if name in MODELS}
    for name in options.model or list(MODELS):
        with tempfile.TemporaryDirectory() as folder:
            found = run(rounds, WORKERS, Path(folder), folder, name, options.rounds, deadline_s=3600.0)[0]
        figures[name] = {"ddp_ms": round(statistics.median(found["ddp"]) * 1e3, 2), "rounds": options.rounds}
        print(f"{name}: ddp {figures[name]['ddp_ms']} ms", flush=True)
        for side, seconds in found.items():
            for against in ("ddp", *(("accumulated",) if side in ("8_apart", "8_bitwise") else ())):
                if side == against:
                    continue
                ratios = [a / b for a, b in zip(seconds, found[against], strict=True)]
                low, high = interval(ratios)
                median = statistics.median(ratios)
                figures[name][f"{side} / {against}"] = [round(each, 4) for each in (median, low, high)]
                print(f"{name}: {side:18} {median:.3f} of {against} ({low:.3f} to {high:.3f})", flush=True)
        grown = {}
        for side in ("ddp", *SIDES):
            with tempfile.TemporaryDirectory() as folder:
                grown[side] = max(run(peak, WORKERS, Path(folder), folder, name, side, deadline_s=600.0))
        figures[name]["ddp_peak_mb"] = round(grown["ddp"] / 1e6, 1)
        for side in SIDES:
            figures[name][f"{side} peak / ddp"] = round(grown[side] / grown["ddp"], 3)
            print(f"{name}: {side:18} {grown[side] / grown['ddp']:.3f} of ddp's memory", flush=True)
    if not options.dry:
        keep("lanes", {"what": f"{WORKERS} workers on gloo, steps in turn", **figures})


if __name__ == "__main__":
    main()
