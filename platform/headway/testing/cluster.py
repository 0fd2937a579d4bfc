"""Many machines on one: a Ray cluster whose nodes can be added, killed, stopped, drained and cut off.

with Cluster(nodes=3) as cluster:
    driver = cluster.run(["headway", "train", "job.yaml", "--address", cluster.address])
    cluster.kill_node(1)

The head carries no worker; every node is a raylet of its own, in a session of its own, on an address of its own, and
holds one worker. With `links=True` each node has a network namespace too, and its link can be cut. Nothing outlives the
cluster, even if its owner is killed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headway.errors import BadInput, HeadwayError, RunFailed
from headway.testing import links
from headway.testing.node import kill_session, session_of

STORE_BYTES = 80 * 2**20
PATIENCE_S = 60.0
HEALTH = {
    # Ray hears of a node that fell silent after about 6 s, not 30: drills are short, and machines do come back.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Node:
    """One machine. `state` is up, cut, stopped, or down."""

    number: int
    process: subprocess.Popen[str]
    folder: Path
    node_id: str = ""
    ip: str = ""
    state: str = "up"
    asking: threading.Lock = field(default_factory=threading.Lock)

    @property
    def pid(self) -> int:
        """Leader of the session that holds all the node's processes."""
        return self.process.pid

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order to the node's program, and wait for the answer."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        with self.asking:
            watch = threading.Timer(PATIENCE_S, self.process.kill)
            watch.start()
            try:
                stdin.write(json.dumps(order) + "\n")
                stdin.flush()
                line = stdout.readline()
            except OSError:
                line = ""
            finally:
                watch.cancel()
        if not line:
            said = (self.folder / "said").read_text(errors="replace").strip().splitlines()
            raise RunFailed(f"node {self.number} of the local cluster is gone", said[-1] if said else "it said nothing")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Cluster:
    """A local cluster; use it as a context manager.

    Args:
        nodes: how many to begin with, numbered from 0.
        cpus: of each node: as many as a worker of the job asks for, so that a node holds one worker.
        links: give every node a network of its own, so that its link can be cut; needs root and iproute2.
        guarded: ask drivers for a token, which `environment` holds. Ray's ports are open to the network otherwise; a
            driver in a process that has used Ray before needs False.
        environment: variables for the nodes and their workers, beside this process's own.
    """

    def __init__(
        self,
        nodes: int = 2,
        *,
        cpus: int = 1,
        links: bool = False,
        guarded: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes: list[Node] = []
        self.address = ""
        self.cpus, self.links = cpus, links
        self._first = nodes
        self._head: Node | None = None
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
            self._head = self._launch(-1)
            self.address = self._begin(self._head)["address"]
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

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs `command` on the head, where drivers belong."""
        before = links.inside(self._leader.pid) if self.links else []
        return [*before, *map(str, command)]

    def run(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Start a driver; options are those of `subprocess.Popen`, `env` being added to `environment`."""
        environment = {**self.environment, **options.pop("env", {})}
        return subprocess.Popen(self.command(command), env=environment, **options)

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
        node = self._node(number)
        if node.state == "down":  # its process id may be another's by now
            return
        node.state = "down"
        kill_session(node.pid)
        node.process.wait()

    def stop_node(self, number: int) -> None:
        """Stop every process of a node (SIGSTOP)."""
        self._signal(number, signal.SIGSTOP, "stopped")

    def continue_node(self, number: int) -> None:
        """Let a stopped node go on (SIGCONT)."""
        self._signal(number, signal.SIGCONT, "up")

    def cut(self, number: int) -> None:
        """Cut a node's link: nothing arrives any more, and no connection is closed."""
        self._link(number, up=False)

    def restore(self, number: int) -> None:
        """Mend a node's link."""
        self._link(number, up=True)

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
        sessions = [node.pid for node in [self._head, *self.nodes] if node is not None and node.state != "down"]
        return [pid for session in sessions for pid in session_of(session)]

    def close(self) -> None:
        """End the cluster and whatever runs on it; its folder goes too."""
        with self._lock:
            self._closed = True
        for timer in self._timers:
            timer.cancel()
        for node in [*self.nodes, self._head]:
            if node is not None:
                kill_session(node.pid)
                node.process.wait()
                node.state = "down"
                for pipe in (node.process.stdin, node.process.stdout):
                    if pipe is not None:
                        pipe.close()
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
        folder = self._folder / ("h" if number < 0 else f"n{number}")
        folder.mkdir()
        program = [sys.executable, "-P", str(Path(__file__).with_name("node.py"))]
        with (folder / "said").open("w") as said:
            process = subprocess.Popen(
                ["unshare", "--net", "--", *program] if self.links else program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
                env={**self.environment, **HEALTH},
            )
        node = Node(number, process, folder)
        if self.links:
            links.wait_for_namespace(process.pid)
            leader = process.pid if number < 0 else self._leader.pid
            node.ip = links.make_bridge(leader) if number < 0 else links.plug_in(leader, process.pid, number)
        else:
            node.ip = f"127.0.0.{number + 3}"
        return node

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
                "include_dashboard": False,
                "no_monitor": True,
                "min_worker_port": 0,
                "max_worker_port": 0,
                **({} if head else {"gcs_address": self.address}),
            }
        )
        node.node_id = found["node_id"]
        return found

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
        for pid in session_of(node.pid):
            os.kill(pid, sent)
        node.state = state

    def _link(self, number: int, up: bool) -> None:
        node = self._node(number)
        if not self.links:
            raise BadInput(
                f"the link of node {number} cannot be cut",
                "the cluster's nodes share one network",
                "Start it with links=True.",
            )
        links.set_link(self._leader.pid, number, up)
        node.state = "up" if up else "cut"
