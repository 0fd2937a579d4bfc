"""Ray's autoscaler, our provider and agent, and a training run, on a cloud whose machines are namespaces."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.ray.conftest import Project, project
from tests.ray.fire import EPOCH_STEPS, Fire
from tests.waiting import until

from headway.cluster import file
from headway.core.news import News
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.cluster import CloudCluster
from headway.testing.cloud.goods import RECLAIMED, Offer
from headway.testing.inside import ENVIRONMENT
from headway.testing.links import cut_possible

__all__ = ["project"]  # the fixture

WHY_NOT = cut_possible()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(WHY_NOT is not None, reason=f"the test cloud needs networks of its own: {WHY_NOT}"),
]

FILE = """\
cluster_name: t
max_workers: 3
idle_timeout_minutes: 0.1
provider:
  type: test-cloud
  headway: {notices: aws}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, one_of: [{type: m, zone: a}]}
  worker:
    max_workers: 3
    resources: {CPU: 1}
    one_of:
      - {type: c, zone: a, spot: true, price_per_hour: 0.3}
      - {type: c, zone: b, spot: true, price_per_hour: 0.4}
"""
OFFERS = [
    Offer("m", "a", 0.1, None, boot_s=0.1),
    Offer("c", "a", 1.0, 0.3, capacity=1, boot_s=1.0),
    Offer("c", "b", 1.0, 0.4, boot_s=1.0),
]
EPOCHS, BRAKE_S = 16, 1.0
"""Half an hour of work while the brake is on: a second machine pays even where one takes minutes to come."""
NOTICE_S = 30.0
PATIENCE_S = 240.0
"""Nothing here takes so long, but on a machine that is busy with other things."""
WORK = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1)
def machine():
    import os
    return os.environ["RAY_CLOUD_INSTANCE_ID"]
print(ray.get(machine.remote()))
"""
OWNER = """
import sys, time
from headway.cluster import file
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.cluster import CloudCluster
from headway.testing.cloud.goods import Offer
offers = [Offer("m", "a", boot_s=0.1), Offer("c", "a", boot_s=0.1), Offer("c", "b")]
with CloudCluster(file.load(sys.argv[1]), Cloud(offers)) as cluster:
    while not (cluster.nodes and cluster.nodes[0].node_id):
        time.sleep(0.05)
    print(*cluster.processes(), flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    return Cloud(OFFERS)


@pytest.fixture(scope="module")
def cluster(cloud: Cloud) -> Iterator[CloudCluster]:
    with CloudCluster(file.parse(Path("cluster.yaml"), FILE), cloud, environment=ENVIRONMENT) as cluster:
        yield cluster


def workers(cluster: CloudCluster) -> list[str]:
    """Machines that cost, but the head's."""
    return [machine for machine in cluster.cloud.left("t") if machine != cluster.head_machine.id]


def news(cluster: CloudCluster) -> News:
    """As `cluster status` reads them."""
    return cluster.news() or News()


def waits(condition: Callable[[], object], what: str) -> None:
    until(condition, what, PATIENCE_S)


def test_a_run_brings_its_machines_and_loses_none_of_its_work_with_them(
    cluster: CloudCluster, cloud: Cloud, project: Project, tmp_path: Path
) -> None:
    assert workers(cluster) == []
    with Fire(cluster, project, tmp_path, {"max": 2}, brake=BRAKE_S, epochs=EPOCHS) as fire:
        fire.wait(lambda: len(fire.members()) == 2, "two train", PATIENCE_S)  # the second once it is known that it pays
        bought = [vm for vm in cloud.machines if vm.cluster == "t"][1:3]
        assert [vm.option.zone for vm in bought] == ["a", "b"]  # the cheaper has one
        assert fire.events("generation")[0]["workers"] == 1

        first = fire.node_of(fire.members()[0]).number
        cluster.reclaim(first, NOTICE_S)
        drained = fire.wait_for_recovery("drained")
        assert drained["node_id"] == cluster.nodes[first].node_id
        gone = cluster.machine(first)
        assert gone.deadline is not None
        assert drained["resumed_at"] < gone.deadline
        fire.wait(lambda: len(fire.members()) == 2, "it was replaced", PATIENCE_S)

        cluster.kill_node(fire.node_of(fire.members()[-1]).number)
        fire.wait_for_recovery("node_died")
        fire.wait(lambda: len(fire.members()) == 2, "so was the one that failed", PATIENCE_S)
        report = fire.end()
    assert (report.state, report.message) == ("finished", ""), fire.said
    assert [step["step"] for step in fire.run.steps()] == list(range(EPOCHS * EPOCH_STEPS))
    assert not fire.repeated
    waits(lambda: gone.gone_at is not None, "the machine that was taken back is gone")
    assert gone.why in (RECLAIMED, "terminated")  # Ray may have given it back before, when nothing ran on it
    waits(lambda: workers(cluster) == [], "machines that idle are given back")


def test_capacity_that_ends_is_told_and_is_used_once_it_is_back(cluster: CloudCluster, cloud: Cloud) -> None:
    cloud.refuse(reason="InsufficientInstanceCapacity")
    before = len(cloud.log)
    driver = cluster.run([sys.executable, "-c", WORK, cluster.address], stdout=subprocess.PIPE, text=True)
    try:
        waits(lambda: "worker" in news(cluster).waiting, "it is told what is waited for")
        waiting = news(cluster).waiting["worker"]
        assert waiting.machines == 1
        assert "c in a spot: capacity" in waiting.reason
        assert "c in b spot: capacity" in waiting.reason
        assert "InsufficientInstanceCapacity" in waiting.reason
        cloud.sell()
        out, _ = driver.communicate(timeout=PATIENCE_S)
    finally:
        cloud.sell()
        driver.kill()
        driver.communicate()
    (machine,) = out.split()
    assert cloud.machines[-1].id == machine
    asked = [each for each in cloud.log[before:] if each.verb == "launch"]
    assert {each.answer for each in asked[:2]} == {"capacity: InsufficientInstanceCapacity"}
    assert news(cluster).waiting == {}
    assert any(machine in event.text for event in news(cluster).events)


def test_what_is_taken_down_is_gone(cluster: CloudCluster, cloud: Cloud) -> None:
    assert cluster.down().nothing
    assert cloud.left("t") == []
    waits(lambda: cluster.processes() == [], "nothing runs any more")
    assert all(vm.gone_at is not None for vm in cloud.machines)


def test_nothing_outlives_whoever_owns_the_cloud(tmp_path: Path) -> None:
    one = tmp_path / "cluster.yaml"
    one.write_text(FILE.replace("    max_workers: 3\n", "    min_workers: 1\n    max_workers: 3\n"))
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(one)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        running = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(running) > 4
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    waits(lambda: not [pid for pid in running if alive(pid)], "all has ended with its owner")


def alive(pid: int) -> bool:
    """Whether a process is there, and is no corpse."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
