"""`headway cluster check`: each known mistake is found, by its line, and what ships has none."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import headway.cluster.check
from headway.cli.app import app
from headway.cluster import commands
from headway.cluster.check import manifests, rules
from headway.cluster.check.finding import Finding, named
from headway.cluster.check.look import look
from headway.errors import BadInput

ROOT = Path(__file__).parents[2] / "cluster"
Change = Callable[[Any], None]

KNOWN_OF_OURS = {
    "azure/spot.yaml": {"no-end", "unpinned-image"},
    "gcp/spot.yaml": {"unpinned-image"},
}
"""Warnings that the files of `cluster/` have, each said there and in its README."""


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def put(tree: Any, way: str, value: Any) -> None:
    """Set what a dotted way leads to; None takes it away."""
    *parts, last = (int(part) if part.isdigit() else part for part in way.split("/"))
    for part in parts:
        tree = tree[part] if isinstance(tree, list) else tree.setdefault(part, {})
    if value is None:
        del tree[last]
    else:
        tree[last] = value


def setting(**changes: Any) -> Change:
    def change(tree: Any) -> None:
        for way, value in changes.items():
            put(tree, way, value)

    return change


def found(tmp_path: Path, tree: Any) -> list[Finding]:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all(tree) if isinstance(tree, list) else yaml.safe_dump(tree))
    return look(path)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_ships_has_no_mistake_but_those_it_tells_of(path: Path) -> None:
    findings = look(path)
    assert {each.rule for each in findings} == KNOWN_OF_OURS.get(str(path.relative_to(ROOT)), set())
    assert not [each for each in findings if each.level == "fail"]


HEAD, WORKER = "available_node_types/head", "available_node_types/worker"
SAID = "head_start_ray_commands"
OWN = "export RAY_AUTH_MODE=token; ray start --head"
OF_AWS: dict[str, tuple[Change, str, int | str]] = {
    "head on spot": (setting(**{f"{HEAD}/one_of/0/spot": True}), "head-on-spot", "m7i.large"),
    "head on spot by EC2's key": (
        setting(**{f"{HEAD}/one_of": None, f"{HEAD}/node_config/InstanceMarketOptions": {"MarketType": "spot"}}),
        "head-on-spot",
        "node_config",
    ),
    "one kind of spot": (
        setting(**{f"{WORKER}/one_of": [{"type": "c7i.2xlarge", "zone": "us-east-1a", "spot": True}]}),
        "no-fallback",
        "c7i.2xlarge",
    ),
    "a nightly wheel": (
        setting(setup_commands=["pip install https://s3/ray-wheels/latest/ray-3.0.0.dev0.whl"]),
        "nightly-ray",
        "ray-wheels",
    ),
    "a nightly image": (setting(docker={"image": "rayproject/ray:nightly"}), "nightly-ray", "image: rayproject"),
    "another Ray": (setting(setup_commands=["pip install 'ray[default]==2.40.0'"]), "another-ray", "2.40"),
    "another Ray's image": (setting(docker={"image": "rayproject/ray:2.9.0-gpu"}), "another-ray", "2.9.0"),
    "an image without a version": (setting(docker={"image": "rayproject/ray"}), "unpinned-image", "image: rayproject"),
    "Ray's own image": (setting(**{f"{WORKER}/node_config/ImageId": "latest_dlami"}), "unpinned-image", "latest_dlami"),
    "no image": (setting(**{f"{WORKER}/node_config/ImageId": None}), "unpinned-image", "worker:"),
    "an open port": (
        setting(
            **{
                "provider/security_group": {
                    "IpPermissions": [{"IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
                }
            }
        ),
        "open-ports",
        "IpProtocol",
    ),
    "a job API for all": (setting(**{SAID: [f"{OWN} --dashboard-host=0.0.0.0"]}), "open-ports", SAID),
    "no token": (setting(**{SAID: ["ray start --head"]}), "no-token", SAID),
    "Ray's health checks": (setting(**{SAID: [OWN]}), "slow-health-checks", SAID),
    "slow health checks": (
        setting(**{SAID: [f"export RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=9; {OWN}"]}),
        "slow-health-checks",
        SAID,
    ),
    "nobody listens": (setting(**{"provider/headway/notices": None}), "no-agent", "provider:"),
    "nobody listens, as it is said": (setting(**{"provider/headway/notices": "none"}), "no-agent", "notices:"),
    "workers of one's own without an agent": (
        setting(worker_start_ray_commands=["export RAY_AUTH_MODE=token; ray start"]),
        "no-agent",
        "worker_start_ray_commands",
    ),
    "another cloud's notices": (setting(**{"provider/headway/notices": "gcp"}), "notices-of-another", "notices:"),
    "no end": (
        setting(**{"provider/headway/stop_when_idle_minutes": None, "provider/headway/stop_after_hours": None}),
        "no-end",
        "provider:",
    ),
    "no end without the head": (setting(**{"provider/headway/stop_after_hours": None}), "no-end", "headway:"),
    "idle for no time": (setting(idle_timeout_minutes=0), "no-end", "idle_timeout_minutes"),
    "another region's zone": (
        setting(**{f"{WORKER}/one_of/1/zone": "us-west-2a"}),
        "zone-of-another-region",
        "price_per_hour: 0.15",
    ),
    "another region's zones": (
        setting(**{"provider/availability_zone": "us-east-1a,eu-west-1a"}),
        "zone-of-another-region",
        "availability_zone",
    ),
    "nothing to give": (setting(**{f"{WORKER}/resources": {"disk": 1}}), "no-resources", "resources:"),
    "no workers": (setting(**{WORKER: None}), "no-resources", "available_node_types"),
    "a head that works": (setting(**{f"{HEAD}/resources": {"CPU": 2}}), "head-that-works", "head:"),
    "some prices": (setting(**{f"{WORKER}/one_of/1/price_per_hour": None}), "prices-half-told", "c6i.2xlarge"),
    "runs on a disk": (setting(**{"provider/headway/runs": "/home/ubuntu/runs"}), "nowhere-for-runs", "provider:"),
    "keys": (setting(**{"provider/aws_credentials": {"aws_access_key_id": "x"}}), "secrets-in-the-file", "aws_cred"),
    "a key in a command": (
        setting(setup_commands=["export AWS_ACCESS_KEY_ID=AKIAABCDEFGHIJKLMNOP"]),
        "secrets-in-the-file",
        "AKIA",
    ),
    "old metadata": (
        setting(**{f"{WORKER}/node_config/MetadataOptions": {"HttpTokens": "optional"}}),
        "old-metadata-service",
        "HttpTokens",
    ),
    "the head's role": (
        setting(**{f"{WORKER}/node_config/IamInstanceProfile": {"Name": "ray-autoscaler-v1"}}),
        "broad-role",
        "IamInstanceProfile",
    ),
    "min above max": (setting(**{f"{WORKER}/min_workers": 9}), "file", "min_workers"),
    "a strange key": (setting(idle_timeout_minute=5), "file", "idle_timeout_minute"),
}
OF_GCP: dict[str, tuple[Change, str, int | str]] = {
    "no stand-in": (setting(**{"available_node_types/on_demand": None}), "no-fallback", "spot:"),
    "a stand-in that is asked first": (
        setting(**{"available_node_types/on_demand/priority": 20}),
        "no-fallback",
        "spot:",
    ),
    "Ray's own set-up": (setting(setup_commands=None), "nightly-ray", "type:"),
    "Ray's own start": (setting(head_start_ray_commands=None), "open-ports", "type:"),
    "stopped and billed": (setting(**{"provider/cache_stopped_nodes": None}), "stopped-and-kept", "provider:"),
    "no agent": (setting(worker_start_ray_commands=None), "no-agent", "type:"),
    "a preemptible head": (
        setting(**{"available_node_types/head/node_config/scheduling": [{"preemptible": True}]}),
        "head-on-spot",
        "node_config:",
    ),
    "no end": (setting(**{"available_node_types/head/node_config/scheduling": None}), "no-end", "provider:"),
}
POD = "spec/workerGroupSpecs/0/template/spec"
OF_KUBERAY: dict[str, tuple[Change, str, int | str]] = {
    "head on spot": (
        setting(**{"spec/headGroupSpec/template/spec/nodeSelector": {"karpenter.sh/capacity-type": "spot"}}),
        "head-on-spot",
        "nodeSelector",
    ),
    "no stand-in": (
        setting(**{"spec/workerGroupSpecs/1/template/spec/nodeSelector": {"headway/capacity": "spot"}}),
        "no-fallback",
        "groupName: spot",
    ),
    "another Ray": (setting(**{"spec/rayVersion": "2.52.0"}), "images", "rayVersion"),
    "no version": (setting(**{f"{POD}/containers/0/image": "registry.example.com/headway"}), "images", "image:"),
    "autoscaler v1": (setting(**{"spec/autoscalerOptions/version": "v1"}), "autoscaler", "autoscalerOptions"),
    "pods that restart": (setting(**{f"{POD}/restartPolicy": "Always"}), "autoscaler", "spec:"),
    "no hook": (setting(**{f"{POD}/containers/0/lifecycle": None}), "pre-stop", "- env"),
    "a hook that is cut short": (setting(**{f"{POD}/terminationGracePeriodSeconds": 45}), "pre-stop", "preStop"),
    "no grace said": (setting(**{f"{POD}/terminationGracePeriodSeconds": None}), "pre-stop", "preStop"),
    "slow checks": (
        setting(**{"spec/headGroupSpec/template/spec/containers/0/env": []}),
        "slow-health-checks",
        "- env: []",
    ),
    "no token": (setting(**{"spec/authOptions": None}), "no-token", "spec:"),
    "open to the world": (setting(**{"spec/headGroupSpec/serviceType": "LoadBalancer"}), "open-ports", "serviceType"),
    "least above most": (setting(**{"spec/workerGroupSpecs/0/minReplicas": 9}), "sizes", "minReplicas"),
    "no limits": (setting(**{f"{POD}/containers/0/resources": {}}), "sizes", "- env"),
    "a head that works": (setting(**{"spec/headGroupSpec/rayStartParams": {}}), "head-that-works", "headGroupSpec"),
    "a typing error": (setting(**{"spec/enableIntreeAutoscaling": True}), "schema", "enableIntreeAutoscaling"),
    "a word for a number": (setting(**{"spec/workerGroupSpecs/0/maxReplicas": "many"}), "schema", "maxReplicas"),
    "a lower version": (setting(apiVersion="ray.io/v1alpha1"), "schema", "apiVersion"),
    "queued and autoscaled": (
        setting(**{"metadata/labels": {"kueue.x-k8s.io/queue-name": "q"}}),
        "kueue",
        "enableInTreeAutoscaling",
    ),
}
OF_JOB: dict[str, tuple[Change, str, int | str]] = {
    "stays": (setting(**{"spec/shutdownAfterJobFinishes": False}), "no-end", "spec:"),
    "for ever": (setting(**{"spec/activeDeadlineSeconds": None}), "no-end", "spec:"),
    "on one that is there": (setting(**{"spec/clusterSelector": {"a": "b"}}), "kueue", "clusterSelector"),
    "not queued": (
        setting(**{"metadata/labels": {"kueue.x-k8s.io/priority-class": "high"}}),
        "kueue",
        "labels",
    ),
    "no pods": (setting(**{"spec/rayClusterSpec/workerGroupSpecs/0/replicas": 0}), "sizes", "replicas: 0"),
}
CASES = [
    *(("aws/spot.yaml", what, *case) for what, case in OF_AWS.items()),
    *(("gcp/spot.yaml", what, *case) for what, case in OF_GCP.items()),
    *(("kuberay/cluster.yaml", what, *case) for what, case in OF_KUBERAY.items()),
    *(("kuberay/job.yaml", what, *case) for what, case in OF_JOB.items()),
]


@pytest.mark.parametrize(("name", "what", "change", "rule", "near"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_a_mistake_is_found_in_its_line(
    tmp_path: Path, name: str, what: str, change: Change, rule: str, near: str
) -> None:
    documents = list(yaml.safe_load_all((ROOT / name).read_text()))
    tree = json.loads(json.dumps(documents))
    before = {(each.rule, each.found) for each in found(tmp_path, tree if len(tree) > 1 else tree[0])}
    change(tree[0])
    after = found(tmp_path, tree if len(tree) > 1 else tree[0])
    new = [each for each in after if (each.rule, each.found) not in before]
    fitting = [each for each in new if each.rule == rule]
    assert fitting, f"{rule} did not find it; found: {new}"
    lines = (tmp_path / "cluster.yaml").read_text().splitlines()
    assert near in " ".join(lines[fitting[0].line - 1 : fitting[0].line + 2]), lines[fitting[0].line - 1]


def test_every_rule_has_a_mistake_that_it_finds() -> None:
    tried = {(case[0].startswith("kuberay"), case[3]) for case in CASES}
    assert {named(rule) for rule in rules.RULES} <= {rule for kube, rule in tried if not kube}
    other = {named(rule) for rule in manifests.RULES} - {"disruption-budget"}
    assert other <= {rule for kube, rule in tried if kube}


def test_a_budget_belongs_to_its_cluster(tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((ROOT / "kuberay/cluster.yaml").read_text()))
    assert "disruption-budget" in {each.rule for each in found(tmp_path, documents[0])}
    renamed = copy.deepcopy(documents)
    renamed[0]["metadata"]["name"] = "another"
    assert "disruption-budget" in {each.rule for each in found(tmp_path, renamed)}


def test_a_file_may_be_anything(tmp_path: Path) -> None:
    """Strange kinds of values are findings, never a traceback."""
    for tree in (
        {"provider": "aws"},
        {"provider": {"type": "aws", "headway": 3}, "available_node_types": []},
        {"provider": {"type": ["x"]}, "available_node_types": {"head": None, "w": 3}},
        {"available_node_types": {"head": {"one_of": [None, 3], "node_config": [1], "resources": "many"}}},
        {"provider": {"type": "gcp"}, "available_node_types": {"h": {}, "w": {"priority": "x", "one_of": "y"}}},
        [{"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": 3}],
        [{"apiVersion": "ray.io/v1", "kind": "RayJob", "spec": {"rayClusterSpec": {"workerGroupSpecs": [None, 3]}}}],
        [{"apiVersion": "v1", "kind": "Nonsense"}],
    ):
        assert [each for each in found(tmp_path, tree) if each.level == "fail"], tree


def test_what_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        look(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("a: [1\n")
    with pytest.raises(BadInput, match="line 2"):
        look(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("- 1\n")
    with pytest.raises(BadInput, match="keys and values"):
        look(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("apiVersion: v1\nkind: X\n---\na: [1\n")
    with pytest.raises(BadInput, match="line 5"):
        look(tmp_path / "c.yaml")


def test_the_command_says_what_it_finds(tmp_path: Path) -> None:
    tree = loaded("aws/spot.yaml")
    tree["available_node_types"]["head"]["one_of"][0]["spot"] = True
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(tree))
    shown = CliRunner().invoke(app, ["cluster", "check", str(path)])
    assert shown.exit_code == 1
    assert re.search(r"FAIL  head-on-spot  .*c\.yaml, line \d+: the head's type head is a spot machine", shown.output)
    told = CliRunner().invoke(app, ["cluster", "check", str(ROOT / "aws/spot.yaml"), "--json"])
    assert (told.exit_code, json.loads(told.output)) == (0, {"ok": True, "findings": []})


def test_the_definitions_are_those_that_are_named() -> None:
    """Licence, version and digest stand beside them."""
    folder = Path(headway.cluster.check.__file__).parent / "crds"
    said = (folder / "README.md").read_text()
    for path in folder.glob("*.gz"):
        assert hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest() in said
    assert "Apache License" in (folder / "LICENSE").read_text()


@pytest.mark.parametrize("cloud", ["gcp", "azure"])
def test_clouds_that_others_start_run_the_same_commands(cloud: str) -> None:
    tree = loaded(f"{cloud}/spot.yaml")
    assert tree["setup_commands"] == commands.set_up()
    assert tree["head_start_ray_commands"] == commands.start_head({})
    assert tree["worker_start_ray_commands"] == [*commands.start_worker({}), *commands.agent(cloud)]
    assert tree["file_mounts"].keys() == commands.mounts(Path("a"), Path("b")).keys()


WRITTEN = {
    "set-up": commands.set_up(),
    "head": commands.start_head({"A": "b c"}),
    "agent": commands.agent("aws"),
    "agent of another service": commands.agent("http://h:1/a"),
    "end": commands.end_at(1e9),
    "keeper": commands.keeper(30),
}


@pytest.mark.parametrize("lines", WRITTEN.values(), ids=WRITTEN)
def test_commands_are_shell(lines: list[str]) -> None:
    for line in lines:
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.sh")), ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_are_shell_and_take_down_what_they_start(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    assert "set -euo pipefail" in text
    assert text.index("trap finish EXIT") < min(text.index(word) for word in (" up ", " apply -f ") if word in text)


def test_each_folder_says_what_is_in_it() -> None:
    for folder in ROOT.iterdir():
        assert len((folder / "README.md").read_text()) > 500
