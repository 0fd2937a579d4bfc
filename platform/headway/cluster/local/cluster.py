"""A Ray cluster of several nodes on this machine: a head, and nodes that can be added, drained and ended.

Every node is a raylet of its own, on an address of its own, with a PID namespace where one can be made: whatever was
started on it ends with it. Nothing outlives the cluster, even if its owner is killed.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headway.cluster.local.machine import Node, launch
from headway.cluster.local.processes import isolation
from headway.errors import BadInput, HeadwayError, RunFailed

HEAD = -1
"""The head's number."""
ADDRESSES = "127.0.0.0/22"
"""Of nodes that share the network of this machine; the thousandth after one has its address again."""
STORE_BYTES = 80 * 2**20
HEALTH = {
    # Ray hears of a node that fell silent after about 6 s, not 30: drills are short, and machines do come back.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True)
class Shape:
    """What Ray gives out on a node.

    Args:
        cpus, gpus: how many.
        memory: bytes for heaps; None for what Ray takes.
        resources: of other names.
        labels: of the node.
        environment: variables for it and its workers, beside the cluster's.
    """

    cpus: float = 1
    gpus: float = 0
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def having(self, environment: Mapping[str, str]) -> Shape:
        """The same with more variables."""
        return replace(self, environment={**self.environment, **environment})


def address_of(number: int) -> str:
    """The address of a node on the network of this machine: 127.0.0.2 for the head, and on within `ADDRESSES`."""
    third, last = divmod(1 if number == HEAD else 2 + number % 1000, 254)
    return f"127.0.{third}.{last + 1}"


class LocalCluster:
    """A local cluster; use it as a context manager.

    Args:
        first: the nodes to begin with, numbered from 0.
        head: what the head gives out; it carries no worker unless it says so.
        own: variables for all nodes and their workers, beside this process's own: the cluster's token among them.
        isolated: give every node a PID namespace where one can be made.
        jobs: the head takes jobs over HTTP: `jobs` is then the address.
        autoscaler: the file from which Ray's autoscaler works, on the head; none without one.
        store_bytes: of shared memory, for objects, on each node.
    """

    def __init__(
        self,
        first: Sequence[Shape],
        *,
        head: Shape | None = None,
        own: Mapping[str, str] | None = None,
        isolated: bool = True,
        jobs: bool = False,
        autoscaler: Path | None = None,
        store_bytes: int = STORE_BYTES,
    ) -> None:
        self.nodes: list[Node] = []
        self.address = ""
        self.jobs = ""
        self.isolated, self.takes_jobs = isolated, jobs
        self._first, self._head_shape = list(first), head or Shape(cpus=0)
        self._autoscaler, self._store_bytes = autoscaler, store_bytes
        self._heads = 0
        self._head: Node | None = None
        self._folder: Path | None = None
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._closed = False
        self._own = {"RAY_USAGE_STATS_ENABLED": "0", **(own or {})}

    def start(self) -> Self:
        """Start the head, then all nodes at once.

        Raises:
            RunFailed: a node did not start.
        """
        # A short path: it holds Unix sockets, whose names end at 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="hw-", dir="/tmp" if Path("/tmp").is_dir() else None))
        try:
            self._prepare()
            self._begin_head()
            self._begin_all([(self._new(shape), shape) for shape in self._first])
        except BaseException:  # whatever it was, no node outlives it
            self.close()
            raise
        return self

    @property
    def folder(self) -> Path | None:
        """Of its nodes, for sockets and logs; it goes with the cluster."""
        return self._folder

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a driver's process."""
        kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        return {**kept, **self._own}

    @property
    def token(self) -> str:
        """What drivers and those who submit jobs have to bring; empty where nobody is asked for one."""
        return self._own.get("RAY_AUTH_TOKEN", "")

    def add(self, shape: Shape) -> Node:
        """Start one more node, and wait until it is there.

        Raises:
            BadInput: the cluster has been closed.
            RunFailed: it did not start; nothing of it is left.
        """
        node = self._new(shape)
        try:
            self._begin(node, shape)
        except BaseException:  # as in `start`
            node.end()
            raise
        return node

    def kill_node(self, number: int) -> None:
        """End everything on a node at once, as a machine that is switched off."""
        self._node(number).end()

    def drain_node(self, number: int, deadline_s: float, why: str = "a drill") -> None:
        """Tell Ray that a node will go, as a cloud's notice does, and take it down at the deadline: Ray does not.

        Raises:
            RunFailed: Ray did not accept it.
        """
        self.tell_of_end(self._node(number), deadline_s, why)
        self.after(deadline_s, lambda: self.kill_node(number))

    def tell_of_end(self, node: Node, deadline_s: float, why: str) -> None:
        """Tell Ray that a node will go.

        Raises:
            RunFailed: Ray did not accept it.
        """
        answer = self.head.ask({"drain": node.node_id, "deadline_s": deadline_s, "why": why})
        if not answer["accepted"]:
            raise RunFailed(f"node {node.number} cannot be drained", answer["said"], "")

    def after(self, seconds: float, act: Callable[[], Any]) -> None:
        """Do something to the cluster later, unless it has been closed by then."""

        def dare() -> None:
            with suppress(HeadwayError, OSError):  # the node may be gone by now
                act()

        timer = threading.Timer(seconds, dare)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def alive(self) -> set[str]:
        """Ids of the nodes, without the head, that Ray counts among the living."""
        return set(self.head.ask({"alive": True})["alive"]) - {self.head.node_id}

    def numbered(self, node_id: str) -> Node | None:
        """The node of a Ray id."""
        return next((node for node in self.nodes if node.node_id == node_id), None)

    def processes(self) -> list[int]:
        """Process ids of all that runs in the cluster."""
        return [pid for node in [self._head, *self.nodes] if node is not None for pid in node.processes()]

    def process_of(self, node_id: str, inner: int) -> int | None:
        """The process id of what calls itself `inner` on a node; None when there is no such process."""
        node = self.numbered(node_id)
        return None if node is None else node.process_of(inner)

    def close(self) -> None:
        """End the cluster and whatever runs on it; its folder goes too."""
        with self._lock:
            self._closed = True
        for timer in self._timers:
            timer.cancel()
        for node in [*self.nodes, self._head]:
            if node is not None:
                node.close()
        self._clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def head(self) -> Node:
        """The head, which is asked for what Ray knows.

        Raises:
            BadInput: it has not been started.
        """
        if self._head is None:
            raise BadInput("the local cluster is not up", "it has not been started", "Use it in a with statement.")
        return self._head

    # What a cluster has that is more than this, between the folder's making and the head, and after the last node.

    def _prepare(self) -> None:
        """Before the head is started."""

    def _clear(self) -> None:
        """After everything has ended."""

    def _launch(self, number: int, shape: Shape) -> Node:
        """A process that will be a node when `_begin` tells it so."""
        # The head has no PID namespace: it is never killed, and drivers, which are outside, must find it.
        apart = isolation() if self.isolated and number != HEAD else ()
        node = launch(number, self._folder_of(number), apart, False, (), self._environment_of(shape))
        node.ip = address_of(number)
        return node

    def _folder_of(self, number: int) -> Path:
        assert self._folder is not None
        folder = self._folder / (f"h{self._heads}" if number == HEAD else f"n{number}")
        folder.mkdir()
        return folder

    def _environment_of(self, shape: Shape) -> dict[str, str]:
        return {**self.environment, **HEALTH, **shape.environment}

    def _begin_head(self) -> None:
        self._head = self._launch(HEAD, self._head_shape)
        self._heads += 1
        found = self._begin(self._head, self._head_shape)
        self.address, self.jobs = found["address"], found["jobs"]

    def _begin(self, node: Node, shape: Shape) -> dict[str, Any]:
        head = node.number == HEAD
        autoscaler = self._autoscaler if head else None
        found = node.ask(
            {
                "head": head,
                "node_ip_address": node.ip,
                "num_cpus": shape.cpus,
                "num_gpus": shape.gpus,
                "memory": shape.memory,
                "resources": dict(shape.resources),
                "labels": dict(shape.labels),
                "object_store_memory": self._store_bytes,
                "temp_dir": str(node.folder),
                "include_log_monitor": False,
                "include_dashboard": head and self.takes_jobs,
                "dashboard_agent_listen_port": 0,
                "bare": self._bare(node),
                "no_monitor": autoscaler is None,
                "autoscaling_config": None if autoscaler is None else str(autoscaler),
                "min_worker_port": 0,
                "max_worker_port": 0,
                **({"dashboard_host": self._host(node), "dashboard_port": self._port} if head else {}),
                **({} if head else {"gcs_address": self.address}),
            }
        )
        node.node_id = found["node_id"]
        return found

    def _bare(self, node: Node) -> bool:
        """Whether a node is to see nothing of this Headway."""
        return False

    def _host(self, head: Node) -> str:
        """Where the head listens for jobs."""
        return "127.0.0.1"

    @property
    def _port(self) -> int:
        """At which it does: the one of the head before this one, else any that is free."""
        if self.jobs:
            return int(self.jobs.rpartition(":")[2])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def _new(self, shape: Shape) -> Node:
        """One more node, not begun; several threads may ask: as it starts, its autoscaler may be adding others."""
        with self._lock:
            if self._closed:
                raise BadInput("no node can be added", "the local cluster has been closed", "")
            node = self._launch(len(self.nodes), shape)
            self.nodes.append(node)
        return node

    def _begin_all(self, nodes: Sequence[tuple[Node, Shape]]) -> None:
        trouble: list[BaseException] = []

        def begin(node: Node, shape: Shape) -> None:
            try:
                self._begin(node, shape)
            except BaseException as error:  # raised again by the caller's thread
                trouble.append(error)

        threads = [threading.Thread(target=begin, args=each) for each in nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if trouble:
            raise trouble[0]

    def _node(self, number: int) -> Node:
        if not 0 <= number < len(self.nodes):
            known = f"there are nodes 0 to {len(self.nodes) - 1}"
            raise BadInput(f"node={number} is not in the cluster", known, "Nodes are numbered from 0.")
        return self.nodes[number]
