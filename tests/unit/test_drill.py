"""The drill's arithmetic on made-up run folders, its injector against processes of the test, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.waiting import until
from typer.testing import CliRunner

from headway.cli.app import app
from headway.core.digest import Chain
from headway.core.order import Order
from headway.errors import BadInput
from headway.testing import account
from headway.testing.account import Account, lane_digests, recoveries, samples
from headway.testing.faults import VERBS, parse
from headway.testing.follower import Follower
from headway.testing.health import Patience, killed
from headway.testing.injector import Injector
from headway.testing.network.switch import HEAD

ORDER = Order((10, 7), seed=3, lanes=2, lane_batch=3)  # 3 steps of 6, 6 and 5 rows
TOTAL = 7


def steps_of(order: Order, total: int) -> list[dict[str, Any]]:
    """What the recorder writes for an undisturbed run."""
    chain, found = Chain(), []
    for step, lanes in zip(range(total), lane_digests(order), strict=False):
        chain.add(step, lanes)
        found.append({"step": step, "time": 100.0 + step, "samples": chain.hexdigest()})
    return found


def test_the_expected_digests_are_those_of_the_lanes() -> None:
    epoch, step = 1, 2
    wanted = list(zip(range(6), lane_digests(ORDER), strict=False))[5][1]
    for lane in range(2):
        ids = ORDER.lane_ids(epoch, lane)[step * 3 : step * 3 + 3]
        assert (wanted[lane] == account.of_ids(ids)).all()


def test_an_undisturbed_run_has_lost_nothing() -> None:
    assert samples(ORDER, TOTAL, steps_of(ORDER, TOTAL)) == account.Samples(True, 0, 0, 0)


def test_a_missing_step_is_missed_samples() -> None:
    steps = steps_of(ORDER, TOTAL)
    del steps[2]  # 5 rows
    assert samples(ORDER, TOTAL, steps) == account.Samples(False, 5, 0, 0)
    assert samples(ORDER, TOTAL, steps_of(ORDER, TOTAL)[:-1]).missed == 6


def test_a_step_that_saw_other_samples_counts_and_those_after_it_do_not() -> None:
    steps = steps_of(ORDER, TOTAL)
    chain = Chain(steps[3]["samples"])
    other = steps_of(Order((10, 7), seed=4, lanes=2, lane_batch=3), TOTAL)
    steps[4] = {**steps[4], "samples": other[4]["samples"]}
    chain = Chain(steps[4]["samples"])
    for step, lanes in zip(range(TOTAL), lane_digests(ORDER), strict=False):
        if step > 4:
            chain.add(step, lanes)
            steps[step] = {**steps[step], "samples": chain.hexdigest()}
    assert samples(ORDER, TOTAL, steps) == account.Samples(False, 6, 0, 0)


def test_repeated_steps_are_the_worse_of_both_accounts() -> None:
    steps = steps_of(ORDER, TOTAL)
    restart = {"kind": "restart", "time": 1.0, "from_step": 1, "lost_steps": 2}
    assert samples(ORDER, TOTAL, steps, [restart]) == account.Samples(True, 0, 2, 11)
    assert samples(ORDER, TOTAL, steps, [], {2: 1}) == account.Samples(True, 0, 1, 5)
    assert samples(ORDER, TOTAL, steps, [restart], {2: 2, 3: 1}) == account.Samples(True, 0, 4, 22)
    assert samples(ORDER, TOTAL, [*steps, steps[0]]) == account.Samples(True, 0, 1, 6)


def fault(text: str, at: float, **target: Any) -> dict[str, Any]:
    return {"fault": text, "time": at, "target": target}


def recovery(cause: str, detected: float, resumed: float, *workers: str, **more: Any) -> dict[str, Any]:
    times = {"detected_at": detected, "resumed_at": resumed, "silent_s": 0.25, "pause_s": 0.5}
    return {"kind": "recovery", "cause": cause, "workers": list(workers), "node_id": None, "step": 9, **times, **more}


def test_recoveries_answer_the_fault_that_hit_them() -> None:
    injected = [
        fault("kill worker=1 step=3", 10.0, workers=[{"id": "w1", "node_id": "a"}]),
        fault("kill node=0 step=4", 20.0, node=0, node_id="b"),
        fault("stop worker=1 step=5", 30.0, workers=[{"id": "w1"}]),
    ]
    events = [
        {"kind": "generation", "time": 9.0},
        recovery("process_died", 10.02, 10.4, "w1", node_id="a"),
        recovery("joined", 15.0, 15.1, "w7", node_id="a"),
        recovery("node_died", 20.1, 20.9, "w2", node_id="b"),
        recovery("stopped", 34.0, 34.5, "w1", node_id="a"),
    ]
    found = recoveries(events, injected, [])
    assert [(r["cause"], r["fault"], r["detected_s"], r["resumed_s"]) for r in found] == [
        ("process_died", "kill worker=1 step=3", 0.02, 0.4),
        ("joined", None, 0.25, 0.35),
        ("node_died", "kill node=0 step=4", 0.1, 0.9),
        ("stopped", "stop worker=1 step=5", 4.0, 4.5),
    ]
    assert found[0]["pause_s"] == 0.5


def test_a_detection_seems_never_to_come_before_its_fault() -> None:
    injected = [fault("kill worker=1 step=3", 10.0, workers=[{"id": "w1"}])]
    early = recoveries([recovery("process_died", 9.98, 10.4, "w1")], injected, [])
    assert (early[0]["fault"], early[0]["detected_s"]) == ("kill worker=1 step=3", 0.0)
    assert recoveries([recovery("process_died", 9.0, 9.4, "w1")], injected, [])[0]["fault"] is None


def test_a_restart_is_a_recovery_unless_it_is_part_of_one() -> None:
    injected = [fault("kill driver step=3", 50.0, driver=77)]
    restart = {"kind": "restart", "time": 53.0, "from_step": 2, "lost_steps": 1}
    steps = [{"time": 49.0}, {"time": 54.5}, {"time": 55.0}]
    (alone,) = recoveries([restart], injected, steps)
    assert (alone["cause"], alone["detected_s"], alone["resumed_s"]) == ("restarted", 3.0, 4.5)
    around = recovery("process_died", 51.0, 54.5, "w1")
    assert [r["cause"] for r in recoveries([around, restart], injected, steps)] == ["process_died"]


GOOD: dict[str, Any] = {
    "same_samples": True,
    "same_weights": True,
    "steps_repeated": 0,
    "samples_repeated": 0,
    "samples_missed": 0,
    "recoveries": [],
    "goodput": 0.9,
    "ledger_s": {"compute": 3.0},
    "faults": [{"fault": "kill all step=3", "time": 1.0}],
    "seed": 1,
    "state": "finished",
    "message": "",
    "steps": 7,
    "bitwise": True,
}


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"steps_repeated": 3, "samples_repeated": 18}, True),  # a checkpoint was needed; no sample was lost
        ({"same_weights": None}, True),
        ({"same_weights": False}, False),
        ({"same_weights": False, "bitwise": False}, True),
        ({"same_samples": False}, False),
        ({"samples_missed": 1}, False),
        ({"state": "failed"}, False),
        ({"faults": [{"fault": "kill all step=3", "time": None}]}, False),
        ({"healthy_killed": 1, "benign": True}, False),
        ({"healthy_killed": 1, "benign": False}, True),
        ({"healthy_killed": 0, "benign": True}, True),
    ],
)
def test_what_counts_as_good(changes: dict[str, Any], good: bool) -> None:
    assert Account(**{**GOOD, **changes}).good is good


def append(path: Path, *steps: tuple[int, float]) -> None:
    with path.open("a") as file:
        for step, at in steps:
            file.write(json.dumps({"step": step, "time": at}) + "\n")


def test_the_follower_sees_commits_and_their_repetition(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    follower = Follower(path)
    assert follower.look() == -1
    append(path, (0, 1.0), (1, 2.0), (2, 3.0))
    assert follower.look() == 2
    with path.open("a") as file:
        file.write('{"step": 3, "ti')  # torn: not committed as far as anybody knows
    assert follower.look() == 2
    kept = tmp_path / "kept"
    append(kept, (0, 1.0))
    kept.replace(path)
    assert follower.look() == 0
    assert not follower.repeated
    append(path, (1, 8.0), (2, 9.0), (3, 10.0))
    assert follower.look() == 3
    assert follower.repeated == {1: 1, 2: 1}


INNER = 10**6
"""What a process's number on its node is above its number here."""


class Switch:
    """Notes what is done to links, without the keys under which it is undone."""

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., None]:
        keyed = name in ("lose", "one_way", "part", "heal")
        return lambda *values, **named: self._calls.append((name, *values[keyed:], *named.values()))


class Town:
    """A cluster for the injector, whose workers are processes of the test."""

    def __init__(self) -> None:
        self.nodes = [SimpleNamespace(number=number, state="up", node_id=f"id{number}") for number in range(2)]
        self.calls: list[tuple[Any, ...]] = []
        self.pids: list[int] = []

    def processes(self) -> list[int]:
        return self.pids

    def process_of(self, node_id: str, inner: int) -> int | None:
        """As on nodes with a PID namespace: there, every process has another number."""
        return inner - INNER if inner - INNER in self.pids else None

    def numbered(self, node_id: str) -> Any:
        return next((node for node in self.nodes if node.node_id == node_id), None)

    @property
    def switch(self) -> Any:
        return Switch(self.calls)

    def freeze(self, all_of_it: bool = False) -> None:
        self.calls.append(("freeze", all_of_it))

    def thaw(self) -> None:
        self.calls.append(("thaw",))

    def kill_node(self, number: int) -> None:
        self.nodes[number].state = "down"
        self.calls.append(("kill", number))

    def cut(self, *which: int) -> None:
        self.calls.append(("cut", *which))

    def restore(self, *which: int) -> None:
        self.calls.append(("restore", *which))

    def drain_node(self, number: int, deadline_s: float) -> None:
        self.calls.append(("drain", number, deadline_s))

    def add_node(self) -> Any:
        self.nodes.append(SimpleNamespace(number=len(self.nodes), state="up", node_id=f"id{len(self.nodes)}"))
        return self.nodes[-1]

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.calls.append(("after", seconds))
        act()

    def stop_node(self, number: int) -> None:
        self.calls.append(("stop", number))

    continue_node = stop_node


@pytest.fixture
def workers() -> Iterator[list[subprocess.Popen[bytes]]]:
    found = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    yield found
    for process in found:
        process.kill()
        process.communicate()


def members(run: Path, *pids: int, nodes: tuple[str, ...] = ("id0", "id0")) -> None:
    rows = [
        {"id": f"w{i}", "rank": i, "phase": "member", "pid": pid + INNER, "node_id": nodes[i]}
        for i, pid in enumerate(pids)
    ]
    temporary = run / "members.new"
    temporary.write_text(json.dumps({"generation": 1, "workers": rows}))
    temporary.replace(run / "members.json")


def test_faults_strike_when_their_step_is_committed(tmp_path: Path, workers: list[subprocess.Popen[bytes]]) -> None:
    town = Town()
    town.pids = [process.pid for process in workers]
    members(tmp_path, *town.pids)
    steps = tmp_path / "steps.jsonl"
    driver_killed = threading.Event()
    script = parse(
        "kill worker=1 step=2; cut node=1 step=4 for=3s; add node step=4; drain node=2 step=4 deadline=2s; "
        "raise worker=0 step=5; kill driver step=6; kill node=9 step=6"
    )

    def kill_driver() -> int:
        driver_killed.set()
        return 7

    with Injector(tmp_path, script, town, kill_driver) as injector:  # type: ignore[arg-type]
        append(steps, (0, 1.0), (1, 2.0))
        time.sleep(0.1)  # nothing is to happen in it
        assert not injector.done
        assert workers[1].poll() is None
        before = time.time()
        append(steps, (2, 3.0))
        until(lambda: workers[1].poll() is not None)
        assert workers[0].poll() is None
        until(lambda: injector.done)
        record = injector.done[0]
        assert (record["fault"], record["committed"]) == ("kill worker=1 step=2", 2)
        assert before <= record["time"] <= time.time()
        assert record["target"]["workers"] == [{"id": "w1", "rank": 1, "pid": workers[1].pid, "node_id": "id0"}]
        append(steps, (3, 4.0), (4, 5.0), (5, 6.0), (6, 7.0))
        until(lambda: len(injector.done) == 6)
        assert [str(fault) for fault in injector.left] == ["raise worker=0 step=5", "kill node=9 step=6"]
        (order,) = (tmp_path / "faults").glob("*-w0.json")
        assert json.loads(order.read_text())["verb"] == "raise"
        order.rename(order.with_suffix(".taken"))  # by the worker
    assert driver_killed.is_set()
    assert [call for call in town.calls if call[0] != "after"] == [("cut", 1), ("restore", 1), ("drain", 2, 2.0)]
    assert [str(fault) for fault in injector.left] == ["kill node=9 step=6"]
    added = next(record for record in injector.done if record["fault"] == "add node step=4")
    assert added["target"] == {"node": 2, "node_id": "id2"}


def test_bad_links_and_slow_things_are_done_and_undone(tmp_path: Path, workers: list[subprocess.Popen[bytes]]) -> None:
    town = Town()
    town.pids = [process.pid for process in workers]
    members(tmp_path, *town.pids, nodes=("id0", "id1"))
    script = parse(
        "restore worker=1 for=2s; part workers=0,1 step=0 for=8s; blip head step=1 for=3s; cut nodes=0,1 step=2 for=3s;"
        "loss node=1 percent=20 step=3 for=2s; oneway node=0 to=head step=4 for=1s; oneway node=0 from=all step=5;"
        "delay node=1 by=200ms step=6 for=9s; reorder node=0 by=20ms step=7 for=1s; rate node=1 kbit=500 step=8 for=1s;"
        "freeze driver step=9 for=5s; freeze head step=10 for=1s; lock worker=1 step=11 for=8s;"
        "slow-store step=12 for=60s; full-disk step=13 for=2s"
    )
    with Injector(tmp_path, script, town) as injector:  # type: ignore[arg-type]
        until(lambda: injector.done)
        assert injector.done[0]["fault"] == "restore worker=1 for=2s"  # before the first step
        append(tmp_path / "steps.jsonl", *((step, float(step)) for step in range(14)))
        until(lambda: len(injector.done) == len(script) - 1)
        orders = [json.loads(path.read_text()) for path in sorted((tmp_path / "faults").glob("*.json"))]
        assert [str(fault) for fault in injector.left][:1] == ["restore worker=1 for=2s"]  # nobody has taken it
    assert [call for call in town.calls if call[0] != "after"] == [
        ("part", 0, 1), ("heal",),
        ("set_link", HEAD, False), ("set_link", HEAD, True),
        ("cut", 0, 1), ("restore", 0, 1),
        ("lose", 1, 20.0), ("heal",),
        ("one_way", 0, HEAD), ("heal",),
        ("one_way", None, 0),
        ("delay", 1, 0.2, 100.0), ("heal",), ("hurry", 1),
        ("delay", 0, 0.02, 25.0), ("heal",), ("hurry", 0),
        ("slow", 1, 500.0), ("heal",), ("slow", 1, None),
        ("freeze", False), ("thaw",), ("freeze", True), ("thaw",),
    ]  # fmt: skip
    assert [(o["verb"], o["worker"], o["rank"], o["span_s"], o["point"]) for o in orders] == [
        ("restore", "any", 1, 2.0, "restore"),
        ("lock", "w1", None, 8.0, "compute"),
        ("slow-store", "w0", None, 60.0, "compute"),
        ("slow-store", "w1", None, 60.0, "compute"),
    ]
    done = {record["fault"]: record["target"] for record in injector.done}
    assert done["cut nodes=0,1 step=2 for=3s"]["node_ids"] == ["id0", "id1"]
    assert {worker["id"] for worker in done["cut nodes=0,1 step=2 for=3s"]["workers"]} == {"w0", "w1"}
    assert [worker["pid"] for worker in done["part workers=0,1 step=0 for=8s"]["workers"]] == town.pids
    ((fault, reason),) = injector.refused.items()  # nobody's real disk is filled
    assert (fault, "not on a disk of the drill's own" in reason) == ("full-disk step=13 for=2s", True)


def test_workers_of_one_node_cannot_be_parted(tmp_path: Path, workers: list[subprocess.Popen[bytes]]) -> None:
    town = Town()
    town.pids = [process.pid for process in workers]
    members(tmp_path, *town.pids)
    append(tmp_path / "steps.jsonl", (0, 1.0))
    with Injector(tmp_path, parse("part workers=0,1 step=0"), town) as injector:  # type: ignore[arg-type]
        until(lambda: injector.refused)
    assert "the workers are on one node" in injector.refused["part workers=0,1 step=0"]


PATIENCE = Patience(silence_s=2.0, hang_s=10.0)
LEFT = [
    {"kind": "generation", "time": 10.0, "members": ["w0", "w1", "w2"]},
    {"kind": "generation", "time": 20.0, "members": ["w0", "w2"]},
    {"kind": "recovery", "time": 21.0, "workers": ["w1"], "cause": "link_cut"},
]


def hit(text: str, at: float, *ids: str, up: int = 3) -> dict[str, Any]:
    return {"fault": text, "time": at, "target": {"workers": [{"id": worker} for worker in ids], "up": up}}


@pytest.mark.parametrize(
    ("text", "ids", "victims"),
    [
        ("kill worker=1 step=3", ["w1"], 0),
        ("kill worker=2 step=3", ["w2"], 1),  # another's death is no reason
        ("kill all step=3", [], 0),
        ("kill driver step=3", [], 0),
        ("blip head step=3 for=3s", [], 1),
        ("blip head step=3 for=60s", [], 0),
        ("freeze driver step=3 for=5s", [], 1),
        ("freeze head step=3 for=5s", [], 1),
        ("cut node=1 step=3 for=8s", ["w1"], 0),
        ("cut node=1 step=3 for=1s", ["w1"], 1),
        ("cut node=1 step=3", ["w1"], 0),
        ("cut nodes=0,1,2 step=3 for=3s", ["w0", "w1", "w2"], 1),  # all at once: the observer is ill
        ("cut nodes=0,1,2 step=3 for=60s", ["w0", "w1", "w2"], 0),
        ("part workers=1,2 step=3 for=8s", ["w1", "w2"], 0),
        ("part workers=0,2 step=3 for=8s", ["w0", "w2"], 1),
        ("oneway node=1 to=head step=3 for=4s", ["w1"], 0),
        ("oneway node=1 to=head step=3 for=1s", ["w1"], 1),
        ("stop worker=1 step=3 for=1s", ["w1"], 1),
        ("stop worker=1 step=3 for=6s", ["w1"], 0),
        ("loss node=1 percent=20 step=3 for=8s", ["w1"], 1),
        ("loss node=1 percent=90 step=3 for=8s", ["w1"], 0),
        ("delay node=1 by=200ms step=3 for=8s", ["w1"], 1),
        ("delay node=1 by=2s step=3 for=8s", ["w1"], 0),
        ("lock worker=1 step=3 for=8s", ["w1"], 1),
        ("lock worker=1 step=3 for=60s", ["w1"], 0),
        ("compile worker=1 for=200s", [], 1),
        ("slow-store step=3 for=200s", ["w0", "w1", "w2"], 1),
        ("add node step=3", [], 1),
    ],
)
def test_2_4_a_healthy_worker_that_was_given_up_is_a_victim(text: str, ids: list[str], victims: int) -> None:
    found = killed(LEFT, [hit(text, 15.0, *ids)], PATIENCE)
    assert found == [{"worker": "w1", "time": 20.0, "cause": "link_cut"}] * victims


def test_who_leaves_by_plan_or_comes_is_no_victim() -> None:
    assert len(killed(LEFT, [], PATIENCE)) == 1
    assert killed([LEFT[1], LEFT[0]], [], PATIENCE) == []
    assert killed([*LEFT[:2], {**LEFT[2], "cause": "drained"}], [], PATIENCE) == []
    assert len(killed(LEFT, [hit("kill worker=1 step=3", 25.0, "w1")], PATIENCE)) == 1  # it came later


@pytest.mark.parametrize(("verb", "fault"), [("cut", "cut node=0 step=2"), ("loss", "loss node=0 percent=5 step=2")])
def test_what_cannot_be_done_here_is_refused_by_name(
    job: Path, verb: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(app, ["drill", str(job), "--faults", fault])
    assert isinstance(result.exception, BadInput), result.output
    assert f"`{verb}` cannot be done on this machine" in str(result.exception)


def test_the_page_has_every_fault() -> None:
    page = (Path(__file__).parents[2] / "docs" / "drill.md").read_text()
    for name, verb in VERBS.items():
        assert f"| `{name} " in page
        assert verb.span is None or f"{verb.span}=" in page


def test_no_process_outside_the_cluster_is_touched(tmp_path: Path, workers: list[subprocess.Popen[bytes]]) -> None:
    town = Town()  # whose processes are others
    members(tmp_path, *(process.pid for process in workers))
    append(tmp_path / "steps.jsonl", (0, 1.0), (1, 2.0))
    with Injector(tmp_path, parse("kill all step=0; kill worker=0 step=0; kill node=0 step=1"), town) as injector:  # type: ignore[arg-type]
        until(lambda: injector.done)
    assert [record["fault"] for record in injector.done] == ["kill node=0 step=1"]
    assert all(process.poll() is None for process in workers)


TASK = """
import headway
from torch import nn


class Linear(headway.Task):
    def model(self):
        return nn.Linear(4, 2)

    def loss(self, model, batch):
        return model(batch["x"]).mean()
"""


@pytest.fixture
def job(tmp_path: Path, make_dataset: Callable[..., Path]) -> Path:
    make_dataset(tmp_path / "train", (64,))
    (tmp_path / "linear.py").write_text(TASK)
    tree = {"name": "small", "task": "linear.py:Linear", "data": {"train": "train"}, "lanes": 2, "steps": 20}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump({**tree, "lane_batch": 4}))
    return tmp_path / "job.yaml"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--faults", "kil worker=1 step=3"], "Did you mean 'kill'"),
        (["--faults", "kill worker=1 step=20"], "comes too late: the run has 20 steps"),
        (["--steps", "5", "--faults", "kill worker=1 step=5"], "the run has 5 steps"),
        (["--faults", "kill node=4 step=2; add node step=1"], "hits nobody: there are nodes 0 to 2"),
        (["--faults", "cut nodes=0,5 step=2 for=1s"], "hits nobody: there are nodes 0 to 1"),
        (["--faults", "lock worker=2 step=2 for=1s"], "hits nobody: there are at most 2 workers, counted from 0"),
        (["--faults", "part workers=1 step=2"], "names one, and nobody to part it from"),
        (["--nodes", "3"], "--nodes 3: the job has 2 lanes"),
        (["--nodes", "2", "--set", "workers.spares=2"], "--nodes 2: 2 of them would carry spares, and none a worker"),
        (["--nodes", "4", "--set", "workers.spares=1"], "--nodes 4: the job has 2 lanes"),
        (["--set", "workers.gpus=1"], "the nodes of a drill have no GPUs"),
        (["--set", "lanez=1"], "unknown key 'lanez'"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(
    job: Path, options: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr("headway.testing.drill.Cluster", never)
    result = CliRunner().invoke(app, ["drill", str(job), *options])
    assert isinstance(result.exception, BadInput), result.output
    assert said in str(result.exception)
