"""torchft: replica groups that lose a step, not the run. Its README's loop, with its own sampler.

Two replica groups of one process each and a lighthouse; torchft lives in an environment of its own. Best settings:
short heartbeats and time-outs, a quorum every 20 ms. Its sampler is lossy by its own account: a step that fails drops
its batch, and nobody reads the part of the data that belongs to a group that is away.
A replica group that died is not started again here: torchft leaves that to the scheduler.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from elastic_peers import faults, records, workload

VERSIONS = ("torch==2.13.0", "torchft-nightly==2026.10.26", "numpy")
ENVIRONMENT = Path.home() / ".cache" / "headway-benchmarks" / VERSIONS[1]
OPERATION_S, QUORUM_S = 2, 20
LIGHTHOUSE = {"join_timeout_ms": 1000, "quorum_tick_ms": 20, "heartbeat_timeout_ms": 1000}
SETTINGS = {
    "versions": VERSIONS,
    "replica_groups": 2,
    "min_replica_size": 1,
    "timeout_s": OPERATION_S,
    "quorum_timeout_s": QUORUM_S,
    "heartbeat_interval_ms": 100,
    "lighthouse": LIGHTHOUSE,
    "checkpoints": "none: a joiner takes the state of a live group",
}


class Torchft:
    """A lighthouse and replica groups, each a process."""

    def __init__(self, folder: Path, parameters: int, seed: int) -> None:
        self.folder = folder
        self.worker = [str(parameters), str(seed)]
        self.groups: dict[str, subprocess.Popen[bytes]] = {}
        self.lighthouse = self._spawn("lighthouse")

    def add_nodes(self, count: int) -> None:
        for _ in range(count):
            node = str(len(self.groups))
            self.groups[node] = self._spawn("train", *self.worker, node, str(count))

    def kill_node(self, node: str) -> None:
        self.groups[node].kill()

    def cut_node(self, node: str) -> None:
        raise NotImplementedError("see `measure`: no node of its own to cut off")

    def close(self) -> None:
        for process in (*self.groups.values(), self.lighthouse):
            process.kill()
            process.wait(30)

    def _spawn(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(python()), "-m", "elastic_peers.torchft", role, str(self.folder), *arguments]
        return faults.spawn(command, self.folder)


def measure(fault: str, repeats: int, parameters: int, seed: int) -> dict[str, Any]:
    """Seconds, steps and samples of a fault; every repeat is kept."""
    if fault == "link cut":
        return faults.unmeasured("needs nodes in network namespaces; its groups here share the machine's loopback")
    reason = install()
    if reason:
        return faults.unmeasured(f"not installable: {reason}")
    return faults.measured(Torchft, fault, repeats, parameters, seed, **SETTINGS)


def python() -> Path:
    return ENVIRONMENT / "bin" / "python"


def install() -> str | None:
    """Make torchft's environment if it is not there; why not, if that fails."""
    if (ENVIRONMENT / "complete").exists():
        return None
    make = [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)]
    fill = [str(python()), "-m", "pip", "install", "--quiet", *VERSIONS]
    for command in (make, fill, [str(python()), "-c", "import torchft"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["no message"])[-1]
    (ENVIRONMENT / "complete").touch()
    return None


def serve(folder: Path) -> None:
    """Be the lighthouse; its address is left in the folder."""
    from torchft.coordination import LighthouseServer

    server = LighthouseServer(bind="[::]:0", min_replicas=1, **LIGHTHOUSE)
    (folder / "address.new").write_text(server.address())
    (folder / "address.new").replace(folder / "address")
    while True:
        time.sleep(3600)


def train(folder: Path, parameters: int, seed: int, node: str, together: int) -> None:
    """One replica group. Those that are started together begin together: a step alone would skip the others' rows."""
    import torch.distributed as dist
    import torchft
    from torchft.data import DistributedSampler

    (folder / f"ready-{node}").touch()
    while not (folder / "address").exists() or len(list(folder.glob("ready-*"))) < together:
        time.sleep(0.02)
    log = records.Log(folder, node)
    model = workload.build(parameters, seed)
    samples = workload.Samples(model, seed)
    inner = workload.optimizer(model)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def state() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimizer": inner.state_dict()}

    def load(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        inner.load_state_dict(state["optimizer"])

    manager = torchft.Manager(
        pg=torchft.ProcessGroupGloo(timeout=timedelta(seconds=OPERATION_S)),
        load_state_dict=load,
        state_dict=state,
        min_replica_size=1,
        timeout=timedelta(seconds=OPERATION_S),
        quorum_timeout=timedelta(seconds=QUORUM_S),
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=(folder / "address").read_text(),
        replica_id=f"group_{node}",
        hostname="127.0.0.1",
        init_sync=False,  # the same seed gives the same weights
    )
    parallel = torchft.DistributedDataParallel(manager, model)
    optimizer = torchft.Optimizer(manager, inner)
    numbers = range(10**7)
    sampler = DistributedSampler(numbers, int(node), 2, group_rank=0, num_replicas=1, shuffle=False)
    batch = workload.GLOBAL_BATCH // 2
    for first in itertools.count(0, batch):
        rows = [sampler.global_rank + i * sampler.global_world_size for i in range(first, first + batch)]
        optimizer.zero_grad()  # begins the step's quorum
        samples.loss(parallel, rows).backward()
        step, group, size = manager.current_step(), str(manager._quorum_id), manager.num_participants()
        if manager.is_participating():  # a group that heals gives zeros
            log.began(group, size, step, rows)
        optimizer.step()  # applied only if all agree that the step is sound
        if manager.current_step() > step:
            log.committed(group, size, step)


if __name__ == "__main__":
    if sys.argv[1] == "lighthouse":
        serve(Path(sys.argv[2]))
    else:
        train(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
