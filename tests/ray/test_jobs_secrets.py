"""A cluster somewhere else, looked at by `headway doctor --address`; and all that it keeps of a run, searched for
secrets."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.ray.conftest import Project
from tests.ray.laptop import Laptop, shared

from headway.cluster.local.processes import isolation
from headway.jobs.spec import FILE
from headway.testing.s3 import KEYS

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not isolation(), reason="no namespaces can be made here"),
    pytest.mark.timeout(600),
]
SENT, FILED = "w0rd-in-clear-4711", "w0rd-of-a-file-4711"
READS = """
import os

assert os.environ["SENT_TOKEN"] == "-".join(["w0rd", "in", "clear", "4711"])
assert os.environ["FILED_KEY"] == "-".join(["w0rd", "of", "a", "file", "4711"])
"""


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, project: Project) -> Laptop:
    found = shared(tmp_path_factory, project)
    while len(found.cluster.alive()) < 2:
        found.cluster.add_node()
    return found


def everywhere(laptop: Laptop) -> set[str]:
    """The machines of the cluster, as they are named."""
    alive = laptop.cluster.alive()
    return {"127.0.0.2 (head)", *(node.ip for node in laptop.cluster.nodes if node.node_id in alive)}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """For this process's own looks into the store."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


def checks(laptop: Laptop, *more: object, code: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Findings of `headway doctor`, by name."""
    tree = laptop.told("doctor", "--address", laptop.cluster.jobs, *more, code=code)
    assert tree["ok"] is (code == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for each in tree["checks"]:
        found.setdefault(each["name"], []).append(each)
    return found


def test_a_cluster_that_is_well(laptop: Laptop) -> None:
    before = laptop.listed(), [each.name for each in laptop.place.list()]
    found = checks(laptop)
    for name in ("machines", "ray", "python", "clock", "runs"):
        assert found[name][-1]["where"][0] == "127.0.0.2 (head)"
        assert set(found[name][-1]["where"]) == everywhere(laptop), name
    names = {
        "address",
        "token",
        "packages",
        "disk",
        "shared memory",
        "memory",
        "cpus",
        "gpus",
        "address file",
        "mlflow",
    }
    assert names <= set(found)
    assert found["address"][0]["found"].endswith("Ray 2.60.0")
    assert "after 3 s, one that falls silent after 9 s" in found["health checks"][0]["found"]
    left = laptop.listed(), [each.name for each in laptop.place.list()]
    assert left == before, "it has taken away what it wrote"


def test_machines_that_mean_another_folder_are_named(laptop: Laptop) -> None:
    """A node has a folder of its own under that path; see `elsewhere`."""
    apart = laptop.home.parent / "runs"
    found = checks(laptop, "--runs", apart, "--tracking", "http://127.0.0.1:9", code=1)
    bad = [each for each in found["runs"] if each["level"] == "fail"]
    assert sorted(each["where"] for each in bad) == sorted([name] for name in everywhere(laptop))
    assert all("another folder under the same path" in each["reason"] and each["remedy"] for each in bad)
    assert found["mlflow"][0]["level"] == "warn"
    assert "takes no records now" in found["mlflow"][0]["found"]
    assert not apart.exists()


def test_secrets_are_where_they_were_sent_and_nowhere_else(laptop: Laptop, project: Project, tmp_path: Path) -> None:
    task = tmp_path / "task"
    task.mkdir()
    for name in ("digits.py", "scale.py"):
        (task / name).write_text((READS if name == "scale.py" else "") + (project.folder / name).read_text())
    held = Path("/tmp") / f"{laptop.cluster.token[:12]}.key"  # the head sees it, which leads the run
    data = {"train": "s3://bucket/digits/train", "store": {"endpoint": laptop.s3.endpoint}}
    job = {"name": "digits", "task": "digits.py:Digits", "data": data, "lanes": 4, "lane_batch": 8, "steps": 8}
    job |= {"env": {"SENT_TOKEN": SENT, "FILED_KEY": {"file": str(held)}}}
    (task / "job.yaml").write_text(yaml.safe_dump(job))
    try:
        held.write_text(f"{FILED}\n")
        refused = laptop.headway("submit", task / "job.yaml", "--name", "told", code=2)[1]
        assert "env.SENT_TOKEN holds a secret in clear" in refused
        told = laptop.headway("submit", task / "job.yaml", "--name", "told", "--send-secrets", "--wait")
        assert "everybody who has the token of" in told[1]
    finally:
        held.unlink(missing_ok=True)

    laptop.headway("report", "told")  # brings the records here, which are packed in the store
    folders = [laptop.cluster.nodes[0].folder.parent, laptop.home]
    files = {str(path): path for folder in folders for path in folder.rglob("*") if path.is_file()}
    kept = {f"{laptop.url}/{each.name}": laptop.place.get(each.name) for each in laptop.place.list()}
    (job_id,) = (each for each in laptop.listed() if "-told-" in each)
    shown = {path: asked(laptop, path) for path in ("/api/jobs/", f"/api/jobs/{job_id}/logs")}
    shown |= {"submit": "".join(told).encode(), "status": laptop.headway("status", "told", "--json")[0].encode()}
    assert "SENT_TOKEN" in next(path for name, path in files.items() if name.endswith("/told/job.yaml")).read_text()
    assert any(name.endswith("/told/head.json") for name in kept)
    for word in (SENT, FILED):
        holding = [name for name, content in {**kept, **shown}.items() if word.encode() in content]
        holding += [name for name, path in files.items() if Path(name).name != FILE and holds(path, word)]
        assert holding == [], word
    sent = [path for path in files.values() if path.name == FILE and holds(path, SENT)]
    assert sent, "or nothing was searched"
    assert not any(holds(path, FILED) for path in sent)


def holds(path: Path, word: str) -> bool:
    try:
        return word.encode() in path.read_bytes()
    except OSError:  # a socket, or gone
        return False


def asked(laptop: Laptop, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {laptop.cluster.token}"}
    request = urllib.request.Request(laptop.cluster.jobs + path, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
        assert json.loads(content) is not None
        return content
