"""Stock elastic Ray Train: the worker group restarts at every change and goes on from the last checkpoint.

A head without workers and nodes of one worker each, on the local cluster that Headway's own drills use. Best settings:
health checks, polls and time-outs as short as they go without false alarms, a resize looked for every second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from elastic_peers import faults, records, workload
from headway.errors import BadInput
from headway.testing import links
from headway.testing.cluster import HEALTH, Cluster

COLLECTIVE_S, WORKER_SILENT_S, RESIZE_S = 5, 5, 1.0
HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}
TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(WORKER_SILENT_S),
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "1",
}
SETTINGS = {
    "num_workers": [1, 2],
    "max_failures": -1,
    "elastic_resize_monitor_interval_s": RESIZE_S,
    "collective_timeout_s": COLLECTIVE_S,
    "checkpoint_every_steps": workload.CHECKPOINT_EVERY,
    "cluster": HEALTH_CHECKS,
    "train": TRAIN,
}


class RayTrain:
    """A local cluster as Headway's own drills use it, and a driver on its head."""

    def __init__(self, folder: Path, parameters: int, seed: int, links: bool = False) -> None:
        environment = {**TRAIN, "PYTHONPATH": faults.python_path(), "OMP_NUM_THREADS": "1"}
        # Its workers' records name processes by number, so they need the same numbers there and here.
        self.cluster = Cluster(nodes=0, links=links, environment=environment, isolated=False)
        self.arguments = [str(folder), str(parameters), str(seed)]
        self.output = (folder / "output.txt").open("ab")
        self.driver: subprocess.Popen[Any] | None = None
        with patch.dict(HEALTH, HEALTH_CHECKS):
            self.cluster.start()

    def add_nodes(self, count: int) -> None:
        with patch.dict(HEALTH, HEALTH_CHECKS), ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda _: self.cluster.add_node(), range(count)))
        if self.driver is None:
            command = [sys.executable, "-m", "elastic_peers.ray_train", self.cluster.address, *self.arguments]
            self.driver = self.cluster.run(command, stdout=self.output, stderr=self.output)

    def kill_node(self, node: str) -> None:
        self.cluster.kill_node(self._number(node))

    def cut_node(self, node: str) -> None:
        self.cluster.cut(self._number(node))

    def close(self) -> None:
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait(30)
        self.cluster.close()
        self.output.close()

    def _number(self, node_id: str) -> int:
        node = self.cluster.numbered(node_id)
        assert node is not None
        return node.number


def measure(fault: str, repeats: int, parameters: int, seed: int) -> dict[str, Any]:
    """Seconds, steps and samples of a fault; every repeat is kept."""
    if fault == "link cut":
        try:
            links.require_cut()
        except BadInput as error:
            return faults.unmeasured(str(error))
        return faults.measured(partial(RayTrain, links=True), fault, repeats, parameters, seed, **SETTINGS)
    return faults.measured(RayTrain, fault, repeats, parameters, seed, **SETTINGS)


def drive(address: str, folder: str, parameters: int, seed: int, most: int = 2) -> None:
    """The driver: an elastic TorchTrainer of one to `most` workers."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(address=address)
    TorchTrainer(
        train,
        train_loop_config={"folder": folder, "parameters": parameters, "seed": seed},
        torch_config=TorchConfig(backend="gloo", timeout_s=COLLECTIVE_S),
        scaling_config=ScalingConfig(
            num_workers=(1, most), resources_per_worker={"CPU": 1}, elastic_resize_monitor_interval_s=RESIZE_S
        ),
        run_config=RunConfig(storage_path=f"{folder}/storage", failure_config=FailureConfig(max_failures=-1)),
    ).fit()


def train(config: dict[str, Any]) -> None:
    """The loop of one worker; Ray Train starts it again after every change."""
    import ray
    import torch
    import torch.distributed as dist
    from ray.train import Checkpoint, get_checkpoint, report
    from ray.train.torch import prepare_model

    rank, size = dist.get_rank(), dist.get_world_size()
    name = [os.urandom(4).hex()]
    dist.broadcast_object_list(name, 0)
    log = records.Log(config["folder"], ray.get_runtime_context().get_node_id())
    model = workload.build(config["parameters"], config["seed"])
    samples = workload.Samples(model, config["seed"])
    optimizer = workload.optimizer(model)
    step = 0
    checkpoint = get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as saved:
            step = workload.take(torch.load(Path(saved) / "state.pt"), model, optimizer)
    parallel = prepare_model(model)
    while True:
        rows = workload.share(step, rank, size)
        log.began(name[0], size, step, rows)
        optimizer.zero_grad()
        samples.loss(parallel, rows).backward()
        optimizer.step()
        log.committed(name[0], size, step)
        step += 1
        if step % workload.CHECKPOINT_EVERY == 0:
            if rank:
                report({"step": step})
                continue
            with tempfile.TemporaryDirectory() as fresh:
                torch.save(workload.state(model, optimizer, step), Path(fresh) / "state.pt")
                report({"step": step}, checkpoint=Checkpoint.from_directory(fresh))


if __name__ == "__main__":
    drive(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
