"""What a machine of the test cloud does as it boots, beside joining its cluster: its agent listens for notices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import headway
from headway.cluster.file import ClusterFile
from headway.cluster.local.cluster import Shape
from headway.cluster.local.machine import Node
from headway.testing.cloud.goods import VM
from headway.testing.metadata import Instance
from headway.testing.network.namespace import inside

CLOUDS = ("aws", "gcp", "azure")
TYPE = "ray-user-node-type"
REAP_S = 5.0


def shape(file: ClusterFile, vm: VM) -> Shape:
    """What Ray gives out on a machine, by the type for which it was bought."""
    kind = file.spec.available_node_types[vm.tags[TYPE]]
    resources = dict(kind.resources)
    return Shape(
        cpus=resources.pop("CPU", 1),
        gpus=resources.pop("GPU", 0),
        resources=resources,
        labels=kind.labels,
        environment={"RAY_CLOUD_INSTANCE_ID": vm.id, "RAY_NODE_TYPE_NAME": vm.tags[TYPE]},
    )


def listens(file: ClusterFile) -> str:
    """Whose notices a cluster's machines listen for; "" for nobody's."""
    notices = file.headway.notices
    return notices if notices in CLOUDS else "" if notices == "none" else "aws"


def with_headway(environment: Mapping[str, str]) -> dict[str, str]:
    """The same, and this Headway is found from any folder."""
    paths = [str(Path(headway.__file__).parents[1]), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Agent:
    """Of one machine, as a program on it.

    Args:
        node: the machine.
        service: where it asks.
        environment: all its variables.
    """

    def __init__(self, node: Node, service: Instance, environment: Mapping[str, str]) -> None:
        self._node, self._service, self._environment = node, service, environment
        self._process: subprocess.Popen[Any] | None = None

    def start(self) -> None:
        """Once the machine's Ray node is there."""
        pid = self._node.pid
        enter = ["nsenter", f"--target={pid}", "--all", "--"] if self._node.alone else inside(pid)
        about = ["--notices", self._service.cloud, "--url", self._service.url, "--instance", self._service.id]
        about += ["--node-id", self._node.node_id]
        program = [sys.executable, "-m", "headway.cluster.agent", "watch", "--alone", *about]
        with (self._node.folder / "agent").open("w") as said:
            self._process = subprocess.Popen(
                [*enter, *program],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=with_headway({**os.environ, **self._environment}),
            )

    def end(self) -> None:
        """After the machine was switched off: the agent went with it."""
        if self._process is not None:
            if not self._node.alone:
                self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(REAP_S)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
