"""A real cluster that wants a token: who is let in, what is said to the others, jobs, variables, names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Project
from tests.ray.head import Head, head

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PLATFORM = Path(__file__).parents[2] / "platform"

KNOCK = """
import sys, time
from headway.driver import attach
from headway.errors import BadInput
began = time.monotonic()
try:
    with attach.ray_for(sys.argv[1], 1, 2**20):
        print("IN")
except BadInput as error:
    print(error)
print(f"after {time.monotonic() - began:.1f} s", file=sys.stderr)
"""

TASK = """
import os

GIVEN = os.environ.get("HEADWAY_TEST_SECRET"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
assert GIVEN == ("at-import", "s3" + "cret")
import torch
from torch import nn
import headway


class Line(headway.Task):
    def model(self):
        return nn.Linear(64, 4)

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.01)

    def loss(self, model, batch):
        print("given", os.environ.get("PLAIN"), os.getcwd())
        return nn.functional.cross_entropy(model(batch["image"].flatten(1).float() / 255), batch["label"])
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with head() as found:
        yield found


def knock(cluster: Head, address: str | None = None, **environment: str) -> str:
    """What a driver is told that comes with this environment."""
    done = subprocess.run(
        [sys.executable, "-c", KNOCK, address or cluster.address],
        env=cluster.environment(PYTHONPATH=str(PLATFORM), **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    print(done.stderr)
    return done.stdout.strip()


def test_a_token_is_asked_for_by_name(cluster: Head) -> None:
    assert "the cluster wants a token, and there is none here" in knock(cluster)
    wrong = knock(cluster, RAY_AUTH_TOKEN="mistaken")
    assert "the cluster wants a token, and the one of RAY_AUTH_TOKEN is not its" in wrong
    assert "mistaken" not in wrong
    assert knock(cluster, RAY_AUTH_TOKEN=cluster.token) == "IN", "though RAY_AUTH_MODE is not set"
    token = cluster.folder / "token"
    token.write_text(cluster.token)
    assert knock(cluster, RAY_AUTH_TOKEN_PATH=str(token), RAY_ADDRESS="127.0.0.1:1") == "IN"
    assert knock(cluster, "auto", RAY_ADDRESS=cluster.address, **cluster.known) == "IN"


def test_other_ports_of_it_are_told_for_what_they_are(cluster: Head) -> None:
    told = knock(cluster, cluster.dashboard.removeprefix("http://"))
    assert "not the head of a Ray cluster" in told
    assert "takes jobs and shows its dashboard" in knock(cluster, cluster.dashboard)


def test_another_ray_is_told_by_its_version(cluster: Head) -> None:
    other = f"""
import json
from ray._raylet import GcsClient
client = GcsClient(address={cluster.address!r})
key, space = b"CLUSTER_METADATA", b"cluster"
true = client.internal_kv_get(key, space)
print(true.decode())
client.internal_kv_put(key, __import__("sys").argv[1].encode() or true, True, space)
"""

    def put(text: str) -> str:
        command = [sys.executable, "-c", other, text]
        environment = cluster.environment(**cluster.known)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    true = put("")
    put(json.dumps({**json.loads(true), "ray_version": "2.1.0"}))
    try:
        told = knock(cluster, **cluster.known)
    finally:
        put(true)
    assert "the cluster runs Ray 2.1.0, and this is Ray" in told


@pytest.fixture(scope="module")
def submitted(cluster: Head, project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run as `ray job submit --working-dir . -- headway train job.yaml` starts it, and what is seen of it."""
    import yaml

    folder = tmp_path_factory.mktemp("submitted")
    (folder / "line.py").write_text(TASK)
    tree = project.tree(task="line.py:Line", steps=4, epochs=None, reproducible="order")
    tree["env"] = {"HEADWAY_TEST_SECRET": None, "PLAIN": 7}
    tree["data"] = {"train": tree["data"]["train"]}
    (folder / "job.yaml").write_text(yaml.safe_dump(tree))
    secrets = {"HEADWAY_TEST_SECRET": "at-import", "MLFLOW_TRACKING_PASSWORD": "s3cret"}
    shell = " ".join(f"{name}={value}" for name, value in secrets.items())
    inner = f"env {shell} PYTHONPATH={PLATFORM} {sys.executable} -m headway.cli.app train job.yaml --name r"
    command = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", cluster.dashboard]
    command += ["--submission-id", "one", "--working-dir", ".", "--", "bash", "-c", inner]
    done = subprocess.run(
        command, cwd=folder, env=cluster.environment(**cluster.known), capture_output=True, text=True, timeout=280
    )
    return {"said": done.stdout + done.stderr, "code": done.returncode}


def test_a_run_in_a_ray_job(cluster: Head, submitted: dict[str, Any]) -> None:
    assert submitted["code"] == 0, submitted["said"]
    run = cluster.folder / "home" / "headway-runs" / "r"
    assert f"runs are kept in {run.parent}" in submitted["said"]
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert "given 7" in submitted["said"]
    assert "working_dir_files/_ray_pkg" in submitted["said"], "workers begin where the driver does"


def test_secrets_are_written_nowhere(cluster: Head, submitted: dict[str, Any]) -> None:
    run = cluster.folder / "home" / "headway-runs" / "r"
    written = [path for path in run.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert written == []
    assert "HEADWAY_TEST_SECRET: null" in (run / "job.yaml").read_text()
    for path in ("/api/jobs/", "/api/v0/actors?detail=1", "/api/v0/tasks?detail=1", "/logical/actors"):
        shown = cluster.asked(path).replace("MLFLOW_TRACKING_PASSWORD=s3cret", "")  # the entrypoint, as typed above
        assert "s3cret" not in shown, path


def test_the_dashboard_shows_the_run(cluster: Head, submitted: dict[str, Any]) -> None:
    actors = json.loads(cluster.asked("/api/v0/actors?detail=1"))["data"]["result"]["result"]
    names = {actor["name"] for actor in actors}
    assert {"headway:r:recorder", "headway:r:controller"} <= names
    assert len([name for name in names if name.startswith("headway:r:")]) >= 3
    jobs = json.loads(cluster.asked("/api/jobs/"))
    assert any((job.get("metadata") or {}).get("headway_run") == "r" for job in jobs), jobs
    train_runs = json.loads(cluster.asked("/api/train/v2/runs/v1"))["train_runs"]
    assert [(run["name"], run["status"]) for run in train_runs] == [("r", "FINISHED")]
