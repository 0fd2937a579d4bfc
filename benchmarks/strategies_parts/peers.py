"""torch's own ways on the same network and the same rows in every step: DistributedDataParallel, plain and with its
communication hooks for fp16 and PowerSGD."""

from __future__ import annotations

import os
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.job import Job
from headway.testing.forks import for_good, forks
from strategies_parts import runs
from strategies_parts.runs import ACKNOWLEDGED_S, LeftOut

HOOKS = ("ddp", "ddp, fp16 hook", "ddp, PowerSGD hook")
DEADLINE_S = 3600.0
WARM = 4


@dataclass(frozen=True)
class Peer:
    """What came of one. sent: bytes by a worker for a step, after the first few; see `runs.Done`."""

    sent: float
    step_s: float
    loss: float
    accuracy: float


def run(
    hook: str,
    workers: int,
    folder: Path,
    data: Path,
    arguments: dict[str, Any],
    rows: int,
    steps: int,
    seed: int,
    enter: Callable[[str], str] | None = None,
    rank_of_power_sgd: int = 4,
) -> Peer:
    """Train so. rows: of each worker's batch; enter: see `headway.testing.elastic.Run`.

    Raises:
        LeftOut: a worker failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = (workers, folder, data, arguments, rows, steps, seed, enter, rank_of_power_sgd)
    found = answers(hook, _train, [(hook, rank, *last) for rank in range(workers)])
    sent = statistics.mean(each[0] for each in found)
    return Peer(sent, *found[0][1:])


def answers(name: str, work: Callable[..., Any], givens: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What processes return that do a work at the same time, each with what it is given.

    Raises:
        LeftOut: one failed; says whose work it was.
    """
    processes, pipes = [], []
    for given in givens:
        receive, send = forks.Pipe(duplex=False)
        process = forks.Process(target=_work, args=(send, work, given), daemon=True)
        process.start()
        send.close()
        processes.append(process)
        pipes.append(receive)
    try:
        found = []
        for pipe in pipes:
            if not pipe.poll(DEADLINE_S):
                raise LeftOut(f"{name}: no answer within {DEADLINE_S:g} s")
            failed, value = pipe.recv()
            if failed:
                raise LeftOut(f"{name}: {value.strip().splitlines()[-1]}")
            found.append(value)
    except EOFError:
        raise LeftOut(f"{name}: a worker ended") from None
    finally:
        for process in processes:
            process.kill()
            process.join()
    return found


def _work(pipe: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    try:
        pipe.send((False, work(*given)))
    except BaseException:  # told to the parent, which says it
        pipe.send((True, traceback.format_exc()))


def _train(
    hook: str,
    rank: int,
    workers: int,
    folder: Path,
    data: Path,
    arguments: dict[str, Any],
    rows: int,
    steps: int,
    seed: int,
    enter: Callable[[str], str] | None,
    power_rank: int,
) -> tuple[float, float, float, float]:
    import torch
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
    from torch.nn.functional import cross_entropy
    from torch.nn.parallel import DistributedDataParallel

    from headway.strategies.sockets import Sockets, opened
    from strategies_parts import material, pictures

    torch.set_num_threads(1)
    if enter is not None:
        enter(f"w{rank}")
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0" if enter is not None else "lo"
    before = opened()
    dist.init_process_group("gloo", init_method=f"file://{folder}/ddp", rank=rank, world_size=workers)
    torch.manual_seed(seed)
    task = runs.made(runs.PICTURES, arguments)
    model = for_good(DistributedDataParallel(task.model()))
    optimizer = task.optimizer(model)
    if hook == "ddp, fp16 hook":
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif hook == "ddp, PowerSGD hook":
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=power_rank, start_powerSGD_iter=2)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    images, labels = material.read(data / "train")
    walk = order(_job(data, workers, rows, steps, seed), data / "train")
    sockets, marked, seconds, losses = Sockets(opened() - before), 0, [], []
    for step in range(steps):
        chosen = rows_of(walk, step, rank)
        batch = torch.from_numpy(pictures.tensors(images[chosen])), torch.from_numpy(labels[chosen])
        begun = time.monotonic()
        optimizer.zero_grad()
        loss = cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        seconds.append(time.monotonic() - begun)
        losses.append(float(loss.detach()))
        if step + 1 == WARM:
            time.sleep(ACKNOWLEDGED_S)
            marked = Sockets(opened() - before).bytes_moved()
    time.sleep(ACKNOWLEDGED_S)
    sockets = Sockets(opened() - before)
    sent = (sockets.bytes_moved() - marked) / 2 / max(1, steps - WARM)
    test_images, test_labels = material.read(data / "test")
    with torch.no_grad():
        scores = model.module(torch.from_numpy(pictures.tensors(test_images)))
        right = float((scores.argmax(1) == torch.from_numpy(test_labels)).float().mean())
    kept = losses[-max(1, steps // runs.TAIL) :]
    mean = torch.tensor([sum(kept) / len(kept)])
    dist.all_reduce(mean)
    dist.destroy_process_group()
    return sent, statistics.median(seconds[min(WARM, steps // 2) :]), float(mean) / workers, right


def _job(data: Path, workers: int, rows: int, steps: int, seed: int) -> Job:
    """One of Headway's with a lane for each worker."""
    from headway.job import parse

    tree = {"name": "peer", "task": "t.py:T", "data": {"train": str(data / "train")}}
    return parse({**tree, "lanes": workers, "lane_batch": rows, "steps": steps, "seed": seed})


def order(job: Job, train: Path) -> Any:
    """Headway's walk of a job over its training set: accuracies after few steps hang on it by points."""
    from headway.data.manifest import load
    from headway.data.read.streams import train_order
    from headway.data.store.files import LocalFiles

    return train_order(job, [LocalFiles(train, load(train))])


def rows_of(walk: Any, step: int, lane: int) -> Any:
    """Numbers of a lane's rows in a step."""
    epoch, at = divmod(step, walk.steps_per_epoch)
    return walk.lane_ids(epoch, lane)[at * walk.lane_batch : (at + 1) * walk.lane_batch]
