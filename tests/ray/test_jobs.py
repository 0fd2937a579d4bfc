"""Jobs on a cluster that is somewhere else, from a shell on no machine of it: what befalls them, and what is told."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.ray.conftest import Project, wait_until
from tests.ray.laptop import Laptop, ended, shared
from tests.recipes.test_recipes import images

from headway import jobs
from headway.cluster.local.processes import isolation
from headway.runs import audit
from headway.runs.requests import this_person

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not isolation(), reason="no namespaces can be made here"),
    pytest.mark.timeout(900),
]
RECIPE = Path(__file__).parents[2] / "trainers" / "image_classification" / "job.yaml"
STEPS = 60
SMALLER = {
    "steps": STEPS,
    "lanes": 4,
    "arguments.channels": 48,
    "schedule.warmup_steps": 5,
    "evaluate_every_steps": 20,
    "checkpoint.every_steps": 5,
    "reproducible": "bitwise",
    "tracking.enabled": "false",
}


def settings(**changes: object) -> list[str]:
    """The recipe in small, with its data in another place."""
    return [part for key, value in {**SMALLER, **changes}.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from headway.data.write.writer import write_dataset

    folder = tmp_path_factory.mktemp("pictures")
    for part, rows in (("train", 1024), ("test", 96)):
        write_dataset(folder / part, [images(rows)], name="pictures", source="made by a test", label="label")
    return folder


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory, project: Project, pictures: Path) -> Laptop:
    found = shared(tmp_path_factory, project)
    for part in ("train", "test"):
        found.s3.put("bucket", f"pictures/{part}", pictures / part)
    return found


@pytest.fixture(scope="module")
def quiet(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The undisturbed run, on this machine and in a folder."""
    places = {"data.train": pictures / "train", "data.validation": pictures / "test"}
    command = [sys.executable, "-m", "headway.cli.app", "train", str(RECIPE), *settings(**places), "--json"]
    folder = tmp_path_factory.mktemp("quiet")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def recipe(laptop: Laptop, *more: object) -> list[object]:
    """Arguments of `headway submit`."""
    places = {"data.train": "s3://bucket/pictures/train", "data.validation": "s3://bucket/pictures/test"}
    return [RECIPE, *settings(**places, **{"data.store.endpoint": laptop.s3.endpoint}), *more]


def same(report: dict[str, Any], quiet: dict[str, Any]) -> None:
    assert report["state"] == "finished"
    for name in ("weights_sha256", "samples_sha256", "losses", "steps"):
        assert report[name] == quiet[name], name


def test_a_node_is_killed_the_head_is_replaced_and_the_run_goes_on(
    laptop: Laptop, quiet: dict[str, Any], record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    print(f"seed {seed}")
    record_property("seed", seed)
    cluster = laptop.cluster

    sent = laptop.told("submit", *recipe(laptop, "--name", "moved"))
    assert (sent["run"], sent["state"], sent["where"]) == ("moved", "running", f"{laptop.url}/moved")
    [row] = laptop.told("ls")["runs"]
    assert (row["run"], row["state"]) == ("moved", "running")
    following = laptop.begin("logs", "moved", "-f", "--json")

    first, more = draw.randrange(2, 10), draw.randrange(5, 15)
    wait_until(lambda: laptop.steps("moved") >= first, "it trains")
    cluster.kill_node(1)
    cluster.add_node()
    before = laptop.steps("moved")
    # What is asked meanwhile takes seconds, in which it goes on.
    wait_until(lambda: laptop.steps("moved") >= min(before + more, STEPS // 2), "it goes on")
    assert laptop.told("status", "moved")["state"] == "running"
    assert laptop.told("report", "moved")["state"] == "running"
    assert "its node is gone" in laptop.headway("events", "moved")[0]

    cluster.replace_head()
    assert laptop.steps("moved") < STEPS, "it was to be in the middle of it"
    row = laptop.told("status", "moved")
    assert row["step"] >= before  # of what was known, nothing is forgotten
    assert laptop.listed() == []
    for _ in range(2):
        cluster.add_node()

    done = laptop.told("resume", "moved", "--address", cluster.jobs, "--wait")
    assert done["state"] == "finished"
    assert done["resumed_from"] >= 5
    same(laptop.told("report", "moved"), quiet)
    row = laptop.told("status", "moved")
    assert (row["state"], row["step"]) == ("finished", STEPS)
    followed, kept = spoken(ended(following)[0]), spoken(laptop.headway("logs", "moved", "--json")[0])
    assert followed == kept  # over both starts: every line of every process, and each once
    assert any(f"step {STEPS}/{STEPS}" in line for line in kept["driver"])
    told = laptop.headway("events", "moved")[0]
    for text in ("its node is gone; the others went on", "again, with", f"finished after step {STEPS}"):
        assert text in told, told


def spoken(lines: str) -> dict[str, list[str]]:
    """What `headway logs --json` printed, by who said it."""
    found: dict[str, list[str]] = {}
    for line in map(json.loads, lines.splitlines()):
        found.setdefault(line["source"], []).append(line["text"])
    return found


@pytest.fixture
def digits(laptop: Laptop, project: Project, tmp_path: Path) -> Path:
    """A job whose steps take as long as `arguments.pause` says, with its data in the store."""
    folder = tmp_path / "digits"
    shutil.copytree(project.folder, folder, ignore=shutil.ignore_patterns("train", "test"))
    job = yaml.safe_load(project.job.read_text())
    places = {use: f"s3://bucket/digits/{part}" for use, part in (("train", "train"), ("validation", "test"))}
    del job["check"]  # it is tried before it runs
    job["data"] = {**places, "store": {"endpoint": laptop.s3.endpoint}}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def test_what_is_refused_leaves_nothing(laptop: Laptop, digits: Path) -> None:
    """What only the cluster can know. What a laptop sees by itself is in tests/unit/test_submitting.py."""
    runs, listed = laptop.place.folders(), laptop.listed()

    def refused(*arguments: object, **variables: str) -> str:
        out, err = laptop.headway("submit", digits, *arguments, code=2, **variables)
        assert not out
        assert "/headway/" not in err  # no frame of ours
        return err

    said = refused("--name", "big", "--set", "workers.cpus=64")
    assert "no node of the cluster holds one: the most that a node has is CPU 1" in said

    scale = digits.with_name("scale.py")
    plain = scale.read_text()
    scale.write_text(f"import os\n\nos.environ['ONLY_ON_THE_LAPTOP']\n{plain}")
    said = refused("--name", "imports", ONLY_ON_THE_LAPTOP="1")
    assert "KeyError: 'ONLY_ON_THE_LAPTOP'" in said
    assert f'File "{scale}", line 3' in said  # as its author knows it
    scale.write_text(plain)

    said = refused("--name", "unread", "--set", "data.train=s3://bucket/nothing")
    assert "s3://bucket/nothing" in said

    said = refused("--name", "wrong", RAY_AUTH_TOKEN="a" * 64)
    assert "token" in said
    assert (laptop.place.folders(), laptop.listed()) == (runs, listed)


def test_stopped_and_resumed(laptop: Laptop, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a name; it is stopped with a checkpoint, and goes on from there, asked from Python."""
    laptop.headway("submit", digits, "--name", "paused", "--set", "arguments.pause=0.1")
    wait_until(lambda: laptop.steps("paused") >= 3, "it trains")
    _, said = laptop.headway("submit", digits, "--name", "paused", code=2)
    assert f"paused is on {laptop.cluster.jobs} already" in said
    assert "headway status paused --address" in said

    stopped = laptop.told("stop", "paused")
    assert stopped["state"] == "stopped"
    assert stopped["checkpoint"] == stopped["step"] >= 3
    row = laptop.told("status", "paused")
    assert (row["state"], row["step"]) == ("stopped", stopped["step"])
    assert not laptop.told("stop", "paused")["asked"]

    for name, value in laptop.environment().items():
        monkeypatch.setenv(name, value)
    done = jobs.resume("paused", address=laptop.cluster.jobs, runs=laptop.url, wait=True)
    assert (done.state, done.resumed_from) == ("finished", stopped["step"])
    assert [row.state for row in jobs.ls(runs=laptop.url).runs if row.run == "paused"] == ["finished"]
    report = laptop.told("report", "paused")
    assert (report["steps"], report["samples_seen"]) == (64, 2 * 1003)  # every row once in each epoch
    told = laptop.headway("events", "paused")[0]
    for text in ("asks the run to end", "stopped", "again, with", "finished after step 64"):
        assert text in told, told
    verdict = audit.look(laptop.place.at(f"{audit.FOLDER}/"))
    assert verdict.faults == ()
    asked = [entry.act for entry in verdict.entries if entry.act.on == "paused"]
    assert [act.verb for act in asked] == ["submit", "stop", "resume"], "each once, wherever it was asked and done"
    assert {act.by for act in asked} == {this_person()}


KILL = """
import os, pathlib, signal
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    words = (entry / "cmdline").read_bytes().split(b"\\0")
    if b"headway.jobs.there.driver" in words:
        os.kill(int(entry.name), signal.SIGKILL)
        print("killed")
"""


@pytest.mark.long
def test_stopped_at_once_and_killed(laptop: Laptop, digits: Path) -> None:
    """Without a checkpoint; and where its driver is killed, that one's parent closes it, with the reason."""
    laptop.told("submit", digits, "--name", "held", "--set", "arguments.pause=0.1")
    wait_until(lambda: laptop.steps("held") >= 2, "it trains")
    told = laptop.told("stop", "held", "--now")
    assert (told["state"], told["asked"]) == ("stopped", True)
    assert (told["checkpoint"] or 0) <= told["step"] == laptop.steps("held")
    assert laptop.told("stop", "held")["asked"] is False
    wait_until(lambda: not laptop.jobs("held")[0].alive, "the end of its job")
    assert laptop.jobs("held")[0].exit_code == 4

    again = laptop.told("resume", "held", "--address", laptop.cluster.jobs)
    assert again["resumed_from"] == told["checkpoint"]
    wait_until(lambda: laptop.told("status", "held")["state"] == "running", "it is led again")
    killer = laptop.cluster.run([sys.executable, "-c", KILL], stdout=subprocess.PIPE, text=True)
    assert killer.communicate(timeout=60)[0] == "killed\n"
    wait_until(lambda: laptop.told("report", "held")["state"] == "failed", "its parent closes it")
    report = laptop.told("report", "held")
    assert report["cause"] == "platform"
    assert "what leads the run was ended by SIGKILL" in report["message"]
    wait_until(lambda: not any(each.alive for each in laptop.jobs("held")), "the end of its job")
    assert laptop.jobs("held")[-1].exit_code == 3
    happened = laptop.headway("events", "held")[0]
    for text in ("asks the run to end at once, without a checkpoint", "failed after step"):
        assert text in happened, happened
