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


def test_training_on_it(cluster: Any, project: Project, headway: Callable[..., Command]) -> None:
    embedded = headway("train", project.job, "--set", "steps=12", "--set", "epochs=null", "--json").report()
    for _ in range(2):  # the second time shows that the first left nothing in the way
        command = [
            "train",
            project.job,
            "--address",
            cluster.address,
            "--set",
            "workers.min=3",
            "--set",
            "workers.max=3",
        ]
        report = headway(*command, "--set", "steps=12", "--set", "epochs=null", "--json").report()
        assert report["state"] == "finished"
        assert report["samples_sha256"] == embedded["samples_sha256"]
        assert report["losses"] == pytest.approx(embedded["losses"], abs=1e-3)
        assert report["workers"][0]["workers"] == 3


def test_no_cluster_there(project: Project, headway: Callable[..., Command], free_port: int, tmp_path: Path) -> None:
    code, _, err = headway("train", project.job, "--address", f"127.0.0.1:{free_port}").end()
    assert code == 2
    assert "no Ray cluster answers there" in err
    assert not list(tmp_path.glob("runs/*"))
