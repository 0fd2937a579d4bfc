"""Spares on a cluster: they stand by on a node of their own, take a dead one's place, and change no bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.ray.fire import STEPS, Fire
from tests.ray.test_faults import NODES, Begin
from tests.ray.test_faults import begin as begin
from tests.ray.test_faults import cluster as cluster
from tests.ray.test_faults import cluster_of_faults as cluster_of_faults
from tests.ray.test_faults import quiet as quiet

from headway.report import Report
from headway.testing.faults import Faults

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

AT_ONCE_S = 5.0
"""Less than a start takes on a busy machine. How fast it is on a quiet one, benchmarks/elasticity.py says."""


def in_no_time(fire: Fire, since: float, recovery: dict[str, Any]) -> bool:
    """Whether it took less than the run's own start did, on a machine that was as busy, or next to nothing."""
    start_s = fire.events("generation")[0]["time"] - fire.events("start")[0]["time"]
    return bool(recovery["resumed_at"] - since < max(AT_ONCE_S, start_s))


def standing_by(fire: Fire) -> list[dict[str, Any]]:
    path = fire.run.path / "members.json"
    return [w for w in json.loads(path.read_text())["workers"] if w["phase"] == "ready"] if path.exists() else []


def wait_for_spare(fire: Fire, members: int) -> dict[str, Any]:
    """While so many train: at the beginning all are ready for a moment."""
    found: list[dict[str, Any]] = []
    fire.wait_for_members(members)
    fire.wait(lambda: found.extend(standing_by(fire)) or found, "a spare stands by")
    return found[0]


def assert_as_if_nothing_had_happened(fire: Fire, quiet: Report) -> Report:
    report = fire.end()
    assert (report.state, report.message) == ("finished", ""), fire.said[-4000:]
    assert [step["step"] for step in fire.run.steps()] == list(range(STEPS))
    assert report.samples_sha256 == quiet.samples_sha256
    assert report.weights_sha256 == quiet.weights_sha256
    assert report.ledger_s["spare"] > 0
    return report


def test_a_spare_takes_the_place_of_a_worker_that_is_killed(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"max": 2, "spares": 1})
    spare, members = wait_for_spare(fire, 2), fire.members()
    assert spare["node_id"] not in {m["node_id"] for m in members}
    (record,) = fire.inject(Faults().kill(worker=1, at_step=0))
    recovery = fire.wait_for_recovery("joined")
    assert recovery["workers"] == [spare["id"]]
    assert in_no_time(fire, record["time"], recovery)
    assert_as_if_nothing_had_happened(fire, quiet)
    assert not fire.events("restart")
    assert not fire.repeated


@pytest.mark.long  # tests/unit/test_elastic_run.py has it
def test_a_spare_goes_on_when_the_last_worker_is_killed(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"max": 1, "spares": 1})
    spare = wait_for_spare(fire, 1)
    fire.wait(lambda: any(fire.run.checkpoints.glob("step-*")), "a checkpoint")
    (record,) = fire.inject(Faults().kill(worker=0, at_step=0))
    recovery = fire.wait_for_recovery("process_died")
    assert in_no_time(fire, record["time"], recovery)
    assert [e["members"] for e in fire.events("generation")][1] == [spare["id"]]
    assert not fire.events("pause")
    assert_as_if_nothing_had_happened(fire, quiet)


@pytest.mark.long
def test_a_cluster_without_room_for_a_spare_trains_and_says_so_once(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"max": NODES, "spares": 2})
    fire.wait_for_members(NODES)
    fire.wait(lambda: fire.events("crowded"), "it says that there is no room")
    report = fire.end()
    assert (report.state, report.weights_sha256) == ("finished", quiet.weights_sha256)
    assert len(fire.events("crowded")) == 1
    assert "there is no room for a spare" in fire.said
