"""The local cluster of drills: its nodes come, go, stop and are cut off, and nothing of it outlives its owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ray.conftest import wait_until

from headway.cluster.local.processes import belonging_to, isolation, numbers
from headway.errors import BadInput
from headway.testing.cluster import Cluster
from headway.testing.links import cut_possible
from headway.testing.network.switch import HEAD

pytestmark = [pytest.mark.ray, pytest.mark.slow]

DRIVER = """
import json, os, sys, time, ray
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
class Worker:
    def where(self):
        return ray.get_runtime_context().get_node_id(), os.getpid(), ray.util.get_node_ip_address()

    def daemon(self, file):
        # Fork twice and leave the session: nobody's child, and of nobody's group.
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                open(file, "w").write(str(os.getpid()))
                time.sleep(600)
            os._exit(0)

workers = [Worker.remote() for _ in range(int(sys.argv[2]))]
if len(sys.argv) > 3:
    ray.get(workers[0].daemon.remote(sys.argv[3]))
print(json.dumps(ray.get([worker.where.remote() for worker in workers])), flush=True)
sys.stdin.read()
os._exit(0)
"""


class Drivers:
    """Drivers that place a worker on every node, and stay until told to end."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def place(self, cluster: Cluster, workers: int, *more: str) -> list[tuple[str, int, str]]:
        """Node id, process id here and address of each worker."""
        command = [sys.executable, "-c", DRIVER, cluster.address, str(workers), *more]
        process = cluster.run(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        placed = json.loads(process.stdout.readline())
        return [(node_id, cluster.process_of(node_id, pid), ip) for node_id, pid, ip in placed]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def drivers() -> Iterator[Drivers]:
    found = Drivers()
    yield found
    found.end()


def running(pid: int) -> bool:
    """Whether a process lives; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_nodes_come_and_go_and_nothing_is_left(drivers: Drivers) -> None:
    with Cluster(2) as cluster:
        folder, ids = cluster._folder, [node.node_id for node in cluster.nodes]
        assert cluster.alive() == set(ids)
        placed = drivers.place(cluster, 2)
        assert {node_id for node_id, _, _ in placed} == set(ids)  # a node holds one worker, the head none
        assert len({ip for _, _, ip in placed}) == 2
        pids = {node_id: pid for node_id, pid, _ in placed}
        assert set(pids.values()) <= set(cluster.processes())

        added = cluster.add_node()
        wait_until(lambda: added.node_id in cluster.alive(), "the added node is seen")
        cluster.kill_node(0)
        assert not running(pids[ids[0]])
        assert running(pids[ids[1]])
        wait_until(lambda: ids[0] not in cluster.alive(), "the killed node is missed", 30)

        cluster.stop_node(1)
        state = Path(f"/proc/{pids[ids[1]]}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the worker is stopped")
        cluster.continue_node(1)
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] != "T", "the worker goes on")
        with pytest.raises(BadInput, match="node=7 is not in the cluster"):
            cluster.kill_node(7)
        with pytest.raises(BadInput, match=r"links of this cluster cannot be touched.*links=True"):
            cluster.cut(1)
        everything = cluster.processes()
        assert len(everything) > 8
    assert not [pid for pid in everything if running(pid)]
    assert not folder.exists()


def test_a_killed_node_takes_a_daemon_along_that_left_its_session(drivers: Drivers, tmp_path: Path) -> None:
    if not isolation():
        pytest.skip("no PID namespaces can be made here; nodes are sessions")
    with Cluster(1) as cluster:
        node = cluster.nodes[0]
        ((_, worker, _),) = drivers.place(cluster, 1, str(tmp_path / "daemon"))
        assert worker in node.processes()
        assert len(numbers(worker)) == len(numbers(node.pid)) == len(numbers(1)) + 1
        assert numbers(node.pid)[-1] == 1  # as init on a machine
        wait_until(lambda: (tmp_path / "daemon").exists() and (tmp_path / "daemon").read_text(), "the daemon runs")
        daemon = node.process_of(int((tmp_path / "daemon").read_text()))
        assert daemon is not None
        before = node.processes()
        assert {daemon, worker} < set(before)
        assert os.getsid(daemon) != os.getsid(worker)  # to kill the node's session would have spared it
        cluster.kill_node(0)
        assert not any(running(pid) for pid in before)
        assert node.processes() == []


def test_the_heads_side_stands_still_and_goes_on(drivers: Drivers) -> None:
    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    with Cluster(1) as cluster:
        ((_, worker, _),) = drivers.place(cluster, 1)
        driver, head = drivers.processes[0].pid, cluster._head.pid
        cluster.freeze()
        wait_until(lambda: state(driver) == "T", "the driver stands still")
        assert state(head) != "T"
        cluster.thaw()
        wait_until(lambda: state(driver) != "T", "the driver goes on")
        cluster.freeze(all_of_it=True)
        everything = [driver, *belonging_to(head)]
        assert len(everything) >= 4  # GCS and raylet among them
        wait_until(lambda: {state(pid) for pid in everything} == {"T"}, "the head stands still")
        assert state(worker) != "T"
        cluster.thaw()
        wait_until(lambda: "T" not in {state(pid) for pid in everything}, "the head goes on")
        assert cluster.alive() == {cluster.nodes[0].node_id}


def test_a_drained_node_goes_down_at_the_deadline(drivers: Drivers) -> None:
    with Cluster(1) as cluster:
        node_id, pid, _ = drivers.place(cluster, 1)[0]
        cluster.drain_node(0, 2.0)
        assert running(pid)  # Ray lets it work until the deadline
        wait_until(lambda: not running(pid), "the worker is gone", 20)
        wait_until(lambda: node_id not in cluster.alive(), "the node is gone", 30)


def test_a_cluster_ends_with_its_owner() -> None:
    owner = (
        "import sys\nfrom headway.testing.cluster import Cluster\n"
        "with Cluster(1) as cluster:\n    print(cluster._head.pid, cluster.nodes[0].pid, cluster._folder, flush=True)\n"
        "    sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", owner], **pipes) as process:
        *pids, folder = process.stdout.readline().split()
        leaders = [int(pid) for pid in pids]
        everything = [pid for leader in leaders for pid in belonging_to(leader)]
        assert len(everything) > 5
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(running(pid) for pid in everything), "the cluster is gone", 20)
    assert not Path(folder).exists()


def test_a_cut_link_is_silent_and_can_be_mended(drivers: Drivers) -> None:
    reason = cut_possible()
    if reason is not None:
        pytest.skip(f"links cannot be cut here: {reason}")
    with Cluster(2, links=True) as cluster:
        placed = drivers.place(cluster, 2)
        assert sorted(ip for _, _, ip in placed) == sorted(node.ip for node in cluster.nodes)
        other = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
        host, _, port = cluster.address.rpartition(":")

        def reaches_head() -> bool:
            inside = ["nsenter", f"--net=/proc/{cluster.nodes[1].pid}/ns/net", "--", sys.executable, "-c", other]
            return subprocess.run([*inside, host, port], capture_output=True).returncode == 0

        wait_until(reaches_head, "the link carries", 10)
        cluster.cut(1)
        assert not reaches_head()
        assert all(running(pid) for _, pid, _ in placed)  # nobody was told
        cluster.restore(1)
        wait_until(reaches_head, "the link is back", 10)
        cluster.switch.set_link(HEAD, up=False)
        assert not reaches_head()
        cluster.switch.set_link(HEAD, up=True)
        wait_until(reaches_head, "the head's link is back", 10)
        cluster.kill_node(0)
        cluster.cut(0, 1)  # what is down has no link
        assert [node.state for node in cluster.nodes] == ["down", "cut"]
        wait_until(lambda: cluster.nodes[1].node_id not in cluster.alive(), "the node is missed", 30)


def test_where_links_cannot_be_cut_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert cut_possible() is not None
    with pytest.raises(BadInput, match=r"cannot be cut on this machine.*leave out `cut`"):
        Cluster(1, links=True).start()
