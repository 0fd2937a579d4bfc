"""What a run says that it cost, against what the test cloud charged: spot machines come, go, and change their price."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Project
from tests.ray.conftest import project as project
from tests.ray.fire import Fire

from headway.cluster import file
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.cluster import CloudCluster
from headway.testing.cloud.goods import VM, Offer
from headway.testing.inside import ENVIRONMENT
from headway.testing.links import cut_possible

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

CLUSTER = """
cluster_name: cost
max_workers: 3
idle_timeout_minutes: 0.1
provider: {type: test-cloud, headway: {notices: aws}}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, one_of: [{type: m, zone: a}]}
  worker:
    max_workers: 3
    resources: {CPU: 1}
    one_of:
      - {type: c, zone: a, spot: true, price_per_hour: 3.0}
      - {type: c, zone: b, spot: true, price_per_hour: 4.0}
"""
OFFERS = [
    Offer("m", "a", 1.0, None, boot_s=0.5),
    Offer("c", "a", 9.0, 3.0, capacity=1, boot_s=1.0),
    Offer("c", "b", 9.0, 4.0, boot_s=1.0),
]
PATIENCE_S = 240.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CloudCluster]:
    if (why := cut_possible()) is not None:
        pytest.skip(why)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    with CloudCluster(file.load(str(tmp_path / "cluster.yaml")), Cloud(OFFERS), environment=ENVIRONMENT) as cluster:
        yield cluster


def cost(fire: Fire) -> dict[str, Any]:
    """As `headway cost RUN --json` tells it."""
    command = [sys.executable, "-m", "headway.cli.app", "cost", str(fire.run.path), "--json"]
    done = fire.cluster.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, said = done.communicate(timeout=PATIENCE_S)
    assert done.returncode == 0, said
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_dollars_of_a_run_are_those_that_the_cloud_charged(
    cluster: CloudCluster, project: Project, tmp_path: Path
) -> None:
    cloud = cluster.cloud

    def bought() -> list[VM]:
        return [vm for vm in cloud.machines if vm.option.type == "c"]

    with Fire(cluster, project, tmp_path, {"min": 1, "max": 2}, brake=1.0, epochs=16) as fire:
        fire.wait(lambda: len(fire.members()) == 2, "two train", PATIENCE_S)
        cloud.reprice("c", "a", 6.0)  # while it runs
        cluster.reclaim(fire.node_of(fire.members()[0]).number, 5.0)
        fire.wait(lambda: len(bought()) >= 3 and len(fire.members()) == 2, "it was replaced", PATIENCE_S)
        cluster.kill_node(fire.node_of(fire.members()[-1]).number)
        fire.wait(lambda: len(bought()) >= 4 and len(fire.members()) == 2, "so was the one that failed", PATIENCE_S)
        cloud.reprice("c", "b", 2.0)
        fire.wait(lambda: any(each.get("per_hour") == 2.0 for each in fire.events("purchase")), "that is known")
        halfway = cost(fire)
        began = fire.events("start")[0]["time"]
        assert halfway["dollars"] == pytest.approx(cloud.charged("cost", began, halfway["at"]), rel=0.02)
        assert halfway["per_hour"] > 1.0, "the head and two machines"
        fire.end()
    ended = fire.events("end")[0]["time"]
    found, charged = cost(fire), cloud.charged("cost", began, ended)
    print(f"headway cost {found['dollars']:.5f}, the cloud {charged:.5f}: {found['dollars'] / charged - 1:+.3%}")
    print(json.dumps({name: found[name] for name in ("by_cause", "by_market", "wasted", "per_1000_steps")}))
    assert found["dollars"] == pytest.approx(charged, rel=0.01)
    assert sum(found["by_cause"].values()) == pytest.approx(found["dollars"], abs=1e-9)
    assert sum(each["dollars"] for each in found["machines"]) == pytest.approx(found["dollars"], abs=1e-5)
    by_id = {vm.id: vm for vm in cloud.machines}
    for each in found["machines"]:
        own = by_id[each["machine"]].between(began, ended)
        assert each["dollars"] == pytest.approx(own, rel=0.02, abs=2e-4), each
    assert {"start", "compute", "head"} <= set(found["by_cause"])
    assert fire.run.read()["dollars"] == pytest.approx(found["dollars"], rel=0.01)
    assert not found["shared"]
    assert found["unpriced"] == []
