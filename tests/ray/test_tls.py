"""A real cluster under mutual TLS, with a token beside it: who has no good certificate is told so, and stays out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ray.conftest import Project

from headway.cluster.certs import Authority
from headway.testing.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

KNOCK = """
import sys
from headway.driver import attach
from headway.errors import BadInput
try:
    with attach.ray_for(sys.argv[1], 1, 2**20):
        print("it is let in")
except BadInput as error:
    print(error)
"""
LOOPBACK = ["127.0.0.0/28"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.begin(tmp_path_factory.mktemp("certs"), "drill")


@pytest.fixture(scope="module")
def cluster(authority: Authority) -> Iterator[Cluster]:
    with Cluster(nodes=2, environment=authority.issue("all", LOOPBACK).environment) as found:
        yield found


def train(cluster: Cluster, project: Project, folder: Path, *more: str, **environment: str) -> tuple[int, str, str]:
    """`headway train` on it, by a driver that comes with these variables: its exit code, and what it said."""
    job = project.tree(epochs=None, steps=12, task=f"{project.folder}/digits.py:Digits")
    (folder / "job.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "headway.cli.app", "train", folder / "job.yaml", "--address", cluster.address]
    command += ["--runs", folder / "runs", "--json", *more]
    pipe = subprocess.PIPE
    driver = cluster.run(command, env=environment, stdout=pipe, stderr=pipe, text=True, cwd=folder)
    out, err = driver.communicate(timeout=240)
    return driver.returncode, out, err


@pytest.mark.long
def test_a_run_trains_loses_a_worker_and_goes_on(cluster: Cluster, project: Project, tmp_path: Path) -> None:
    both = ["--set", "workers.min=2"]  # else one may be steps ahead before the other has begun, on a busy machine
    code, out, err = train(cluster, project, tmp_path, *both, "--set", "arguments={trouble: die, rank: 1, at: 3}")
    assert code == 0, err
    report = json.loads(out)
    assert (report["state"], report["steps"]) == ("finished", 12)
    assert report["recoveries"][0]["cause"] != "joined"
    assert max(each["workers"] for each in report["workers"]) == 2


def test_a_driver_without_a_good_certificate_is_told_why_and_leaves_nothing(
    cluster: Cluster, project: Project, authority: Authority, tmp_path: Path
) -> None:
    """It has the cluster's token, each time but the last: then it has the certificate."""
    strange = Authority.begin(tmp_path / "other", "drill").issue("all", LOOPBACK)
    expired = authority.issue("old", LOOPBACK, days=-1)
    knocks = {
        "is of another authority": strange.environment,
        "has expired": expired.environment,
        "the cluster wants a token": {"RAY_AUTH_TOKEN": "mistaken"},
    }
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", KNOCK, cluster.address]
    under_way = [cluster.run(command, env=env, stdout=pipe, stderr=pipe, text=True) for env in knocks.values()]
    code, _, err = train(cluster, project, tmp_path, RAY_USE_TLS="0")
    assert code == 2, err
    assert "and there is none here" in err
    assert "Traceback" not in err
    assert list((tmp_path / "runs").glob("*")) == []
    for why, driver in zip(knocks, under_way, strict=True):
        out, err = driver.communicate(timeout=120)
        assert why in out, err
