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
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headway.cluster.local.machine import Node, launch
from headway.cluster.local.processes import isolation, session_of
from headway.errors import BadInput, HeadwayError, RunFailed
from headway.testing import links
from headway.testing.network.namespace import inside, wait_for_namespace
from headway.testing.network.switch import HEAD, Switch

STORE_BYTES = 80 * 2**20
HEALTH = {
    # Ray hears of a node that fell silent after about 6 s, not 30: drills are short, and machines do come back.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class Cluster:
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
        self.nodes: list[Node] = []
        self.address = ""
        self.jobs = ""
        self.cpus, self.links, self.isolated, self._apart = cpus, links, isolated, apart
        self._takes_jobs, self._heads = jobs, 0
        self._first = nodes
        self._head: Node | None = None
        self._switch: Switch | None = None
        self._drivers: list[subprocess.Popen[Any]] = []
        self._folder: Path | None = None
        self._timers: list[threading.Timer] = []
        self._lock = threading.Lock()
        self._closed = False
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._own = {"RAY_USAGE_STATS_ENABLED": "0", **(token if guarded else {"RAY_AUTH_MODE": "disabled"})}
        self._own |= {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0"} if links else {}
        self._own |= dict(environment or {})

    def start(self) -> Self:
        """Start the head, then all nodes at once.

        Raises:
            BadInput: `links` is asked for where links cannot be cut.
            RunFailed: a node did not start.
        """
        if self.links:
            links.require_cut()
        # A short path: it holds Unix sockets, whose names end at 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="hw-", dir="/tmp" if Path("/tmp").is_dir() else None))
        try:
            if self.links:
                self._switch = Switch()
                self._switch.open()
            self._begin_head()
            for node in [self._launch(number) for number in range(self._first)]:
                self.nodes.append(node)
            self._begin_all(self.nodes)
        except BaseException:  # whatever it was, no node outlives it
            self.close()
            raise
        return self

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a driver's process."""
        kept = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        return {**kept, **self._own}

    @property
    def token(self) -> str:
        """What drivers and those who submit jobs have to bring; empty where nobody is asked for one."""
        return self._own.get("RAY_AUTH_TOKEN", "")

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs `command` on the head, where drivers belong."""
        before = inside(self._leader.pid) if self.links else []
        if self._takes_jobs and self._leader.alone:
            before = ["nsenter", f"--target={self._leader.pid}", "--all", "--"]
        return [*before, *map(str, command)]

    def run(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a driver; options are those of `subprocess.Popen`, `env` being added to `environment`."""
        environment = {**self.environment, **options.pop("env", {})}
        driver = subprocess.Popen(self.command(command), env=environment, **options)
        self._drivers.append(driver)
        return driver

    def add_node(self) -> Node:
        """Start one more node, and wait until it is there."""
        with self._lock:
            if self._closed:
                raise BadInput("no node can be added", "the local cluster has been closed", "")
            node = self._launch(len(self.nodes))
            self.nodes.append(node)
        self._begin(node)
        return node

    def kill_node(self, number: int) -> None:
        """End everything on a node at once, as a machine that is switched off."""
        self._node(number).end()

    def kill_head(self) -> None:
        """End everything on the head at once: Ray's memory of its jobs, and what leads them."""
        self._leader.end()

    def replace_head(self) -> None:
        """End the head at once, and start another that takes jobs at the same address and knows nothing.

        The nodes stay the lost head's, and find out by and by; `add_node` adds to the new one.
        """
        self._leader.close()
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

    def drain_node(self, number: int, deadline_s: float) -> None:
        """Tell Ray that a node will go, as a cloud's notice does, and take it down at the deadline: Ray does not.

        Raises:
            RunFailed: Ray did not accept it.
        """
        answer = self._leader.ask({"drain": self._node(number).node_id, "deadline_s": deadline_s})
        if not answer["accepted"]:
            raise RunFailed(f"node {number} cannot be drained", answer["said"], "")
        self.after(deadline_s, lambda: self.kill_node(number))

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
        return set(self._leader.ask({"alive": True})["alive"]) - {self._leader.node_id}

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
        if self._switch is not None:
            self._switch.close()
            self._switch = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _leader(self) -> Node:
        if self._head is None:
            raise BadInput("the local cluster is not up", "it has not been started", "Use it in a with statement.")
        return self._head

    def _node(self, number: int) -> Node:
        if not 0 <= number < len(self.nodes):
            known = f"there are nodes 0 to {len(self.nodes) - 1}"
            raise BadInput(f"node={number} is not in the cluster", known, "Nodes are numbered from 0.")
        return self.nodes[number]

    def _launch(self, number: int) -> Node:
        """A process that will be a node when `_begin` tells it so; number -1 is the head."""
        assert self._folder is not None
        folder = self._folder / (f"h{self._heads}" if number < 0 else f"n{number}")
        folder.mkdir()
        # Else the head needs no PID namespace: it is never killed, and drivers, which are outside, must find it.
        machine = number != HEAD or self._takes_jobs
        apart = isolation() if self.isolated and machine else ()
        if self._apart and machine and not apart:
            raise BadInput("nodes cannot be kept apart", "no namespace can be made here", "Run this as root.")
        home = str(folder / "home")
        own = {"HOME": home, "TMPDIR": home, "HEADWAY_CACHE": f"{home}/cache"} if self._apart else {}
        hidden = self._apart if machine else ()
        node = launch(number, folder, apart, self.links, hidden, {**self.environment, **HEALTH, **own})
        if self._switch is not None:
            wait_for_namespace(node.process.pid)
            node.ip = self._switch.plug_in(number, node.process.pid)
        else:
            node.ip = f"127.0.0.{number + 3}"
        return node

    def _begin_head(self) -> None:
        self._head = self._launch(HEAD)
        self._heads += 1
        found = self._begin(self._head)
        self.address, self.jobs = found["address"], found["jobs"]

    def _begin(self, node: Node) -> dict[str, Any]:
        head = node.number < 0
        found = node.ask(
            {
                "head": head,
                "node_ip_address": node.ip,
                "num_cpus": 0 if head else self.cpus,
                "num_gpus": 0,
                "object_store_memory": STORE_BYTES,
                "temp_dir": str(node.folder),
                "include_log_monitor": False,
                "include_dashboard": head and self._takes_jobs,
                "dashboard_agent_listen_port": 0,
                "bare": self._takes_jobs and node.alone,
                "no_monitor": True,
                "min_worker_port": 0,
                "max_worker_port": 0,
                **({"dashboard_host": self._host(node), "dashboard_port": self._port} if head else {}),
                **({} if head else {"gcs_address": self.address}),
            }
        )
        node.node_id = found["node_id"]
        return found

    def _host(self, head: Node) -> str:
        """Where the head listens for jobs."""
        return head.ip if self.links else "127.0.0.1"

    @property
    def _port(self) -> int:
        """At which it does: the one of the head before this one, else any that is free."""
        if self.jobs or self.links:  # a head on a link has all ports for itself
            return int(self.jobs.rpartition(":")[2] or 8265)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def _begin_all(self, nodes: list[Node]) -> None:
        trouble: list[BaseException] = []

        def begin(node: Node) -> None:
            try:
                self._begin(node)
            except BaseException as error:  # raised again by the caller's thread
                trouble.append(error)

        threads = [threading.Thread(target=begin, args=(node,)) for node in nodes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if trouble:
            raise trouble[0]

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
        return drivers + [pid for pid in self._leader.processes() if all_of_it or _is_actor(pid)]


def _is_actor(pid: int) -> bool:
    """Whether a process is one that Ray runs user code in, which it shows in its name."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False
