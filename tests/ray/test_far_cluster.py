"""Runs in a store, on nodes that share no folder: killed at random moments, gone on with from elsewhere, and the bits
are those of the quiet run in a folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.ray.conftest import Project, wait_until
from tests.tiers import SOAK, examples

from headway.cluster.local.processes import isolation
from headway.logs.reading import sources
from headway.runs.far import lives
from headway.runs.head import Head
from headway.runs.remote import Clock, RemoteRun
from headway.storage.opener import open_storage
from headway.storage.options import Options
from headway.storage.protocol import Storage
from headway.testing.cluster import Cluster
from headway.testing.s3 import KEYS, S3

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not isolation(), reason="no namespaces can be made here"),
    pytest.mark.timeout(600),
]
URL = "s3://bucket/runs"


class Lab:
    """A store, a cluster whose nodes see nothing of the tests' folders, and drivers that come from many machines."""

    def __init__(self, s3: S3, cluster: Cluster, folder: Path, job: Path) -> None:
        self.s3, self.cluster, self.folder, self.job = s3, cluster, folder, job
        self.place: Storage = open_storage(URL, Options(endpoint=s3.endpoint))

    def environment(self, machine: str) -> dict[str, str]:
        """Of a driver's machine, with folders of its own."""
        home = self.folder / machine
        home.mkdir(exist_ok=True)
        own = {"HOME": str(home), "HEADWAY_CACHE": str(home / "cache")}
        return {**KEYS, **own, "HEADWAY_STORE_ENDPOINT": self.s3.endpoint}

    def headway(self, machine: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "headway.cli.app", *map(str, arguments), "--runs", URL, "--json"]
        return self.cluster.run(
            [*command, "--address", self.cluster.address] if arguments[0] in ("train", "resume") else command,
            env=self.environment(machine),
            cwd=self.folder / machine,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def report(self, process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, err
        found: dict[str, Any] = json.loads(out)
        return found

    def head(self, name: str) -> Head:
        return RemoteRun(self.place, name).head()

    def steps(self, name: str) -> int:
        """As a listing shows them."""
        if name not in self.place.folders():
            return 0
        return int((self.head(name).brief or {}).get("steps", 0))

    def wait_for(self, name: str, step: int, driver: subprocess.Popen[str]) -> None:
        wait_until(lambda: self.steps(name) >= step or driver.poll() is not None, f"step {step}")

    def let_lapse(self, name: str) -> None:
        """What somebody does who watches the lease of a driver that is dead for as long as a lease lasts."""
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        RemoteRun(self.place, name, Clock(lambda: now[0], sleep)).claim().release()


@pytest.fixture(scope="module")
def lab(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("machines")
    hidden = tmp_path_factory.getbasetemp()
    with S3() as s3, pytest.MonkeyPatch.context() as patch:
        for variable, value in KEYS.items():
            patch.setenv(variable, value)
        s3.put("bucket", "train", project.folder / "train")
        s3.put("bucket", "test", project.folder / "test")
        job = yaml.safe_load(project.job.read_text())
        store = {"endpoint": s3.endpoint}
        job["data"] = {"train": "s3://bucket/train", "validation": "s3://bucket/test", "store": store}
        own = folder / "project"
        shutil.copytree(project.folder, own, ignore=shutil.ignore_patterns("train", "test"))
        (own / "job.yaml").write_text(yaml.safe_dump(job))
        with Cluster(nodes=2, environment=KEYS, apart=[hidden]) as cluster:
            yield Lab(s3, cluster, folder, own / "job.yaml")


@pytest.fixture(scope="module")
def quiet(undisturbed: dict[str, Any]) -> dict[str, Any]:
    """The undisturbed run in a folder."""
    return undisturbed


def same(report: dict[str, Any], quiet: dict[str, Any]) -> None:
    assert report["state"] == "finished"
    for name in ("weights_sha256", "samples_sha256", "losses", "steps"):
        assert report[name] == quiet[name], name


@pytest.fixture
def brake() -> Iterator[Path]:
    """A file that nodes see, though they see nothing else of the tests': while it is there, lanes are slow."""
    with tempfile.TemporaryDirectory(prefix="headway-brake-") as folder:
        file = Path(folder, "brake")
        file.touch()
        yield file


def test_killed_and_resumed_from_another_machine(lab: Lab, quiet: dict[str, Any], brake: Path) -> None:
    """SIGKILL to the driver at a random step; the run goes on from a machine that has nothing of it."""
    seed = int(time.time())
    at = random.Random(seed).randrange(3, 12)
    print(f"seed {seed}: the driver is killed at step {at}")
    slowed = ["--set", "arguments.pause=0.15", "--set", f"arguments.brake={brake}"]
    driver = lab.headway("first", "train", lab.job, "--name", "moved", *slowed)
    lab.wait_for("moved", at, driver)
    assert driver.poll() is None, driver.communicate()[1]
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert lives(lab.head("moved"))
    lab.let_lapse("moved")
    shutil.rmtree(lab.folder / "first")
    brake.unlink()
    report = lab.report(lab.headway("second", "resume", "moved"))
    same(report, quiet)
    assert report["path"] == f"{URL}/moved"
    assert all(c["path"].startswith(f"{URL}/moved/checkpoints/step-") for c in report["checkpoints"])
    listed = lab.report(lab.headway("third", "runs"))["runs"]
    assert [(run["run"], run["state"], run["steps"]) for run in listed] == [("moved", "finished", report["steps"])]
    assert lab.report(lab.headway("third", "report", "moved")) == report
    assert "worker-w0" in sources(lab.place.at("moved/"))
    nodes = [path for node in lab.cluster.nodes for path in (node.folder / "home" / "cache").rglob("*")]
    assert any(path.name == "digits.py" for path in nodes), "workers got the task's code on their own machines"
    assert not any(path.name in ("steps.jsonl", "run.json", "manifest.json") for path in nodes)


@pytest.mark.long
@pytest.mark.soak
@pytest.mark.timeout(3600 if SOAK else 600)
def test_whatever_is_killed_at_random_moments(
    lab: Lab, quiet: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    """A driver, a worker and a node, in an order that is drawn, of one run; of several in a soak."""
    for number in range(examples(1, 10)):
        seed = random.randrange(2**32)
        draw = random.Random(seed)
        order = draw.sample(["driver", "worker", "node"], 3)
        print(f"seed {seed}: {', '.join(order)}")
        record_property("seed", seed)
        name = f"killed-{number}"
        driver = lab.headway("first", "train", lab.job, "--name", name, "--set", "arguments.pause=0.1")
        for kind in order:
            lab.wait_for(name, lab.steps(name) + 1, driver)
            time.sleep(draw.uniform(0, 3))  # the moment is what is random
            if driver.poll() is not None:
                break
            if kind == "driver":
                os.killpg(driver.pid, signal.SIGKILL)
                driver.communicate()
                lab.let_lapse(name)
                driver = lab.headway("second", "resume", name)
            elif kind == "worker":
                victims = [pid for node in lab.cluster.nodes for pid in node.processes() if is_worker(pid)]
                with suppress(ProcessLookupError):  # it may end by itself at this moment
                    os.kill(draw.choice(victims), signal.SIGKILL)
            else:
                up = [node.number for node in lab.cluster.nodes if node.state == "up"]
                lab.cluster.kill_node(draw.choice(up))
                lab.cluster.add_node()
        same(lab.report(driver), quiet)


def is_worker(pid: int) -> bool:
    """Whether a process is one of Ray Train's workers."""
    try:
        return b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
