"""The Ray that a run starts for itself: nobody on the network reaches it, and no other user reads its token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from headway.data.write.writer import write_dataset
from headway.driver import embedded

pytestmark = pytest.mark.ray

LISTENING = """
import os
import time
import ray
from headway.driver import embedded

def children(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in open(f"/proc/{pid}/task/{task}/children").read().split():
            yield child
            yield from children(child)

def sockets(pid):
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]

embedded.start(2, 80 * 2**20, log_to_driver=False, logging_level="ERROR")
ray.get(ray.remote(lambda: None).remote())
ours = {inode for pid in [str(os.getpid()), *children(os.getpid())] for inode in sockets(pid)}
for name in ("tcp", "tcp6"):
    for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in ours:
            print("LISTENS", fields[1].partition(":")[0], flush=True)
print("AT", ray.util.get_node_ip_address(), os.environ["RAY_AUTH_MODE"], flush=True)
for pid in children(os.getpid()):
    print("RUNS", open(f"/proc/{pid}/cmdline").read().replace("\\0", " ")[:4000].replace("\\n", " "), flush=True)
stand_in = [pid for pid in children(os.getpid()) if "stand_in" in open(f"/proc/{pid}/cmdline").read().split("\\0")[-2]]
ray.shutdown()
deadline = time.monotonic() + 60
while any(os.path.exists(f"/proc/{pid}") for pid in stand_in) and time.monotonic() < deadline:
    time.sleep(0.1)
print("STOOD", len(stand_in), "LEFT", sum(os.path.exists(f"/proc/{pid}") for pid in stand_in), flush=True)
"""

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_2_21_an_embedded_ray_is_reached_from_this_machine_only(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**clean, "HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=180, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    listening = [line[1] for line in lines if line[0] == "LISTENS"]
    assert len(listening) > 3
    assert set(listening) <= LOOPBACK
    assert ["AT", "127.0.0.1", "token"] in lines
    programs = [" ".join(line[1:4]) for line in lines if line[0] == "RUNS"]
    assert not any("agent.py" in p or "DashboardAgent" in p or "monitor.py" in p for p in programs), programs
    assert ["STOOD", "1", "LEFT", "0"] in lines, "who stands in for the page's agent goes with Ray"
    token = tmp_path / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0
    assert len(token.read_text()) == 64


def test_2_21_a_token_that_all_could_read_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("mine")
    token.chmod(0o644)
    embedded.keep_token_private()
    assert token.stat().st_mode & 0o077 == 0
    assert token.read_text() == "mine"
    token.unlink()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    embedded.keep_token_private()
    assert not token.exists()


TASK = """
import json
import os
import sys
from pathlib import Path

import torch

import headway


def about(process):
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    name = Path(f"/proc/{process}/cmdline").read_text().partition("\\0")[0]
    return name.strip().partition(".")[0], int(fields[19])


class Look(headway.Task):
    def __init__(self, told):
        self.told = told

    def model(self):
        return torch.nn.Linear(1, 2)

    def loss(self, model, batch):
        if "ray" in sys.modules:
            children = Path(f"/proc/{os.getppid()}/task").glob("*/children")
            beside = [about(process) for tasks in children for process in tasks.read_text().split()]
            Path(self.told).write_text(json.dumps({"loaded": sorted(sys.modules), "beside": sorted(beside)}))
        return torch.nn.functional.cross_entropy(model(batch["x"][:, None].float()), batch["y"])
"""


def test_the_first_worker_is_there_before_who_asks_for_it(tmp_path: Path) -> None:
    """An embedded run is three processes of Ray's beside its own; none that is of no use waits or imports."""
    rows = pa.table({"x": [0.5, 1.0, 1.5, 2.0], "y": [0, 1, 0, 1]})
    write_dataset(tmp_path / "set", [rows], name="s", source="")
    (tmp_path / "task.py").write_text(TASK)
    fields = {"task": "task.py:Look", "arguments": {"told": str(tmp_path / "told.json")}, "data": {"train": "set"}}
    job = {"name": "s", **fields, "lanes": 2, "lane_batch": 2, "steps": 2, "tracking": {"enabled": False}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "headway.cli.app", "train", "job.yaml", "--runs", "runs", "--address", "local"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    began = {name: at for name, at in told["beside"] if name.startswith("ray::")}
    assert set(began) == {"ray::RayTrainWorker", "ray::ElasticController", "ray::Recorder", "ray::RuntimeEnvAgent"}
    assert began["ray::RayTrainWorker"] < began["ray::ElasticController"]
    unused = ("mlflow", "sklearn", "torch._dynamo", "torch._inductor", "sympy")
    assert [name for name in unused if name in told["loaded"]] == []
