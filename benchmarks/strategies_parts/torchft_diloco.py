"""torchft's DiLoCo on the same network, the same first weights and the same rows in every step as a run of ours.

torchft is no dependency of the project: `pip install torchft-nightly` (measured with 2026.10.26 on torch 2.13). Each
replica is a process with a manager of its own and gloo between them; the lighthouse is in the first one's. All of it
listens on the loopback alone. Model, inner optimiser, clipping, schedule and outer optimiser are those of the job.
What differs: rows are read and turned into tensors between steps, on the worker's own thread, which counts in no step;
torchft sends a tensor at a time, ours all of them in one; its manager asks for a quorum at each exchange, whose bytes
(gRPC) are not counted, as those of our controller are not.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from headway.testing.forks import for_good
from strategies_parts import peers, runs
from strategies_parts.runs import ACKNOWLEDGED_S, LeftOut, Plan

LOOPBACK = "127.0.0.1"
PATIENCE = timedelta(seconds=600)
"""With which a replica waits for the others: they compute a whole round in between."""


def run(plan: Plan, folder: Path) -> tuple[float, float, float]:
    """A plan of ours for DiLoCo, one replica on each of its workers.

    Returns:
        Loss of the test set; bytes that a worker sent for a step and seconds of a step, as `runs.Done` has them.

    Raises:
        LeftOut: torchft is not here, cannot do the plan, or failed.
    """
    try:
        importlib.import_module("torchft.local_sgd")
    except Exception as error:  # its own imports may fail in their ways
        raise LeftOut(f"torchft cannot be imported ({error}). Have it with: pip install torchft-nightly") from None
    every = plan.job().strategy.round_steps
    if plan.steps % every:
        raise LeftOut(f"torchft's run ends with an exchange: {plan.steps} steps are no whole rounds of {every}")
    folder.mkdir(parents=True, exist_ok=True)
    found = peers.answers("torchft", _train, [(rank, plan, folder) for rank in range(plan.workers)])
    if len({digest for _, digest, _, _ in found}) > 1:
        raise LeftOut("torchft: the replicas ended with different weights")
    return found[0][3], statistics.mean(sent for sent, _, _, _ in found), found[0][2]


class _NoCheckpoints:
    """In place of torchft's server of checkpoints: nobody is lost, and nobody joins later."""

    def metadata(self) -> str:
        return "none"

    def send_checkpoint(self, *given: Any, **named: Any) -> None:
        raise RuntimeError("a replica asked for a checkpoint, though all began with the same weights")

    recv_checkpoint = send_checkpoint

    def disallow_checkpoint(self) -> None:
        pass

    def shutdown(self, wait: bool = True) -> None:
        pass


def _manager(rank: int, workers: int, meeting: Any) -> Any:
    """Of a replica: listens on the loopback alone, as do its store and gloo, and the lighthouse of the first. meeting:
    a store in which all find the lighthouse."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    os.environ.setdefault("RUST_LOG", "error")  # else its servers tell each quorum
    socket.gethostname = lambda: LOOPBACK  # where torchft tells others to find it; it asks while it is imported
    import torch.distributed as dist
    import torchft.manager
    from torchft import Manager, ProcessGroupGloo
    from torchft.coordination import LighthouseServer

    logging.getLogger("torchft.manager").setLevel(logging.ERROR)  # it warns that there is no NCCL
    server = torchft.manager.ManagerServer
    torchft.manager.ManagerServer = lambda **given: server(**{**given, "bind": f"{LOOPBACK}:0"})
    lighthouse = None
    if rank == 0:
        lighthouse = LighthouseServer(
            bind=f"{LOOPBACK}:0", min_replicas=workers, join_timeout_ms=60_000, heartbeat_timeout_ms=60_000
        )
        meeting.set("lighthouse", lighthouse.address())
    port = meeting.get("lighthouse").decode().rpartition(":")[2]
    listening = socket.create_server((LOOPBACK, 0))
    at = listening.getsockname()[1]
    store = dist.TCPStore(
        LOOPBACK, at, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach(), use_libuv=True
    )
    group = ProcessGroupGloo(timeout=PATIENCE)
    group._rendezvous_store = store  # else it makes one, which listens on all addresses
    manager = Manager(
        pg=group,
        load_state_dict=None,
        state_dict=None,
        min_replica_size=workers,
        use_async_quorum=False,  # DiLoCo's wish
        timeout=PATIENCE,
        quorum_timeout=PATIENCE,
        rank=0,  # within the replica
        world_size=1,
        store_addr=LOOPBACK,
        store_port=at,
        lighthouse_addr=f"http://{LOOPBACK}:{port}",
        replica_id=f"replica_{rank}",
        hostname=LOOPBACK,
        checkpoint_transport=_NoCheckpoints(),
        init_sync=False,  # weights are alike by the seed
        max_retries=0,  # an exchange that fails ends the run
    )
    return for_good((manager, lighthouse, store))[0]


def _train(rank: int, plan: Plan, folder: Path) -> tuple[float, str, float, float]:
    """A replica's whole run: bytes sent for a step, digest of the weights, a step's seconds, and the first's loss."""
    import numpy as np
    import torch
    from torch.distributed import FileStore

    meeting = FileStore(str(folder / "meeting"), plan.workers)
    meeting.set_timeout(PATIENCE)
    manager = _manager(rank, plan.workers, meeting)
    from torchft.local_sgd import DiLoCo

    from headway import optim
    from headway.elastic.worker.update import weights_sha256
    from headway.strategies.sockets import Sockets, opened
    from strategies_parts import material

    torch.set_num_threads(1)
    job = plan.job()
    every, outer = job.strategy.round_steps, job.strategy.outer
    torch.manual_seed(job.seed)
    task = runs.made(plan.how.task, plan.how.arguments)
    weights = plan.how.weights
    model = task.model() if weights is None else runs.loaded(task.model, weights)
    optimizer = task.optimizer(model)
    schedule = optim.schedule(job.schedule, optimizer, plan.steps, None)
    outer_optimizer = torch.optim.SGD(model.parameters(), lr=outer.lr, momentum=outer.momentum, nesterov=outer.nesterov)
    rows, walk = material.table(plan.data / "train"), peers.order(job, plan.data / "train")
    draw = np.random.default_rng(job.seed)

    def batch_of(table: Any, training: bool) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(each) for name, each in task.transform(table, draw, training).items()}

    before, marks, seconds = opened(), [], []
    with DiLoCo(manager, [model], optimizer, outer_optimizer, sync_every=every):
        for step in range(plan.steps):
            batch = batch_of(rows.take(peers.rows_of(walk, step, rank)), True)
            begun = time.monotonic()
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            if job.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), job.clip_norm)
            optimizer.step()  # and the exchange, where one is due
            if schedule is not None:
                schedule.step()
            seconds.append(time.monotonic() - begun)
            if step + 1 in (every, plan.steps):
                time.sleep(ACKNOWLEDGED_S)
                marks.append((step + 1, Sockets(opened() - before).bytes_moved()))
    meeting.set(f"counted by {rank}", "")
    meeting.wait([f"counted by {other}" for other in range(plan.workers)])  # who ends takes connections along
    if manager.current_step() != plan.steps // every:
        raise RuntimeError(f"{manager.current_step()} exchanges were done, not {plan.steps // every}")
    loss = float("nan")
    if rank == 0:
        test, batches = material.table(plan.data / "test"), []
        model.eval()
        with torch.no_grad():
            for at in range(0, len(test), job.data.eval_batch or len(test)):
                part = test.slice(at, job.data.eval_batch)
                batches.append((len(part), float(task.loss(model, batch_of(part, False)))))
        loss = sum(count * each for count, each in batches) / len(test)
    return runs.sent(marks), weights_sha256(model), runs.step_s(seconds), loss
