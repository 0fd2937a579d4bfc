"""A local cluster whose head takes jobs: what runs there came with a job, and a head that is replaced knows none."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from tests.ray.conftest import Project
from tests.ray.laptop import Laptop, shared
from tests.waiting import until

from headway.cluster.local.processes import isolation
from headway.testing.cluster import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(not isolation(), reason="no namespaces here")]


def ask(cluster: Cluster, path: str, body: dict[str, Any] | None = None, token: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {cluster.token if token is None else token}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(cluster.jobs + path, data, {**headers, "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def status(cluster: Cluster, path: str, token: str | None = None) -> int:
    try:
        ask(cluster, path, token=token)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def printed(cluster: Cluster, entrypoint: str) -> str:
    """What a job prints that succeeds."""
    made = ask(cluster, "/api/jobs/", {"entrypoint": entrypoint})["submission_id"]
    until(lambda: ask(cluster, f"/api/jobs/{made}")["status"] == "SUCCEEDED", entrypoint, 60)
    return str(ask(cluster, f"/api/jobs/{made}/logs")["logs"])


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, project: Project) -> Laptop:
    return shared(tmp_path_factory, project)


def test_takes_jobs_and_has_nothing_of_ours(laptop: Laptop) -> None:
    cluster = laptop.cluster
    assert status(cluster, "/api/version") == 200
    assert status(cluster, "/api/version", token="no" * 16) == 403
    python = "p=$(tr '\\0' '\\n' < /proc/1/cmdline | head -1); $p -c"  # the node's own program
    said = printed(cluster, f"""{python} 'import headway.testing' 2>&1 || echo none""")
    assert "ModuleNotFoundError" in said
    assert said.endswith("none\n")

    jobs, token = cluster.jobs, cluster.token
    ask(cluster, "/api/jobs/", {"entrypoint": "echo $$; sleep 600", "submission_id": "first"})
    until(lambda: ask(cluster, "/api/jobs/first")["status"] == "RUNNING", "it runs", 60)
    before = set(cluster.processes())
    cluster.replace_head()
    assert (cluster.jobs, cluster.token) == (jobs, token)
    assert status(cluster, "/api/jobs/first") == 404
    heads = {pid for node in cluster.nodes for pid in node.processes()}
    assert not (before - heads) & set(cluster.processes())
    cluster.add_node()
    assert cluster.alive() == {cluster.nodes[-1].node_id}
    assert "hello" in printed(cluster, "echo hello")
