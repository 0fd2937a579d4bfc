"""A cluster's file: what is right is read, and what is wrong is named by file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.cluster import file
from headway.cluster.market import Option
from headway.errors import BadInput

GOOD = """\
cluster_name: trainers
max_workers: 4
idle_timeout_minutes: 5
provider:
  type: aws
  region: eu-central-1
  headway: {stop_when_idle_minutes: 30, notices: aws, runs: s3://bucket/runs}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, node_config: {InstanceType: m7i.large}}
  worker:
    min_workers: 1
    max_workers: 3
    resources: {CPU: 8}
    one_of:
      - {type: c7i.2xlarge, zone: eu-central-1a, spot: true, price_per_hour: 0.14}
      - {type: c6i.2xlarge, zone: eu-central-1b}
"""
HERE = """\
cluster_name: two
provider: {type: this-machine}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  worker: {min_workers: 2, max_workers: 2, resources: {CPU: 1}}
"""


def parsed(text: str, name: str | None = None) -> file.ClusterFile:
    return file.parse(Path("c.yaml"), text, name)


def refusal(text: str, name: str | None = None) -> str:
    with pytest.raises(BadInput) as refused:
        parsed(text, name)
    return str(refused.value)


def test_a_file_is_read() -> None:
    found = parsed(GOOD)
    assert (found.name, found.kind, found.head, list(found.workers)) == ("trainers", "aws", "head", ["worker"])
    assert found.headway.stop_when_idle_minutes == 30
    assert (found.headway.boot_limit_minutes, found.headway.tls) == (10.0, False)
    assert (found.least("worker"), found.most("worker"), found.grows) == (1, 3, True)
    assert found.workers["worker"].options("worker") == (
        Option("c7i.2xlarge", "eu-central-1a", True, 0.14),
        Option("c6i.2xlarge", "eu-central-1b"),
    )
    assert found.spec.available_node_types["head"].options("head") == (Option("head"),)
    assert parsed(GOOD, "mine").name == "mine"


def test_one_that_starts_with_all_it_may_have_does_not_grow() -> None:
    assert not parsed(HERE).grows
    assert parsed(HERE.replace("max_workers: 2", "max_workers: 3")).grows
    assert parsed(HERE.replace(", max_workers: 2", "") + "max_workers: 5\n").most("worker") == 5


def test_ray_gets_the_file_without_our_keys() -> None:
    tree: dict[str, Any] = parsed(GOOD).for_ray("1f2e", folder="/there")
    worker, provider = tree["available_node_types"]["worker"], tree["provider"]
    assert set(worker) == {"resources", "node_config", "min_workers", "max_workers"}
    assert worker["node_config"]["headway"]["order"] == "cheapest"
    assert worker["node_config"]["headway"]["one_of"][1] == {
        "type": "c6i.2xlarge",
        "zone": "eu-central-1b",
        "spot": False,
        "price_per_hour": None,
    }
    assert tree["available_node_types"]["head"]["node_config"]["InstanceType"] == "m7i.large"
    assert (provider["type"], provider["module"], provider["market"]) == ("external", file.PROVIDER_MODULE, "aws")
    assert (provider["region"], provider["disable_node_updaters"]) == ("eu-central-1", True)
    assert (provider["headway"]["id"], provider["headway"]["market"]) == ("1f2e", {"folder": "/there"})
    assert (tree["max_workers"], tree["cluster_name"]) == (4, "trainers")


def test_ray_takes_what_it_gets(tmp_path: Path) -> None:
    """Ray's own reader and its schema: what its autoscaler starts with."""
    import yaml

    config = pytest.importorskip("ray.autoscaler.v2.instance_manager.config")
    (tmp_path / "ray.yaml").write_text(yaml.safe_dump(parsed(GOOD).for_ray("1f")))
    read = config.FileConfigReader(str(tmp_path / "ray.yaml")).get_cached_autoscaling_config()
    worker = read.get_node_type_configs()["worker"]
    assert (worker.min_worker_nodes, worker.max_worker_nodes, worker.resources) == (1, 3, {"CPU": 8})
    assert read.get_max_num_nodes() == 5
    assert read.get_idle_timeout_s() == 300
    assert read.disable_node_updaters()


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("max_workers: 4", "max_worker: 4", 2, "unknown key 'max_worker'. Did you mean 'max_workers'?"),
        ("max_workers: 4", "max_workers: four", 2, "max_workers='four': input should be a valid integer"),
        ("max_workers: 4", "max_workers: yes", 2, "is true, which is no value"),
        ("max_workers: 4", "max_workers: 0", 2, "max_workers=0 is less than the sum of all min_workers, 1"),
        ("type: aws", "type: amazon", 5, "provider.type='amazon' is unknown"),
        ("type: aws", "type: local", 5, "Did you mean 'this-machine'?"),
        ("type: aws", "type: kuberay", 5, "KubeRay has manifests instead"),
        ("region:", "regoin:", 6, "unknown key 'provider.regoin' of aws. Did you mean 'region'?"),
        ("stop_when_idle_", "stop_idle_", 7, "unknown key 'provider.headway.stop_idle_minutes'"),
        ("notices: aws", "notices: amazon", 7, "give one of aws, gcp, azure, none, or a URL"),
        ("head_node_type: head", "head_node_type: haed", 8, "Did you mean 'head'?"),
        ("    resources: {CPU: 8}", "    resources: {CPU: -8}", 14, "should be greater than or equal to 0"),
        ("    min_workers: 1", "    min_workers: 9", 12, "worker.min_workers=9 is more than max_workers=3"),
        ("{type: c6i.2xlarge, z", "{tpye: c6i.2xlarge, z", 17, "'available_node_types.worker.one_of.1.tpye'"),
        ("type: c6i.2xlarge, zone: eu-central-1b", "type: c7i.2xlarge, zone: eu-central-1a, spot: true", 17, "second"),
        ("  worker:\n", "  worker:\n    min_worker: 1\n", 12, "Did you mean 'min_workers'?"),
        ("head: {resources", "head: {min_workers: 1, resources", 10, "is the head's type"),
        ("cluster_name: trainers", "cluster_name: Trainers!", 1, "is of a-z, 0-9 and hyphens"),
        ("cluster_name: trainers", "cluster_name: [", 3, "but got"),
        ("cluster_name: trainers", "cluster_name: a\ncluster_name: b", 2, "given twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    found = refusal(GOOD.replace(old, new, 1))
    assert f"line {line}: " in found
    assert said in found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("resources: {CPU: 1}", "resources: {}", "resources is empty: say what a node gives out"),
        ("resources: {CPU: 1}", "resources: {CPU: 1}, node_config: {Size: 2}", "node_config.Size'"),
        ("type: this-machine", "type: this-machine, region: here", "unknown key 'provider.region' of this-machine"),
        ("type: this-machine", "type: this-machine, headway: {notices: aws}", "tells nobody of its end"),
        ("type: this-machine", "type: this-machine, headway: {runs: runs}", "neither a URL nor the whole path"),
        ("head_node_type: head\n", "", "head_node_type is missing: which of head, worker"),
        ("provider: {type: this-machine}\n", "", "provider is missing"),
        ("available_node_types", "node_types", "available_node_types is missing"),
    ],
)
def test_what_this_machine_has_not(old: str, new: str, said: str) -> None:
    assert said in refusal(HERE.replace(old, new, 1))


def test_all_that_is_wrong_is_told_at_once() -> None:
    found = refusal(GOOD.replace("region", "regoin").replace("min_workers: 1", "min_workers: 9"))
    assert "line 6" in found
    assert "line 12" in found


@pytest.mark.parametrize("name", ["two", "elastic"])
def test_the_files_that_are_shipped(name: str) -> None:
    found = file.load(Path(__file__).parents[2] / "cluster" / "local" / f"{name}.yaml")
    assert (found.name, found.kind, found.grows) == (name, "this-machine", name == "elastic")


def test_names() -> None:
    for name in ("a", "a-b-2", "x" * file.LONGEST_NAME):
        assert file.wrong_name(name) == ""
    for name in ("", "-a", "a-", "A", "a_b", "a/b", "..", "x" * (file.LONGEST_NAME + 1)):
        assert file.wrong_name(name)
    assert "--name='Mine'" in refusal(GOOD, "Mine")


def test_what_is_no_clusters_file(tmp_path: Path) -> None:
    assert "manifest of Kubernetes" in refusal("apiVersion: ray.io/v1\nkind: RayCluster\n")
    assert "manifest of Kubernetes" in refusal("apiVersion: v1\nkind: A\n---\napiVersion: v1\nkind: B\n")
    assert "several YAML documents" in refusal("a: 1\n---\nb: 2\n")
    assert "keys and values" in refusal("- a\n")
    assert "keys and values" in refusal("")
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        file.load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        file.load(tmp_path / "bytes.yaml")
