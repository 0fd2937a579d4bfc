"""The image recipe from s3://, through faults of the service and the loss of a node: the same weights as from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from tests.ray.conftest import Project
from tests.ray.fire import Fire

from headway.data import tensors
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.report import Report
from headway.testing.cluster import Cluster
from headway.testing.faults import Fault
from headway.testing.inside import ENVIRONMENT
from headway.testing.s3 import KEYS, S3, Faults

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

RECIPE = Path(__file__).parents[2] / "trainers" / "image_classification"
ROWS, GROUP, STEPS = 2000, 32, 80


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The recipe's folder, on small images whose brightest row says the label."""
    folder = tmp_path_factory.mktemp("recipe")
    for part, rows in (("train", ROWS), ("test", 200)):
        random = np.random.default_rng(rows)
        labels = random.integers(0, 10, rows)
        images = random.integers(0, 60, (rows, 28, 28), dtype=np.uint8)
        images[np.arange(rows), 2 * labels] += 150
        table = pa.table({"image": tensors.column(images), "label": labels})
        write_dataset(folder / part, [table], name=part, source="test", label="label", sizes=Sizes(GROUP, 8 * GROUP))
    tree = yaml.safe_load((RECIPE / "job.yaml").read_text())
    tree |= {"task": f"{RECIPE / 'task.py'}:ImageClassification", "steps": STEPS, "evaluate_every_steps": STEPS}
    tree |= {"checkpoint": {"every_steps": 20}, "tracking": {"enabled": False}}
    tree["data"] = {"train": "train", "validation": "test"}
    (folder / "job.yaml").write_text(yaml.safe_dump(tree))
    return Project(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # No networks of their own: the nodes speak to the service on this machine's loopback.
    with Cluster(2, environment={**ENVIRONMENT, **KEYS}) as cluster:
        yield cluster


def run(cluster: Cluster, project: Project, folder: Path, faults: list[Fault], **data: Any) -> tuple[Report, Fire]:
    folder.mkdir()
    tree = project.tree()["data"] | data
    most = {"min": 1, "max": 2}
    with Fire(cluster, project, folder, most, brake=0.0, epochs=None, data=tree) as fire:  # type: ignore[arg-type]
        if faults:
            fire.inject(faults)
        return fire.end(), fire


@pytest.mark.long
def test_same_weights_from_s3_through_faults_and_the_loss_of_a_node(
    cluster: Cluster, recipe: Project, tmp_path: Path
) -> None:
    quiet, said = run(cluster, recipe, tmp_path / "quiet", [])
    assert (quiet.state, quiet.steps) == ("finished", STEPS), said.said
    with S3() as s3:
        places = {part: s3.put("bucket", part, recipe.folder / part) for part in ("train", "test")}
        s3.faults = Faults(latency_s=0.02, busy=0.1, reset=0.05, cut=0.05, seed=1)
        found, fire = run(
            cluster,
            recipe,
            tmp_path / "s3",
            [Fault("kill", "node", step=30, which=(1,))],
            train=places["train"],
            validation=places["test"],
            store={"endpoint": s3.endpoint, "timeout_s": 5},
            cache={"folder": str(tmp_path / "cache"), "bytes": "64MiB"},
        )
        befallen = {kind: s3.counts[kind] for kind in ("busy", "reset", "cut")}
    assert (found.state, found.steps) == ("finished", STEPS), fire.said
    assert len(fire.events("recovery")) == 1
    assert all(befallen.values()), befallen
    assert list((tmp_path / "cache").glob("*/*.parquet"))
    assert found.samples_sha256 == quiet.samples_sha256
    assert found.weights_sha256 == quiet.weights_sha256
