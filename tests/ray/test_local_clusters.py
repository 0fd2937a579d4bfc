"""`headway cluster` on this machine, with real nodes: it comes up, takes jobs, grows, shrinks, and leaves nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until

from headway.cluster.known import KNOWN, VARIABLE
from headway.cluster.local import orders
from headway.cluster.local.orders import MARK
from headway.cluster.local.processes import marked

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FIXED = """\
cluster_name: fixed
max_workers: 2
provider: {type: this-machine, headway: {tls: TLS}}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  worker: {min_workers: 1, max_workers: 1, resources: {CPU: 1, disk: 2}}
"""
GROWING = """\
cluster_name: growing
max_workers: 2
idle_timeout_minutes: 0.05
provider: {type: this-machine}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  worker: {resources: {CPU: 1}}
"""
WORK = """\
import os, sys, ray
ray.init(log_to_driver=False)

@ray.remote(num_cpus=1)
def where():
    return os.environ["RAY_CLOUD_INSTANCE_ID"]

print(sorted(ray.get([where.options(scheduling_strategy="SPREAD").remote() for _ in range(int(sys.argv[1]))]))[0])
"""


ON_DISK = "import ray; ray.init(); print(ray.get(ray.remote(resources={'disk': 1})(lambda: 41).remote()) + 1)"
STAY = "\nimport time; print('there', flush=True); time.sleep(999)"


class Shell:
    """Calls `headway`, with a home of its own for clusters."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clusters = folder, folder / "clusters"
        self.ids: set[str] = set()

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HEADWAY_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "headway.cli.app", "cluster", *map(str, arguments)],
            env={**kept, VARIABLE: str(self.clusters), "HEADWAY_CACHE": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, *arguments: object, code: int = 0) -> Any:
        """The JSON object that a command prints."""
        process = self.begin(*arguments, "--json")
        out, err = process.communicate(timeout=200)
        assert process.returncode == code, f"{out}\n{err}"
        return json.loads(out) if out else err

    def up(self, text: str) -> dict[str, Any]:
        (self.folder / "c.yaml").write_text(text)
        found: dict[str, Any] = self.told("up", self.folder / "c.yaml")
        self.ids.add(self.id(found["name"]))
        return found

    def id(self, name: str) -> str:
        return str(json.loads((self.clusters / name / KNOWN).read_text())["id"])

    def run(self, name: str, *command: str) -> str:
        """What a command prints in a shell that means the cluster."""
        script = f'. {self.clusters / name / "env"} && "$@"'
        done = subprocess.run(["sh", "-c", script, "sh", *command], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def left(self) -> list[int]:
        """Processes of any cluster that was started from here."""
        return [pid for id in self.ids for pid in marked(f"{MARK}={id}")]

    def nodes(self, name: str) -> dict[str, str]:
        """State of each node by its name, the head not among them."""
        return {each["name"]: each["state"] for each in self.told("status", name)["nodes"][1:]}

    def jobs(self, name: str) -> int | None:
        """Jobs that have not ended, as Ray tells the host."""
        found: int | None = orders.ask(self.clusters / name, {"do": "status"})["jobs"]
        return found

    def close(self) -> None:
        for name in [path.parent.name for path in self.clusters.glob(f"*/{KNOWN}")]:
            self.told("down", name)
        assert self.left() == []


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    try:
        yield made
    finally:
        made.close()


def host_of(shell: Shell, name: str) -> int:
    """The process that owns a cluster: it leads its session, and was started from here."""
    wanted = f"headway.cluster.local.host\0{shell.clusters / name}\0".encode()
    return next(pid for pid in shell.left() if wanted in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_cluster_of_a_fixed_size(shell: Shell) -> None:
    """Up, a job over HTTP, one more node, a drain, and the host's death, after which nothing is left.

    Under mutual TLS, where its certificates can be made.
    """
    tls = "false" if importlib.util.find_spec("cryptography") is None else "true"
    found = shell.up(FIXED.replace("TLS", tls))
    assert shell.nodes("fixed") == {"0": "up"}
    assert "is up already" in shell.told("up", shell.folder / "c.yaml", code=2)
    entrypoint = f'{sys.executable} -c "{ON_DISK}"'
    submitted = shell.run("fixed", sys.executable, "-c", SUBMIT, found["jobs"], entrypoint)
    assert submitted.split()[-1] == "42"

    assert shell.told("add")["said"] == ["node 1 (worker) is up"]
    assert "max_workers is 2" in shell.told("add", code=2)
    shell.told("drain", "0", "--deadline", "120s")
    until(lambda: shell.nodes("fixed") == {"1": "up", "0": "down"}, "it goes before the deadline: it does nothing", 60)

    os.kill(host_of(shell, "fixed"), signal.SIGKILL)
    until(lambda: not shell.left(), "nothing outlives the host", 60)
    assert shell.told("status", "fixed")["state"] == "down"
    assert shell.told("down", "fixed")["note"] == "it had ended before"
    assert not (shell.clusters / "fixed").exists()


SUBMIT = """\
import sys, time
from headway.jobs.api.tokens import find
import json, urllib.request

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {find()}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(sys.argv[1] + path, data, headers), timeout=60) as answer:
        return json.loads(answer.read())

made = ask("/api/jobs/", {"entrypoint": sys.argv[2]})["submission_id"]
while (state := ask(f"/api/jobs/{made}")["status"]) in ("PENDING", "RUNNING"):
    time.sleep(0.2)
print(state, ask(f"/api/jobs/{made}/logs")["logs"])
"""


def test_a_cluster_that_grows_and_shrinks(shell: Shell) -> None:
    """From no node to what is asked for and back; and nothing is left after its driver was killed and it was ended."""
    shell.up(GROWING)
    assert shell.nodes("growing") == {}
    # which of the two that start comes first, and so takes the work, is the machine's affair
    assert shell.run("growing", sys.executable, "-c", WORK, "4").splitlines()[-1] in ("growing-0", "growing-1")
    until(lambda: set(shell.nodes("growing").values()) == {"down"}, "idle nodes go", 120)
    assert shell.told("add", "1")["said"] == ["there are at least 1 of worker now; the autoscaler starts them"]
    until(lambda: "up" in shell.nodes("growing").values(), "one that was added comes", 60)
    command = f'. {shell.clusters / "growing" / "env"} && exec "$@"'
    driver = subprocess.Popen(
        [
            "sh",
            "-c",
            command,
            "sh",
            sys.executable,
            "-c",
            WORK + "\nimport time; print('there', flush=True); time.sleep(999)",
            "1",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert driver.stdout is not None
    assert "there\n" in iter(driver.stdout.readline, "")
    until(lambda: shell.jobs("growing") == 1, "by which the host knows that it is not idle", 60)
    driver.kill()
    driver.communicate()
    until(lambda: shell.jobs("growing") == 0, "the killed driver is no job any more", 60)
    done = shell.told("down", "growing")
    assert done["leftovers"] == []
    assert "the head" in done["ended"]
    assert shell.left() == []


def test_an_up_that_is_killed_leaves_nothing(shell: Shell) -> None:
    (shell.folder / "c.yaml").write_text(FIXED.replace("TLS", "false"))
    process = shell.begin("up", shell.folder / "c.yaml")
    until(lambda: (shell.clusters / "fixed" / KNOWN).exists(), "it has begun", 60)
    shell.ids.add(shell.id("fixed"))
    until(lambda: len(shell.left()) > 3, "the head starts", 60)
    process.kill()
    process.communicate()
    # the head is given its 120 s to come up before it is ended
    until(lambda: not shell.left() and not (shell.clusters / "fixed").exists(), "nothing is left", 180)
