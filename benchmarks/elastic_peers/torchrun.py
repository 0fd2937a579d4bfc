"""torchrun elastic: all workers restart at every change and go on from the last checkpoint (its documented pattern).

Best settings: agents look at their workers ten times a second, the rendezvous waits for late-comers one second, a
silent agent counts as gone after five heartbeats of one second, and the store lives outside the agents, so that the
loss of any of them can be survived.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

from elastic_peers import faults, records, workload

COLLECTIVE_S = 5
SETTINGS = {
    "nnodes": "1:2",
    "monitor_interval_s": 0.1,
    "last_call_timeout_s": 1,
    "keep_alive_interval_s": 1,
    "keep_alive_max_attempt": 5,
    "shutdown_timeout_s": 2,
    "collective_timeout_s": COLLECTIVE_S,
    "checkpoint_every_steps": workload.CHECKPOINT_EVERY,
    "store": "outside the agents, not shared with the workers",
}


class Torchrun:
    """Agents as processes of their own, one worker each."""

    def __init__(self, folder: Path, parameters: int, seed: int) -> None:
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.folder = folder
        self.worker = [str(folder), str(parameters), str(seed)]
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def add_nodes(self, count: int) -> None:
        for _ in range(count):
            self._add_node()

    def _add_node(self) -> None:
        node = str(len(self.agents))
        command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={SETTINGS['nnodes']}"]
        command += ["--nproc-per-node=1", "--max-restarts=100", f"--monitor-interval={SETTINGS['monitor_interval_s']}"]
        command += [f"--shutdown-timeout={SETTINGS['shutdown_timeout_s']}", "--local-addr=127.0.0.1"]
        command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{self.store.port}", "--rdzv-id=peer"]
        conf = {"is_host": 0, "last_call_timeout": SETTINGS["last_call_timeout_s"]}
        conf |= {"keep_alive_interval": SETTINGS["keep_alive_interval_s"]}
        conf |= {"keep_alive_max_attempt": SETTINGS["keep_alive_max_attempt"]}
        command += ["--rdzv-conf", ",".join(f"{k}={v}" for k, v in conf.items())]
        command += ["-m", "elastic_peers.torchrun", *self.worker, node]
        # Agents that share a store keep the address of the first one, and wait for ever once rank 0 has moved.
        with patch.dict(os.environ, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"):
            self.agents[node] = faults.spawn(command, self.folder)

    def kill_node(self, node: str) -> None:
        agent = self.agents[node]
        for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        agent.kill()

    def cut_node(self, node: str) -> None:
        raise NotImplementedError("see `measure`: no node of its own to cut off")

    def close(self) -> None:
        for agent in self.agents.values():
            agent.terminate()
        for node, agent in self.agents.items():
            try:
                agent.wait(10)
            except subprocess.TimeoutExpired:
                self.kill_node(node)
                agent.wait()


def measure(fault: str, repeats: int, parameters: int, seed: int) -> dict[str, Any]:
    """Seconds, steps and samples of a fault; every repeat is kept."""
    if fault == "link cut":
        return faults.unmeasured("needs nodes in network namespaces; its agents here share the machine's loopback")
    return faults.measured(Torchrun, fault, repeats, parameters, seed, **SETTINGS)


def train(folder: Path, parameters: int, seed: int, node: str) -> None:
    """The script that torchrun starts, and starts again."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=COLLECTIVE_S))
    rank, size = dist.get_rank(), dist.get_world_size()
    name = [os.urandom(4).hex()]
    dist.broadcast_object_list(name, 0)
    log = records.Log(folder, node)
    model = workload.build(parameters, seed)
    samples = workload.Samples(model, seed)
    optimizer = workload.optimizer(model)
    checkpoint, step = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        step = workload.take(torch.load(checkpoint), model, optimizer)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    while True:
        rows = workload.share(step, rank, size)
        log.began(name[0], size, step, rows)
        optimizer.zero_grad()
        samples.loss(parallel, rows).backward()
        optimizer.step()
        log.committed(name[0], size, step)
        step += 1
        if rank == 0 and step % workload.CHECKPOINT_EVERY == 0:
            torch.save(workload.state(model, optimizer, step), folder / "checkpoint.new")
            (folder / "checkpoint.new").replace(checkpoint)


if __name__ == "__main__":
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
