"""The machines of a local cluster, as a market has them: each with an id, a type, tags, and a state that takes time."""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headway.cluster.file import NodeType
from headway.cluster.local.cluster import LocalCluster, Shape
from headway.cluster.local.machine import Node
from headway.errors import BadInput, HeadwayError

TYPE, KIND, CLUSTER, STATUS = "ray-user-node-type", "ray-node-type", "ray-cluster-name", "ray-node-status"
"""Ray's tags."""
KEPT = 50
"""Machines that are gone and still shown."""


@dataclass
class Owned:
    """A machine. `state`: booting, running, stopping, or gone.

    Args:
        id: never given twice.
        number: the name that people use.
        type: of `available_node_types`.
        tags, option: as a market keeps them.
        since: Unix seconds.
    """

    id: str
    number: int
    type: str
    tags: dict[str, str]
    option: Mapping[str, Any]
    since: float
    state: str = "booting"
    why: str = ""
    leaves_at: float | None = None
    node: Node | None = field(default=None, repr=False)

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "id": self.id,
            "number": self.number,
            "type": self.type,
            "tags": self.tags,
            "option": dict(self.option),
            "since": self.since,
            "state": self.state,
            "why": self.why,
            "leaves_at": self.leaves_at,
            "ip": self.node.ip if self.node is not None else "",
            "node_id": self.node.node_id if self.node is not None else "",
        }


class Fleet:
    """The machines beside the head. Its methods may be called by several threads at once.

    Args:
        name: of the cluster, with which ids begin.
        cluster: in which they are started.
        shapes: what a node of each type gives out.
        clock: Unix seconds.
    """

    def __init__(
        self,
        name: str,
        cluster: LocalCluster,
        shapes: Mapping[str, Shape],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.shapes = dict(shapes)
        self._name, self._cluster, self._clock = name, cluster, clock
        self._machines: dict[str, Owned] = {}
        self._gone: deque[Owned] = deque(maxlen=KEPT)
        self._by_request: dict[str, Owned] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._next = 0
        self._lock = threading.RLock()

    def launch(self, type: str, option: Mapping[str, Any], tags: Mapping[str, str], once: str = "") -> Owned:
        """Begin to start a machine; returns at once. The same `once` gives the same machine.

        Raises:
            BadInput: there is no such type.
        """
        with self._lock:
            if once and once in self._by_request:
                return self._by_request[once]
            if type not in self.shapes:
                raise BadInput(
                    f"node type {type!r} is not in the cluster's file", f"there are {', '.join(self.shapes)}"
                )
            number, self._next = self._next, self._next + 1
            machine = Owned(f"{self._name}-{number}", number, type, dict(tags), dict(option), self._clock())
            self._machines[machine.id] = machine
            if once:
                self._by_request[once] = machine
            thread = threading.Thread(target=self._boot, args=(machine,), daemon=True)
            self._threads[machine.id] = thread
            thread.start()
        return machine

    def wait(self, machines: Sequence[Owned], within_s: float) -> None:
        """Wait until machines have booted, or have failed to."""
        deadline = time.monotonic() + within_s
        for machine in machines:
            self._threads[machine.id].join(max(0.0, deadline - time.monotonic()))

    def terminate(self, ids: Sequence[str], why: str = "") -> None:
        """Let machines go; those that are gone are no error. Returns once they are."""
        for machine in ids:
            with self._lock:
                owned = self._machines.get(machine)
                if owned is None:
                    continue
                owned.state, owned.why = "stopping", why or owned.why
                node = owned.node
            if node is not None:  # one that boots yet is ended by who boots it
                self._leave(owned)

    def tag(self, machine: str, tags: Mapping[str, str]) -> None:
        """Put tags on a machine, if it is there."""
        with self._lock:
            if machine in self._machines:
                self._machines[machine].tags |= tags

    def drain(self, machine: Owned, deadline_s: float, why: str) -> None:
        """Tell Ray that a machine goes, and end it at the deadline.

        Raises:
            BadInput: it has not come yet.
            RunFailed: Ray did not accept it.
        """
        node = machine.node
        if node is None or machine.state != "running":
            raise BadInput(f"node {machine.number} cannot be drained", f"it is {machine.state}")
        self._cluster.tell_of_end(node, deadline_s, why)
        machine.leaves_at, machine.why = self._clock() + deadline_s, why
        self._cluster.after(deadline_s, lambda: self.terminate([machine.id]))

    def release(self, dead: Collection[str]) -> None:
        """End machines that were drained and have handed everything over.

        Args:
            dead: Ray's ids of nodes that it holds for dead. A drained one ends as soon as nothing runs on it.
        """
        for machine in self.living():
            if machine.leaves_at is not None and machine.node is not None and machine.node.node_id in dead:
                self.terminate([machine.id])

    def living(self) -> list[Owned]:
        """Those that are there; one whose processes are gone is found out, and is not among them."""
        with self._lock:
            machines = list(self._machines.values())
        for machine in machines:
            node = machine.node
            if node is not None and machine.state == "running" and node.process.poll() is not None:
                machine.why = machine.why or "its processes are gone"
                self._leave(machine)
        with self._lock:
            return list(self._machines.values())

    def gone(self) -> list[Owned]:
        """The newest of those that are not there any more."""
        with self._lock:
            return list(self._gone)

    def named(self, name: str) -> Owned:
        """A machine by its number, its id, or the beginning of Ray's id of its node.

        Raises:
            BadInput: there is none, or it is gone.
        """
        living = self.living()
        for machine in living:
            ray = machine.node.node_id if machine.node is not None else ""
            if name in (str(machine.number), machine.id) or (len(name) >= 6 and ray.startswith(name)):
                return machine
        was = any(name in (str(each.number), each.id) for each in self.gone())
        there = ", ".join(str(each.number) for each in living)
        reason = "it is gone" if was else "it is not in the cluster"
        raise BadInput(f"node {name!r} cannot be named", reason, f"There are: {there}." if there else "There is none.")

    def _boot(self, machine: Owned) -> None:
        own = {"RAY_CLOUD_INSTANCE_ID": machine.id, "RAY_NODE_TYPE_NAME": machine.type}
        shape = self.shapes[machine.type]
        try:
            node = self._cluster.add(shape.having(own))
        except (HeadwayError, OSError) as error:
            machine.why = f"it did not start: {error}"
            self._leave(machine)
            return
        with self._lock:
            machine.node = node
            if machine.state == "booting":
                machine.state = "running"
                return
        self._leave(machine)

    def _leave(self, machine: Owned) -> None:
        """End what is there of a machine, with its folder."""
        if machine.node is not None:
            machine.node.close()
            shutil.rmtree(machine.node.folder, ignore_errors=True)
        with self._lock:
            if self._machines.pop(machine.id, None) is None:
                return
            machine.state = "gone"
            self._gone.append(machine)


def shape(node_type: NodeType) -> Shape:
    """What a node of a type gives out."""
    rest = dict(node_type.resources)
    cpus, gpus, memory = rest.pop("CPU", 0), rest.pop("GPU", 0), rest.pop("memory", None)
    return Shape(cpus, gpus, memory, rest, node_type.labels)
