"""What a run must survive: eighteen faults, each at its moment, on real processes of separate raylets.

All runs do the same job. After each fault the samples and, to the bit, the weights are those of the quiet run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.dear import Dear, once
from tests.ray.conftest import Project, wait_until
from tests.ray.fire import STEPS, Fire, make_whole

from headway import jobs
from headway.checkpoint.store import committed
from headway.cluster.agent import gcs
from headway.cluster.local.processes import session_of
from headway.core.notices import AGENT
from headway.errors import BadInput
from headway.report import Report
from headway.testing.cluster import Cluster, Node
from headway.testing.faults import Faults
from headway.testing.inside import ENVIRONMENT
from headway.testing.links import cut_possible
from headway.testing.metadata import Metadata

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

NODES = 3
RESUME_S = 60.0
"""From detection to the next step. How fast it is on a quiet machine, benchmarks/elasticity.py says."""
RARELY = {"every_steps": 10, "memory_every": None}
"""Checkpoints: far enough apart that a fault falls between two of them."""

Begin = Callable[..., Fire]


_machines = Dear[Cluster]("cluster_of_faults")


@pytest.fixture(scope="module")
def cluster_of_faults() -> Cluster:
    return _machines.get(lambda: Cluster(NODES, environment=ENVIRONMENT))


@pytest.fixture(scope="module")
def cluster(cluster_of_faults: Cluster) -> Cluster:
    return cluster_of_faults


@pytest.fixture(scope="module")
def quiet(cluster: Cluster, project: Project, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The undisturbed run."""

    def train() -> dict[str, Any]:
        make_whole(cluster, NODES)
        with Fire(cluster, project, tmp_path_factory.mktemp("quiet"), brake=0.0) as fire:
            report = fire.end()
            assert report.state == "finished", fire.said
            assert report.steps == STEPS
            return report.model_dump(mode="json")

    return Report(**once(tmp_path_factory, "faults", train))


@pytest.fixture
def begin(cluster: Cluster, quiet: Report, project: Project, tmp_path: Path) -> Iterator[Begin]:
    """Start the job on a cluster that is whole; arguments as of `Fire`."""
    make_whole(cluster, NODES)
    started: list[Fire] = []

    def start(**arguments: Any) -> Fire:
        started.append(Fire(cluster, project, tmp_path, **arguments).__enter__())
        return started[0]

    yield start
    for fire in started:
        fire.__exit__(None, None, None)


def assert_nothing_lost(fire: Fire, quiet: Report, restarted: bool = False) -> Report:
    """The run has come to its end, and is that of the quiet run; without a restart nothing was done twice."""
    report = fire.end()
    assert (report.state, report.message) == ("finished", ""), fire.said[-4000:]
    assert [step["step"] for step in fire.run.steps()] == list(range(STEPS))
    assert report.samples_sha256 == quiet.samples_sha256
    assert report.weights_sha256 == quiet.weights_sha256
    if not restarted:
        assert not fire.repeated
        assert not fire.events("restart")
    for recovery in report.recoveries:
        assert recovery["resumed_at"] - recovery["detected_at"] < RESUME_S, recovery
    return report


def running(pid: int) -> bool:
    """Whether a process lives; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def trained_later(fire: Fire, worker: str, generation: int) -> bool:
    """Whether a worker was a member in a generation or a later one."""
    later = [event for event in fire.events("generation") if event["generation"] >= generation]
    assert later
    return any(worker in event["members"] for event in later)


def test_1_a_worker_killed_while_it_computes(begin: Begin, quiet: Report) -> None:
    fire = begin()
    _, victim = fire.wait_for_members(2)
    fire.order("die", victim["id"], "compute")
    recovery = fire.wait_for_recovery("process_died")
    assert recovery["workers"] == [victim["id"]]
    assert_nothing_lost(fire, quiet)
    assert not trained_later(fire, victim["id"], recovery["generation"])


@pytest.mark.long  # as in 1, where they come to wait for it
@pytest.mark.slow
def test_2_a_worker_killed_while_the_others_wait_for_it_in_a_collective(begin: Begin, quiet: Report) -> None:
    fire = begin()
    _, victim = fire.wait_for_members(2)
    fire.order("die", victim["id"], "exchange")
    assert fire.wait_for_recovery("process_died")["workers"] == [victim["id"]]
    assert_nothing_lost(fire, quiet)


@pytest.mark.long
def test_3_a_worker_killed_while_the_survivors_of_another_regroup(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"max": 3})
    survivor, first, second = fire.wait_for_members(3)
    fire.order("die", second["id"], "regroup")
    fire.order("die", first["id"], "compute")
    recovery = fire.wait_for_recovery("process_died")
    assert sorted(recovery["workers"]) == sorted([first["id"], second["id"]])  # one incident, not two
    assert trained_later(fire, survivor["id"], recovery["generation"])
    assert_nothing_lost(fire, quiet)


@pytest.mark.long
def test_4_workers_killed_before_they_join_and_as_they_join(begin: Begin, quiet: Report) -> None:
    fire = begin(brake=0.5)
    _, victim = fire.wait_for_members(2)
    newest = max(int(member["id"][1:]) for member in fire.members())
    before, entering, last = (f"w{newest + i}" for i in (1, 2, 3))
    fire.order("die", before, "join")
    fire.order("die", entering, "regroup")
    fire.order("die", victim["id"], "compute")
    fire.wait(lambda: last in [member["id"] for member in fire.members()], f"{last} has joined")
    fire.wait_for_recovery("joined")
    assert not trained_later(fire, before, 0)
    lost = [recovery["workers"] for recovery in fire.recoveries("process_died")]
    assert lost[0] == [victim["id"]]
    assert not any(before in workers for workers in lost)  # nobody stopped for one that had not joined
    assert_nothing_lost(fire, quiet)


@pytest.mark.long
def test_another_size_that_is_asked_for_while_it_runs(begin: Begin, quiet: Report) -> None:
    fire = begin()
    run = str(fire.run.path)
    fire.wait_for_members(2)
    grown = jobs.resize(run, 3)
    assert (grown.min, grown.max, grown.heard) == (1, 3, True)
    fire.wait_for_members(3)
    fire.wait_for_recovery("joined")
    with pytest.raises(BadInput, match="its 4 lanes cannot be carried by more than 4 workers"):
        jobs.resize(run, 5)
    shrunk = jobs.resize(run, "1..1")
    assert shrunk.heard
    fire.wait_for_members(1)
    assert_nothing_lost(fire, quiet)
    assert [(e["min"], e["max"]) for e in fire.events("resize")] == [(1, 3), (1, 1)]
    assert not fire.events("lost")
    with pytest.raises(BadInput, match="Only a run that is running"):
        jobs.resize(run, 2)


@pytest.mark.slow
def test_5_the_leader_killed_in_a_checkpoint(begin: Begin, quiet: Report) -> None:
    fire = begin()
    leader, _ = fire.wait_for_members(2)
    fire.order("die", leader["id"], "checkpoint")
    assert fire.wait_for_recovery("process_died")["workers"] == [leader["id"]]
    report = assert_nothing_lost(fire, quiet)
    kept = committed(fire.run.checkpoints)
    assert [checkpoint.where for checkpoint in kept] == [checkpoint["path"] for checkpoint in report.checkpoints]
    for checkpoint in kept:  # and no torn one
        checkpoint.verify()


@pytest.mark.slow
def test_6_a_raylet_killed(begin: Begin, quiet: Report) -> None:
    fire = begin()
    _, victim = fire.wait_for_members(2)
    node = fire.node_of(victim)
    raylets = [pid for pid in session_of(node.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]
    assert len(raylets) == 1
    os.kill(raylets[0], signal.SIGKILL)
    try:
        recovery = fire.wait_for_recovery("node_died")
    finally:
        fire.cluster.kill_node(node.number)  # what is left of it
    assert (recovery["workers"], recovery["node_id"]) == ([victim["id"]], node.node_id)
    assert_nothing_lost(fire, quiet)


@pytest.mark.long
@pytest.mark.slow
def test_7_the_node_of_rank_0_killed(begin: Begin, quiet: Report) -> None:
    fire = begin()
    leader, other = fire.wait_for_members(2)
    node = fire.node_of(leader)
    fire.inject(Faults().kill(node=node.number, at_step=0))
    recovery = fire.wait_for_recovery("node_died")
    assert (recovery["workers"], recovery["node_id"]) == ([leader["id"]], node.node_id)
    assert fire.members()[0]["id"] == other["id"]
    assert_nothing_lost(fire, quiet)


@pytest.mark.long
def test_8_two_workers_killed_at_once(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"max": 3})
    first, survivor, second = fire.wait_for_members(3)
    fire.inject(Faults().kill(workers=(0, 2), at_step=0))
    recovery = fire.wait_for_recovery("process_died")
    lost = {worker for event in fire.recoveries("process_died") for worker in event["workers"]}
    assert lost == {first["id"], second["id"]}
    assert trained_later(fire, survivor["id"], recovery["generation"])
    assert_nothing_lost(fire, quiet)


@pytest.fixture(scope="module")
def linked() -> Iterator[Cluster]:
    reason = cut_possible()
    if reason is not None:
        pytest.skip(f"links cannot be cut here: {reason}")
    with Cluster(2, links=True, environment=ENVIRONMENT) as cluster:
        yield cluster


@pytest.mark.long
def test_9_a_link_cut_for_ever(linked: Cluster, quiet: Report, project: Project, tmp_path: Path) -> None:
    make_whole(linked, 2)
    with Fire(linked, project, tmp_path) as fire:
        _, victim = fire.wait_for_members(2)
        fire.inject(Faults().cut(node=fire.node_of(victim).number, at_step=0))
        recovery = fire.wait_for_recovery("link_cut")
        assert recovery["workers"] == [victim["id"]]
        assert_nothing_lost(fire, quiet)
        assert not trained_later(fire, victim["id"], recovery["generation"])


@pytest.mark.slow
def test_10_a_link_cut_and_back_the_leader_behind_it_commits_nothing(
    linked: Cluster, quiet: Report, project: Project, tmp_path: Path
) -> None:
    make_whole(linked, 2)
    with Fire(linked, project, tmp_path) as fire:
        leader, _ = fire.wait_for_members(2)
        node = fire.node_of(leader)
        fire.inject(Faults().cut(node=node.number, at_step=0))
        recovery = fire.wait_for_recovery("link_cut")
        assert recovery["workers"] == [leader["id"]]
        linked.restore(node.number)
        fire.wait(lambda: not running(leader["pid"]), "the worker that came back has ended")
        assert_nothing_lost(fire, quiet)
        assert not trained_later(fire, leader["id"], recovery["generation"])


@pytest.mark.long
def test_11_a_stopped_worker_that_goes_on_later_commits_nothing(begin: Begin, quiet: Report) -> None:
    fire = begin()
    leader, _ = fire.wait_for_members(2)
    fire.inject(Faults().stop(worker=0, at_step=0, for_s=None))
    try:
        recovery = fire.wait_for_recovery("stopped")
    finally:
        if running(leader["pid"]):
            os.kill(leader["pid"], signal.SIGCONT)
    assert recovery["workers"] == [leader["id"]]
    wait_until(lambda: not running(leader["pid"]), "the worker that went on has ended")
    assert_nothing_lost(fire, quiet)
    assert not trained_later(fire, leader["id"], recovery["generation"])


@pytest.mark.long  # tests/unit/test_elastic_run.py has it, in processes that are killed
@pytest.mark.slow
def test_12_a_training_thread_that_hangs(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"hang_s": 7.0})
    _, victim = fire.wait_for_members(2)
    fire.inject(Faults().hang(worker=1, at_step=0))
    recovery = fire.wait_for_recovery("hung")
    assert recovery["workers"] == [victim["id"]]
    wait_until(lambda: not running(victim["pid"]), "its process has ended")
    assert_nothing_lost(fire, quiet)


def test_13_a_node_drained_hands_over_before_its_deadline(begin: Begin, quiet: Report) -> None:
    fire = begin()
    _, leaving = fire.wait_for_members(2)
    node = fire.node_of(leaving)
    [drain] = fire.inject(Faults().drain(node=node.number, at_step=0, deadline_s=20.0))
    try:
        recovery = fire.wait_for_recovery("drained")
        assert node.state == "up"  # it was still there when nobody needed it any more
        assert recovery["workers"] == [leaving["id"]]
        assert recovery["resumed_at"] < drain["time"] + 20.0
        assert_nothing_lost(fire, quiet)
        assert not fire.recoveries("node_died")
    finally:
        fire.cluster.kill_node(node.number)


@pytest.mark.long
@pytest.mark.slow
def test_14_too_few_workers_wait_for_a_machine_and_go_on_from_memory(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"min": 3, "max": 3})
    *_, victim = fire.wait_for_members(3)
    fire.inject(Faults().kill(node=fire.node_of(victim).number, at_step=0))
    fire.wait(lambda: fire.events("pause"), "training pauses")
    fire.inject(Faults().add_node(at_step=0))
    recovery = fire.wait_for_recovery("node_died")
    assert_nothing_lost(fire, quiet)
    [pause] = fire.events("pause")
    went_on = next(e["time"] for e in fire.events("generation") if e["generation"] == recovery["generation"])
    meanwhile = [s["step"] for s in fire.run.steps() if pause["time"] + 0.1 < s["time"] < went_on]
    assert not meanwhile  # nobody trained with fewer than min


@pytest.mark.long
def test_15_all_workers_killed(begin: Begin, quiet: Report) -> None:
    fire = begin(checkpoint=RARELY)
    fire.wait_for_members(2)
    fire.wait(lambda: any(fire.run.checkpoints.glob("step-*/*/manifest.json")), "a checkpoint")
    fire.inject(Faults().kill(everyone=True, at_step=newest_checkpoint(fire) + 2))
    safe = newest_checkpoint(fire)
    fire.wait(lambda: fire.events("restart"), "training goes on from a checkpoint")
    assert_nothing_lost(fire, quiet, restarted=True)
    [restart] = fire.events("restart")
    assert restart["from_step"] == safe
    assert sorted(fire.repeated) == [restart["from_step"] + i for i in range(restart["lost_steps"])]
    assert set(fire.repeated.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["driver", pytest.param("controller", marks=pytest.mark.long)])
def test_16_who_leads_the_run_killed_and_the_run_resumed(begin: Begin, quiet: Report, target: str) -> None:
    fire = begin(checkpoint=RARELY)
    members = fire.wait_for_members(2)
    fire.wait(lambda: any(fire.run.checkpoints.glob("step-*/*/manifest.json")), "a checkpoint")
    if target == "driver":
        fire.kill()
    else:
        os.kill(controller(fire.cluster), signal.SIGKILL)
        fire.process.wait(60)
    wait_until(lambda: not any(running(member["pid"]) for member in members), "nobody trains for a run without a head")
    safe, last = newest_checkpoint(fire), fire.step
    fire.resume()
    assert_nothing_lost(fire, quiet, restarted=True)
    assert sorted(fire.repeated) == list(range(safe, last + 1))


def newest_checkpoint(fire: Fire) -> int:
    """The step of the newest one."""
    return committed(fire.run.checkpoints)[-1].step


def controller(cluster: Cluster) -> int:
    """Process id of the run's controller."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in cluster.processes()}
    [pid] = [pid for pid, name in names.items() if "ElasticController" in name]
    return pid


@pytest.mark.long  # tests/contract/test_engine.py and tests/unit/test_elastic_run.py have it
@pytest.mark.slow
def test_17_a_flipped_bit_is_found_and_healed(begin: Begin, quiet: Report) -> None:
    fire = begin(workers={"max": 3}, replica_check_every=1)
    *_, victim = fire.wait_for_members(3)
    fire.inject(Faults().flip(worker=2, at_step=0))
    fire.wait(lambda: fire.events("replica"), "the corrupted replica is found")
    report = assert_nothing_lost(fire, quiet)
    assert [event["worker"] for event in fire.events("replica")] == [victim["id"]]
    assert report.replicas["step"] > 0


@pytest.mark.long  # tests/ray/test_runs.py has it
@pytest.mark.slow
def test_18_an_exception_on_one_worker_ends_the_run_with_its_traceback(begin: Begin) -> None:
    fire = begin(brake=0.0, arguments={"trouble": "raise", "rank": 1})
    report = fire.end()
    assert fire.process.returncode != 0
    assert report.state == "failed"
    assert "KeyError: 'no such thing'" in report.message
    assert "worker 1" in report.message
    assert 'raise KeyError("no such thing")' in fire.said  # the line of the user's own file
    assert "digits.py" in fire.said
    assert not fire.events("recovery")


@contextmanager
def agent(fire: Fire, node: Node, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """The agent of a node, until the end of the block at the latest."""
    command = [sys.executable, "-m", "headway.cluster.agent", "watch", "--node-id", node.node_id, *options]
    process = subprocess.Popen(command, env=fire.cluster.environment)
    try:
        yield process
    finally:
        process.kill()  # what it keeps alive goes with it
        process.wait()


@pytest.mark.slow
def test_machines_that_are_said_to_go_are_left_before(
    begin: Begin, quiet: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is at risk, and left for the node that is free; the other is told to stop, and nobody takes its place."""
    monkeypatch.setattr(gcs, "ANSWER_S", 60.0)
    fire = begin(brake=0.6)  # two workers begin meanwhile, on a machine that may be busy
    _, second = fire.wait_for_members(2)
    risky = fire.node_of(second)
    with Metadata() as service, ExitStack() as agents:
        machine = service.instance("i-1")
        told = ("--notices", "aws", "--url", machine.url, "--instance", machine.id, "--rebalance", "replace")
        agents.enter_context(agent(fire, risky, *told))
        machine.rebalance()
        fire.wait(lambda: risky.node_id not in {m["node_id"] for m in fire.members()}, "it is left for another")
        assert [event["worker"] for event in fire.events("at_risk")] == [second["id"]]
        wait_until(lambda: risky.node_id not in fire.cluster.alive(), "it is drained once nothing runs on it")
        assert fire.events("lingered") == [], "which is as soon as its worker has left"

        first, _ = fire.wait_for_members(2)
        stops = fire.node_of(first)
        stopped = agents.enter_context(agent(fire, stops, "--notices", "none", "--stop-s", "20"))
        key = f"{AGENT}{stops.node_id}"
        wait_until(lambda: key in kept(fire.cluster), "the agent is there")
        stopped.terminate()
        fire.wait(lambda: len(fire.members()) == 1, "the last one goes on alone")
        assert stopped.wait(120) == 0, "and the machine may stop"
        assert key not in kept(fire.cluster)
        (drain,) = [event for event in fire.events("drain") if event["node_id"] == stops.node_id]
        assert (drain["worker"], drain["reason"]) == (first["id"], "the machine stops (SIGTERM)")
        wait_until(lambda: stops.node_id not in fire.cluster.alive(), "Ray ends what is drained and idle")
    assert_nothing_lost(fire, quiet)
    assert not fire.events("lost")


def kept(cluster: Cluster) -> list[str]:
    """What agents keep, by key; asked from outside, without a connection of Ray's."""
    with gcs.Gcs(cluster.address, cluster.environment) as store:
        return store.keys(AGENT)
