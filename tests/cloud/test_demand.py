"""What a run asks of a cloud: min at once, more as far as it pays, what somebody asks for, and less when it is less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ray.conftest import Project
from tests.ray.conftest import project as project
from tests.ray.fire import Fire

from headway import jobs
from headway.cluster import file
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.cluster import CloudCluster
from headway.testing.cloud.goods import VM, Offer
from headway.testing.inside import ENVIRONMENT
from headway.testing.links import cut_possible

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

CLUSTER = """
cluster_name: demand
max_workers: 4
idle_timeout_minutes: 0.1
provider: {type: test-cloud}
head_node_type: head
available_node_types:
  head: {max_workers: 0, resources: {CPU: 0}, one_of: [{type: m, zone: a, price_per_hour: 0.1}]}
  worker:
    max_workers: 4
    resources: {CPU: 1}
    one_of: [{type: c, zone: a, spot: true, price_per_hour: 0.3}]
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[CloudCluster]:
    if (why := cut_possible()) is not None:
        pytest.skip(why)
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    cloud = Cloud([Offer("m", "a", 0.1, None, boot_s=0.5), Offer("c", "a", 1.0, 0.3, boot_s=1.0)], quota=None)
    with CloudCluster(file.load(str(tmp_path / "cluster.yaml")), cloud, environment=ENVIRONMENT) as cluster:
        yield cluster


@pytest.mark.long
def test_a_run_buys_what_it_needs_at_once_then_what_pays_and_gives_it_back(
    cluster: CloudCluster, project: Project, tmp_path: Path
) -> None:
    def bought() -> list[VM]:
        return [vm for vm in cluster.cloud.machines if vm.option.type == "c"]

    workers = {"min": 1, "max": 3}  # of 4 lanes: a third is no faster than two
    with Fire(cluster, project, tmp_path, workers=workers, brake=0.5, epochs=12) as fire:
        run = str(fire.run.path)
        fire.wait(lambda: bought() and fire.step >= 0, "the first step")
        assert len(bought()) == 1, "min at once, and no more before it is known what a step takes"
        fire.wait_for_members(2)
        (told, *_) = fire.events("demand")[-1:]
        assert (told["workers"], told["reason"]) == (2, "more than 2 workers are no faster with 4 lanes")
        assert len(bought()) == 2

        assert jobs.resize(run, 3).heard
        fire.wait_for_members(3)
        assert len(bought()) == 3, "somebody said so"

        assert jobs.resize(run, 1).heard
        fire.wait_for_members(1)
        fire.wait(lambda: len([vm for vm in bought() if vm.gone_at is None]) == 1, "idle machines are given back")
        fire.end()
    assert len(bought()) == 3, "nobody was bought in vain"
