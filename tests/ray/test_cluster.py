"""An existing cluster of two nodes: the command line joins it, trains on both, and leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Command, Project

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    yield cluster
    cluster.shutdown()


@pytest.mark.long
def test_training_on_it(cluster: Any, project: Project, headway: Callable[..., Command]) -> None:
    reports = []
    for workers in (3, 1):  # the second time shows that the first left nothing in the way
        size = [f"workers.min={workers}", f"workers.max={workers}", "steps=12", "epochs=null"]
        command = ["train", project.job, "--address", cluster.address, "--json"]
        report = headway(*command, *(part for setting in size for part in ("--set", setting))).report()
        assert report["state"] == "finished"
        assert [each["workers"] for each in report["workers"]] == [workers]
        reports.append(report)
    wide, alone = reports
    assert wide["samples_sha256"] == alone["samples_sha256"]
    assert wide["weights_sha256"] == alone["weights_sha256"]


def test_no_cluster_there(project: Project, headway: Callable[..., Command], free_port: int, tmp_path: Path) -> None:
    code, _, err = headway("train", project.job, "--address", f"127.0.0.1:{free_port}").end()
    assert code == 2
    assert "no Ray cluster answers there" in err
    assert not list(tmp_path.glob("runs/*"))
