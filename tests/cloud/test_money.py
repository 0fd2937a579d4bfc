"""A budget and a deadline on a cloud: held while spot machines come and go; and a run whose money is spent."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.ray.conftest import Project, wait_until
from tests.ray.conftest import project as project
from tests.ray.fire import Fire

from headway.cluster import file
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.cluster import CloudCluster
from headway.testing.cloud.goods import VM, Offer
from headway.testing.inside import ENVIRONMENT
from headway.testing.links import cut_possible

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]

SPOT, ON_DEMAND = 36.0, 120.0
"""Dollars per hour: cents a second."""
DEADLINE_S = 480.0
AWAY_S = 30.0
"""So long no spot machine is to be had."""
BUDGET = 30.0
CLUSTER = f"""
cluster_name: money
max_workers: 4
idle_timeout_minutes: 0.1
provider: {{type: test-cloud}}
head_node_type: head
available_node_types:
  head: {{max_workers: 0, resources: {{CPU: 0}}, one_of: [{{type: m, zone: a, price_per_hour: 0.1}}]}}
  worker:
    max_workers: 4
    resources: {{CPU: 1}}
    one_of:
      - {{type: c, zone: a, spot: true, price_per_hour: {SPOT}}}
      - {{type: c, zone: a, price_per_hour: {ON_DEMAND}}}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CloudCluster]:
    if (why := cut_possible()) is not None:
        pytest.skip(why)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    cloud = Cloud([Offer("m", "a", 0.1, None, boot_s=0.5), Offer("c", "a", ON_DEMAND, SPOT, boot_s=1.0)], quota=None)
    with CloudCluster(file.load(str(tmp_path / "cluster.yaml")), cloud, environment=ENVIRONMENT) as cluster:
        yield cluster


def bought(cluster: CloudCluster) -> list[VM]:
    return [vm for vm in cluster.cloud.machines if vm.option.type == "c"]


def nothing_is_left(cluster: CloudCluster) -> None:
    """But the head."""
    wait_until(lambda: all(vm.gone_at is not None for vm in bought(cluster)), "idle machines are given back", 120.0)


@pytest.mark.long
def test_both_are_held_while_spot_machines_come_and_go(cluster: CloudCluster, project: Project, tmp_path: Path) -> None:
    cloud = cluster.cloud
    budget = {"usd": BUDGET, "usd_per_hour": 250.0}
    more = {"arguments": {"pause": 0.1}, "budget": budget, "deadline": DEADLINE_S}

    def markets() -> list[int]:
        return [event["on_demand"] for event in fire.events("policy")]

    def reclaim() -> None:
        """Have the spot machine taken, and no other to be had."""
        cloud.refuse(type="c", spot=True)
        spots = [vm for vm in bought(cluster) if vm.option.spot and vm.gone_at is None]
        for vm in spots:
            cloud.reclaim(vm.id, 3.0)

    with Fire(cluster, project, tmp_path, workers={"min": 1, "max": 1}, brake=0.0, epochs=12, **more) as fire:
        fire.wait(lambda: fire.step >= 8, "some steps on a spot machine")
        (first,) = bought(cluster)
        assert first.option.spot, "spot while there is slack"
        reclaim()
        gone_at = time.monotonic()
        fire.wait(lambda: markets()[-1] == 1 or time.monotonic() - gone_at > AWAY_S, "it waits, or is on demand")
        cloud.sell()
        before = fire.step
        fire.wait(lambda: fire.step >= before + 20, "it goes on, on either")
        reclaim()
        report = fire.end(DEADLINE_S)
        assert report.state == "finished", fire.said[-3000:]
        facts = fire.run.read()
        assert facts["ended"] - facts["created"] < DEADLINE_S
        assert (markets()[0], 1 in markets()) == (0, True), "spot while there is slack, on demand when there is none"
        assert all(event["reason"] for event in fire.events("policy"))
    spots = [vm.option.spot for vm in bought(cluster)]
    assert (spots[0], False in spots) == (True, True)
    nothing_is_left(cluster)
    assert cluster.cloud.dollars() < BUDGET


@pytest.mark.long
def test_a_run_whose_money_is_spent_saves_itself_and_goes_on_with_more(
    cluster: CloudCluster, project: Project, tmp_path: Path
) -> None:
    usd = 2.0
    keys = {"workers": {"min": 1, "max": 1}, "epochs": 30, "budget": {"usd": usd}}
    with Fire(cluster, project, tmp_path, brake=0.1, **keys) as fire:
        wait_until(lambda: fire.process.poll() is not None, "its money is spent", 600.0)
        assert fire.process.returncode == 4, fire.said[-3000:]
        assert "--set budget.usd=4" in fire.said
        (end,) = fire.events("end")
        assert end["state"] == "stopped"
        assert end["message"].startswith("its budget of 2 dollars is spent after step ")
        assert [event["about"] for event in fire.events("foreseen")] == ["money"], "it was said beforehand"
        nothing_is_left(cluster)
        assert cluster.cloud.dollars() < usd
        (tmp_path / "brake").unlink()
        fire.resume("budget.usd=100000")
        report = fire.end(300.0)
        assert report.state == "finished", fire.said[-3000:]
        nothing_is_left(cluster)
    quiet = tmp_path / "quiet.yaml"
    quiet.write_text(yaml.safe_dump({**yaml.safe_load((tmp_path / "job.yaml").read_text()), "budget": None}))
    command = [
        sys.executable,
        "-m",
        "headway.cli.app",
        "train",
        str(quiet),
        "--address",
        "local",
        "--json",
        "--name",
        "quiet",
    ]
    done = subprocess.run([*command, "--runs", str(tmp_path)], capture_output=True, text=True, check=True, timeout=300)
    assert report.weights_sha256 == json.loads(done.stdout)["weights_sha256"]
