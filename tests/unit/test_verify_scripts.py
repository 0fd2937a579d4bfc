"""The scripts that try a cluster on a real cloud, with programs that do nothing: what is left is never called good."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from tests.unit.aws import Programs

ROOT = Path(__file__).resolve().parents[2]
STAYS = "exec /bin/sleep 60"
HEADWAY = f"""case "$*" in
    tunnel*) {STAYS};;
    *status*--json*) for n in 1 2; do echo '"type": "worker", "state": "up"'; done;;
esac"""
LISTS = {
    "aws": """case "$*" in
        *Instances*InstanceId*) echo i-1;;
        *describe-volumes*) echo "$LEFT";;
        *describe*) echo 0;;
    esac""",
    "gcloud": """case "$*" in *--limit*) echo one;; *disks*list*) [ "$LEFT" = 0 ] || echo a-disk;; esac""",
    "az": """case "$*" in *group*exists*) [ "$LEFT" = 0 ] && echo false || echo true;; esac""",
    "kubectl": f"""case "$*" in
        *port-forward*) {STAYS};;
        *operator*) echo operators;;
        *apply*) cp "${{*##* }}" "$APPLIED";;
        *wait*delete*) [ "$LEFT" = 0 ];;
    esac""",
}
CLOUDS = {
    "aws": ["bucket"],
    "gcp": ["project", "bucket"],
    "azure": ["container"],
    "kuberay": ["image:1", "s3://b/runs"],
}


def verified(cloud: str, left: int, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The script's end where the cloud still has so much."""
    ray = f'case "$1" in exec) {STAYS};; esac'
    programs = Programs(
        tmp_path / "bin", {**LISTS, "headway": HEADWAY, "ray": ray, "sleep": "", "python": "", "openssl": ""}
    )
    environ = {"PATH": programs.path, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LEFT": str(left)}
    script = [str(ROOT / "cluster" / cloud / "verify.sh"), *CLOUDS[cloud]]
    return subprocess.run(
        ["bash", *script],
        cwd=ROOT,
        env={**environ, "APPLIED": str(tmp_path / "applied.yaml")},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("cloud", CLOUDS)
def test_only_what_leaves_nothing_is_good(cloud: str, tmp_path: Path) -> None:
    done = verified(cloud, 0, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("good")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_is_left_is_not_good(cloud: str, tmp_path: Path) -> None:
    done = verified(cloud, 1, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT GOOD" in done.stdout


def test_a_kubernetes_cluster_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """Nothing that is applied, and deleted again, has the name of the manifests' own."""
    verified("kuberay", 0, tmp_path)
    applied = [each for each in yaml.safe_load_all((tmp_path / "applied.yaml").read_text()) if each]
    names = [each["metadata"]["name"] for each in applied]
    assert len(names) == len(applied) >= 4
    assert all(name.startswith("verify-") for name in names)
    assert "operators" in (tmp_path / "applied.yaml").read_text()


@pytest.mark.parametrize("cloud", ["gcp", "azure"])
def test_the_token_of_another_cluster_is_not_written_over(cloud: str) -> None:
    text = (ROOT / "cluster" / cloud / "verify.sh").read_text()
    assert text.count("build/cluster") == text.count("s|build/cluster/|$work/|") == 1
