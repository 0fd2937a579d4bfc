"""Many machines on one: a Ray cluster whose nodes can be added, killed, stopped, drained and cut off.

with Cluster(nodes=3) as cluster:
    driver = cluster.run(["headway", "train", "job.yaml", "--address", cluster.address])
    cluster.kill_node(1)

The head carries no worker; every node is a raylet of its own, on an address of its own, and holds one worker. A node
has a PID namespace (where one can be made, else a session), so that whatever was started on it ends with it. With
`links=True` each has a network of its own too, and its link can fail in many ways: `cluster.switch`. Nothing outlives
the cluster, even if its owner is killed. With `jobs=True` the head takes jobs over HTTP, as a cluster does that is used
from elsewhere: `cluster.jobs` is the address, `cluster.token` what it wants, and its machines have no Headway.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from headway.cluster.local.cluster import HEAD, HEALTH, LocalCluster, Shape, address_of
from headway.cluster.local.machine import Node, launch
from headway.cluster.local.processes import isolation, session_of
from headway.errors import BadInput
from headway.testing import links
from headway.testing.network.namespace import inside, wait_for_namespace
from headway.testing.network.switch import Switch

__all__ = ["HEALTH", "Cluster", "Node"]


class Cluster(LocalCluster):
    """A local cluster; use it as a context manager.

    Args:
        nodes: how many to begin with, numbered from 0.
        cpus: of each node: as many as a worker of the job asks for, so that a node holds one worker.
        links: give every node a network of its own, so that its link can be cut; needs root and iproute2.
        guarded: ask drivers for a token, which `environment` holds. Ray's ports are open to the network otherwise; a
            driver in a process that has used Ray before needs False.
        environment: variables for the nodes and their workers, beside this process's own.
        isolated: give every node a PID namespace where one can be made. What runs on it has other process ids there
            than here, which `process_of` translates.
        apart: nodes share no folder: each has a home of its own, with the folders for temporary and cached files in
            it, and sees nothing in these folders of this machine. Needs `isolated`.
        jobs: the head takes jobs over HTTP, and leads them itself: it is a machine as the others are, with a PID
            namespace of its own, that `replace_head` ends. Where there are namespaces, no machine of the cluster sees
            this Headway: what runs there has come with a job.
    """

    def __init__(
        self,
        nodes: int = 2,
        *,
        cpus: int = 1,
        links: bool = False,
        guarded: bool = True,
        environment: Mapping[str, str] | None = None,
        isolated: bool = True,
        apart: Sequence[Path] = (),
        jobs: bool = False,
    ) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        own = token if guarded else {"RAY_AUTH_MODE": "disabled"}
        own |= {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0"} if links else {}
        super().__init__([Shape(cpus)] * nodes, own={**own, **(environment or {})}, isolated=isolated, jobs=jobs)
        self.cpus, self.links, self._apart = cpus, links, apart
        self._switch: Switch | None = None
        self._drivers: list[subprocess.Popen[Any]] = []

    def start(self) -> Self:
        """Start the head, then all nodes at once.

        Raises:
            BadInput: `links` is asked for where links cannot be cut.
            RunFailed: a node did not start.
        """
        if self.links:
            links.require_cut()
        return super().start()

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs `command` on the head, where drivers belong."""
        before = inside(self.head.pid) if self.links else []
        if self.takes_jobs and self.head.alone:
            before = ["nsenter", f"--target={self.head.pid}", "--all", "--"]
        return [*before, *map(str, command)]

    def run(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a driver; options are those of `subprocess.Popen`, `env` being added to `environment`."""
        environment = {**self.environment, **options.pop("env", {})}
        driver = subprocess.Popen(self.command(command), env=environment, **options)
        self._drivers.append(driver)
        return driver

    def add_node(self) -> Node:
        """Start one more node, and wait until it is there."""
        return self.add(Shape(self.cpus))

    def kill_head(self) -> None:
        """End everything on the head at once: Ray's memory of its jobs, and what leads them."""
        self.head.end()

    def replace_head(self) -> None:
        """End the head at once, and start another that takes jobs at the same address and knows nothing.

        The nodes stay the lost head's, and find out by and by; `add_node` adds to the new one.
        """
        self.head.close()
        self._begin_head()

    def stop_node(self, number: int) -> None:
        """Stop every process of a node (SIGSTOP)."""
        self._signal(number, signal.SIGSTOP, "stopped")

    def continue_node(self, number: int) -> None:
        """Let a stopped node go on (SIGCONT)."""
        self._signal(number, signal.SIGCONT, "up")

    def freeze(self, all_of_it: bool = False) -> None:
        """Stop the head's side: the drivers and the actors beside them, or everything on the head."""
        for pid in self._on_head(all_of_it):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the head go on (SIGCONT)."""
        for pid in self._on_head(all_of_it=True):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @property
    def switch(self) -> Switch:
        """Where links fail.

        Raises:
            BadInput: the cluster has none.
        """
        if self._switch is None:
            fact = "the links of this cluster cannot be touched"
            raise BadInput(fact, "its nodes share one network", "Start it with links=True.")
        return self._switch

    def cut(self, *which: int) -> None:
        """Cut the links of nodes: nothing arrives any more, and no connection is closed."""
        self._link(which, up=False)

    def restore(self, *which: int) -> None:
        """Mend the links of nodes."""
        self._link(which, up=True)

    def _prepare(self) -> None:
        if self.links:
            self._switch = Switch()
            self._switch.open()

    def _clear(self) -> None:
        if self._switch is not None:
            self._switch.close()
            self._switch = None

    def _launch(self, number: int, shape: Shape) -> Node:
        # Else the head needs no PID namespace: it is never killed, and drivers, which are outside, must find it.
        machine = number != HEAD or self.takes_jobs
        apart = isolation() if self.isolated and machine else ()
        if self._apart and machine and not apart:
            raise BadInput("nodes cannot be kept apart", "no namespace can be made here", "Run this as root.")
        folder = self._folder_of(number)
        home = str(folder / "home")
        own = {"HOME": home, "TMPDIR": home, "HEADWAY_CACHE": f"{home}/cache"} if self._apart else {}
        hidden = self._apart if machine else ()
        node = launch(number, folder, apart, self.links, hidden, {**self._environment_of(shape), **own})
        if self._switch is not None:
            wait_for_namespace(node.process.pid)
            node.ip = self._switch.plug_in(number, node.process.pid)
        else:
            node.ip = address_of(number)
        return node

    def _bare(self, node: Node) -> bool:
        return self.takes_jobs and node.alone

    def _host(self, head: Node) -> str:
        return head.ip if self.links else super()._host(head)

    @property
    def _port(self) -> int:
        if self.links:  # a head on a link has all ports for itself
            return int(self.jobs.rpartition(":")[2] or 8265)
        return super()._port

    def _signal(self, number: int, sent: signal.Signals, state: str) -> None:
        node = self._node(number)
        if node.state == "down":
            return
        node.signal(sent)
        node.state = state

    def _link(self, which: Sequence[int], up: bool) -> None:
        switch = self.switch
        for node in [self._node(number) for number in which]:
            if node.state != "down":  # its cable went with it
                switch.set_link(node.number, up)
                node.state = "up" if up else "cut"

    def _on_head(self, all_of_it: bool) -> list[int]:
        living = [driver.pid for driver in self._drivers if driver.returncode is None]
        drivers = [pid for driver in living for pid in {driver, *session_of(driver)}]
        return drivers + [pid for pid in self.head.processes() if all_of_it or _is_actor(pid)]


def _is_actor(pid: int) -> bool:
    """Whether a process is one that Ray runs user code in, which it shows in its name."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False
