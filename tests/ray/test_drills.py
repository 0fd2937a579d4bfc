"""Drills at random: whatever befalls the machines, the samples and the weights are those of the quiet run.

And a drill by the command line, of a job that lives outside this repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Command, Project
from tests.ray.fire import EPOCH_STEPS, Fire, make_whole
from tests.tiers import SOAK

from headway.testing.cluster import Cluster
from headway.testing.faults import Fault, random_faults, script
from headway.testing.injector import Injector
from headway.testing.inside import ENVIRONMENT
from headway.testing.links import cut_possible, lacking

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(300)]

DRILLS = os.environ.get("HEADWAY_DRILLS", "30" if SOAK else "")
SEEDS = range(int(DRILLS)) if DRILLS else (0, 1, 2, 4, 5)
"""About a minute each; every kind of fault is among these five. `HEADWAY_DRILLS=100 pytest tests/ray/test_drills.py`
for a night."""
NODES, EPOCHS = 2, 2
STEPS = EPOCHS * EPOCH_STEPS
LINKS = cut_possible() is None
WITHOUT = {*lacking(), "full-disk"}
"""The runs of one cluster share a folder of the tests, which is no disk of a drill's own."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(NODES, links=LINKS, environment=ENVIRONMENT) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def quiet(undisturbed: dict[str, Any]) -> dict[str, Any]:
    """The undisturbed run, on no cluster."""
    assert (undisturbed["state"], undisturbed["steps"]) == ("finished", STEPS)
    return undisturbed


def numbered(faults: tuple[Fault, ...], cluster: Cluster) -> list[Fault]:
    """The faults with the cluster's numbers: its first node that is up is the script's node 0, and so on."""
    numbers = [node.number for node in cluster.nodes if node.state == "up"]
    numbers += range(len(cluster.nodes), len(cluster.nodes) + len(faults))
    return [
        replace(fault, which=tuple(numbers[i] for i in fault.which)) if fault.target == "node" else fault
        for fault in faults
    ]


@pytest.mark.parametrize("seed", [*SEEDS[:1], *(pytest.param(seed, marks=pytest.mark.long) for seed in SEEDS[1:])])
def test_nothing_shows_afterwards(
    seed: int, cluster: Cluster, quiet: dict[str, Any], project: Project, tmp_path: Path
) -> None:
    drawn = random_faults(seed, STEPS, NODES, without=WITHOUT)
    print(f"seed {seed}: {script(drawn)}")
    make_whole(cluster, NODES)
    faults = numbered(drawn, cluster)
    most = min(4, NODES + sum(fault.verb == "add" for fault in faults))
    with Fire(cluster, project, tmp_path, {"max": most}, brake=0.15, epochs=EPOCHS) as fire:
        with Injector(fire.run.path, faults, cluster) as injector:
            fire.follow(lambda: not injector.left)
            report = fire.end()
        print(f"not injected: {script(injector.left) or 'none'}")
    for fault in faults:
        if fault.verb == "drain":  # its deadline may still be to come
            cluster.kill_node(fault.which[0])
    assert injector.done
    assert not injector.refused
    assert (report.state, report.message) == ("finished", ""), fire.said
    assert [step["step"] for step in fire.run.steps()] == list(range(STEPS))
    assert report.samples_sha256 == quiet["samples_sha256"]
    assert report.weights_sha256 == quiet["weights_sha256"]
    again = {e["from_step"] + i for e in fire.events("restart") for i in range(e["lost_steps"])}
    assert set(fire.repeated) <= again  # only what everybody's loss has cost


@pytest.mark.long
def test_a_drill_of_a_job_elsewhere_by_the_command_line(
    project: Project, headway: Callable[..., Command], tmp_path: Path
) -> None:
    assert not project.job.is_relative_to(Path(__file__).parents[2])
    order = "kill worker=1 step=30; add node step=10; kill driver step=60"
    job = [project.job, "--set", "arguments.pause=0.01", "--steps", "90", "--nodes", "2"]
    job += ["--set", "checkpoint.memory_every=null"]
    code, out, err = headway("drill", *job, "--faults", order, "--json").end(280)
    found = json.loads(out)
    assert code == 0, err
    assert found["same_samples"] is True
    assert found["same_weights"] is True
    assert found["samples_missed"] == 0
    assert 0 < found["steps_repeated"] <= 10  # those since the last checkpoint before the driver was killed
    assert 0 < found["samples_repeated"] <= 10 * 32
    assert 0 < found["goodput"] <= 1
    assert found["ledger_s"]["compute"] > 0
    assert (found["state"], found["steps"], found["bitwise"]) == ("finished", 90, True)
    assert {fault["fault"] for fault in found["faults"]} == set(order.split("; "))
    assert all(fault["time"] and fault["committed"] >= fault["step"] for fault in found["faults"])
    died = next(recovery for recovery in found["recoveries"] if recovery["fault"] == "kill worker=1 step=30")
    assert died["cause"] == "process_died"
    assert 0 <= died["detected_s"] <= died["resumed_s"] < 60
    assert not list(tmp_path.iterdir())  # nothing is left where the command was given
