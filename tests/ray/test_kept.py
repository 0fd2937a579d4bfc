"""What keepers are for, on real processes of separate raylets: no worker is left, and the machines live."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tests.ray.conftest import wait_until
from tests.ray.test_faults import Begin, assert_nothing_lost, running
from tests.ray.test_faults import begin as begin
from tests.ray.test_faults import cluster as cluster
from tests.ray.test_faults import cluster_of_faults as cluster_of_faults
from tests.ray.test_faults import quiet as quiet

from headway.report import Report
from headway.testing.faults import Faults

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

KEPT = {"every_steps": 1000}
"""State is with the nodes' keepers alone."""


def test_the_only_worker_is_killed_and_its_state_is_kept(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"max": 1}, checkpoint=KEPT)
    [victim] = fire.wait_for_members(1)
    fire.inject(Faults().kill(worker=0, at_step=12))
    fire.wait(lambda: fire.events("restart"), "training goes on from what is kept")
    [restart] = fire.events("restart")
    assert restart["kept"]
    assert restart["from_step"] >= 10
    keepers = [pid for pid in fire.node_of(victim).processes() if is_keeper(pid)]
    assert len(keepers) == 1
    assert_nothing_lost(fire, quiet, restarted=True)
    assert len(fire.repeated) <= 3
    wait_until(lambda: not any(map(running, keepers)), "the keeper ends with the run")


@pytest.mark.long  # tests/unit/test_kept_runs.py has it; of raylets, the one above and fault 16
@pytest.mark.slow
def test_all_workers_of_all_nodes_are_killed_and_the_driver_too(begin: Begin, quiet: Report) -> None:
    """The machines live. The run is resumed by another driver, from what the keepers hold."""
    fire = begin(checkpoint=KEPT)
    members = fire.wait_for_members(2)
    fire.inject(Faults().kill(everyone=True, at_step=12))
    fire.wait(lambda: fire.events("restart"), "training goes on from what is kept")
    keepers = [pid for m in members for pid in fire.node_of(m).processes() if is_keeper(pid)]
    assert len(keepers) == 2
    fire.wait(lambda: fire.step >= 30, "it trains")
    fire.kill()
    wait_until(lambda: not any(running(m["pid"]) for m in fire.members() if m["pid"]), "nobody trains without a head")
    last = fire.step
    fire.resume()
    fire.wait(lambda: len(fire.events("restart")) == 2, "it goes on from what is kept")
    assert [restart["kept"] for restart in fire.events("restart")] == [True, True]
    assert fire.events("restart")[1]["from_step"] >= last - 2
    assert_nothing_lost(fire, quiet, restarted=True)
    wait_until(lambda: not any(map(running, keepers)), "the keepers end with the run")


@pytest.mark.slow
def test_a_node_takes_its_keeper_along(begin: Begin, quiet: Report) -> None:
    fire = begin(checkpoint=KEPT)
    _, victim = fire.wait_for_members(2)
    node = fire.node_of(victim)
    if not node.alone:
        pytest.skip("nodes have no PID namespaces here")
    fire.wait(lambda: fire.step >= 2, "states are kept")
    keepers = [pid for pid in node.processes() if is_keeper(pid)]
    assert len(keepers) == 1
    fire.inject(Faults().kill(node=node.number, at_step=0))
    wait_until(lambda: not any(map(running, keepers)), "the keeper's end")
    assert_nothing_lost(fire, quiet)


def is_keeper(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"elastic.worker.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
