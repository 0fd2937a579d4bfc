"""The machines of a local cluster as a market has them, and the host that owns them: on a cluster of no processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.waiting import until

from headway.cluster import file, known
from headway.cluster.local import orders, owner
from headway.cluster.local.caller import Caller
from headway.cluster.local.cluster import HEAD, Shape, address_of
from headway.cluster.local.desk import Desk
from headway.cluster.local.fleet import Fleet, shape
from headway.cluster.local.host import host
from headway.cluster.local.machine import launch
from headway.cluster.local.market import ThisMachine
from headway.cluster.market import CAPACITY, UNKNOWN, Machine, Option, Refused
from headway.errors import BadInput, RunFailed
from headway.testing.market import MarketContract, Stall

FIXED = """\
cluster_name: two
max_workers: 3
provider: {type: this-machine, headway: {stop_when_idle_minutes: 1, stop_after_hours: 1}}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}}
  worker: {min_workers: 2, max_workers: 2, resources: {CPU: 1, GPU: 2, memory: 5, disk: 3}, labels: {a: b}}
"""
GROWING = FIXED.replace("max_workers: 2", "max_workers: 3")


@dataclass
class FakeNode:
    """A node of no process."""

    number: int
    shape: Shape
    gone: bool = False
    ip: str = "127.0.0.3"
    node_id: str = ""
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def process(self) -> Any:
        return SimpleNamespace(poll=lambda: 1 if self.gone else None)

    @property
    def folder(self) -> Path:
        return Path("none of its own")

    def end(self) -> None:
        self.gone = True

    close = end

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        return self.said


class FakeCluster:
    """Stands for a `LocalCluster`. Nodes come once `come` is set."""

    def __init__(self) -> None:
        self.nodes: list[FakeNode] = []
        self._numbering = threading.Lock()
        self.come = threading.Event()
        self.come.set()
        self.fails = ""
        self.head = FakeNode(-1, Shape(0), node_id="ff")
        self.address = self.jobs = ""
        self.told: list[tuple[str, float, str]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.closed = False

    def start(self) -> None:
        if self.fails == "head":
            raise RunFailed("node -1 of the local cluster is gone", "no memory")
        self.address, self.jobs = "127.0.0.2:1", "http://127.0.0.1:2"

    def add(self, shape: Shape) -> FakeNode:
        assert self.come.wait(20)
        if self.fails:
            raise RunFailed("node 0 of the local cluster is gone", self.fails)
        with self._numbering:  # each machine is launched by a thread of its own
            node = FakeNode(len(self.nodes), shape, node_id=f"{len(self.nodes):06x}")
            self.nodes.append(node)
        return node

    def tell_of_end(self, node: FakeNode, deadline_s: float, why: str) -> None:
        self.told.append((node.node_id, deadline_s, why))

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.later.append((seconds, act))

    def close(self) -> None:
        self.closed = True
        for node in [*self.nodes, self.head]:
            node.end()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def fleet(cluster: FakeCluster) -> Fleet:
    return Fleet("two", cluster, {"worker": Shape(1)}, clock=lambda: 100.0)  # type: ignore[arg-type]


def state(fleet: Fleet, machine: str) -> str:
    return {each.id: each.state for each in [*fleet.gone(), *fleet.living()]}[machine]


def test_a_machine_boots_runs_and_goes(fleet: Fleet, cluster: FakeCluster) -> None:
    cluster.come.clear()
    one = fleet.launch("worker", {"type": "worker"}, {"a": "b"})
    assert (one.id, one.number, one.state, one.since) == ("two-0", 0, "booting", 100.0)
    cluster.come.set()
    fleet.wait([one], 20)
    assert state(fleet, "two-0") == "running"
    assert cluster.nodes[0].shape.environment == {"RAY_CLOUD_INSTANCE_ID": "two-0", "RAY_NODE_TYPE_NAME": "worker"}
    fleet.tag("two-0", {"c": "d"})
    fleet.tag("none", {"c": "d"})
    assert one.shown()["tags"] == {"a": "b", "c": "d"}
    fleet.terminate(["two-0", "none"])
    assert cluster.nodes[0].gone
    assert state(fleet, "two-0") == "gone"
    assert fleet.living() == []


def test_one_request_is_one_machine(fleet: Fleet) -> None:
    first = fleet.launch("worker", {}, {}, once="x")
    assert fleet.launch("worker", {}, {}, once="x") is first
    assert fleet.launch("worker", {}, {}, once="y") is not first
    assert fleet.launch("worker", {}, {}) is not fleet.launch("worker", {}, {})
    with pytest.raises(BadInput, match="there are worker"):
        fleet.launch("wrker", {}, {})


def test_one_that_is_let_go_while_it_boots_never_runs(fleet: Fleet, cluster: FakeCluster) -> None:
    cluster.come.clear()
    one = fleet.launch("worker", {}, {})
    fleet.terminate([one.id])
    assert one.state == "stopping"
    cluster.come.set()
    fleet.wait([one], 20)
    assert cluster.nodes[0].gone
    assert state(fleet, one.id) == "gone"


def test_one_that_does_not_start_is_gone_with_the_reason(fleet: Fleet, cluster: FakeCluster) -> None:
    cluster.fails = "no memory"
    one = fleet.launch("worker", {}, {})
    fleet.wait([one], 20)
    assert state(fleet, one.id) == "gone"
    assert "no memory" in one.why


def test_one_whose_processes_are_killed_is_found_out(fleet: Fleet, cluster: FakeCluster) -> None:
    one = fleet.launch("worker", {}, {})
    fleet.wait([one], 20)
    cluster.nodes[0].gone = True
    assert fleet.living() == []
    assert fleet.gone()[0].why == "its processes are gone"


def test_a_drain_is_told_to_ray_and_ends_at_the_deadline(fleet: Fleet, cluster: FakeCluster) -> None:
    cluster.come.clear()
    one = fleet.launch("worker", {}, {})
    with pytest.raises(BadInput, match="node 0 cannot be drained: it is booting"):
        fleet.drain(one, 5.0, "why")
    cluster.come.set()
    fleet.wait([one], 20)
    fleet.drain(one, 5.0, "why")
    assert cluster.told == [("000000", 5.0, "why")]
    assert one.leaves_at == 105.0
    (after_s, act) = cluster.later[0]
    assert after_s == 5.0
    act()
    assert state(fleet, one.id) == "gone"


def test_one_that_has_handed_over_goes_before_the_deadline(fleet: Fleet, cluster: FakeCluster) -> None:
    machines = [fleet.launch("worker", {}, {}) for _ in range(2)]
    fleet.wait(machines, 20)
    drained = next(each for each in machines if each.node is not None and each.node.node_id == "000001")
    fleet.drain(drained, 60.0, "why")
    fleet.release(["000000"])  # dead, and nobody said so before: that is for whoever looks after the cluster
    assert len(fleet.living()) == 2
    fleet.release(["000000", "000001"])
    assert [each.id for each in fleet.living()] == [each.id for each in machines if each is not drained]


def test_how_a_machine_is_named(fleet: Fleet) -> None:
    one, two = fleet.launch("worker", {}, {}), fleet.launch("worker", {}, {})
    fleet.wait([one, two], 20)
    assert fleet.named("0") is one
    assert fleet.named("two-1") is two
    assert fleet.named("000000") in (one, two)
    with pytest.raises(BadInput, match=r"it is not in the cluster\. There are: 0, 1"):
        fleet.named("2")
    fleet.terminate([one.id])
    with pytest.raises(BadInput, match=r"it is gone\. There are: 1"):
        fleet.named("0")


def test_what_a_type_gives_out() -> None:
    worker = file.parse(Path("c.yaml"), FIXED).workers["worker"]
    assert shape(worker) == Shape(1, 2, 5, {"disk": 3}, {"a": "b"})


# The owner, its desk, and the market that speaks to it.


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(
    cluster: FakeCluster, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], owner.Owner]:
    monkeypatch.setenv(known.VARIABLE, str(tmp_path / ("long" * 30)))
    monkeypatch.setattr(owner.Owner, "_to_be", lambda self: cluster)
    monkeypatch.setattr(owner, "LOOK_S", 0.01)

    def made(text: str) -> owner.Owner:
        read = file.parse(Path("c.yaml"), text)
        return owner.Owner(known.make(read, clock.now, "ann", "secret"), read, clock)

    return made


@pytest.fixture
def up(make: Callable[[str], owner.Owner]) -> Iterator[Callable[[str], owner.Owner]]:
    begun: list[owner.Owner] = []

    def bring(text: str) -> owner.Owner:
        one = make(text)
        begun.append(one)
        Desk(one).open()
        one.start(lambda text: None)
        return one

    yield bring
    for each in begun:
        each.close()


def asked(one: owner.Owner, **order: Any) -> dict[str, Any]:
    return orders.ask(one.known.folder, order, 20)


def test_a_fixed_cluster_starts_its_nodes(up: Callable[[str], owner.Owner], cluster: FakeCluster) -> None:
    one = up(FIXED)
    assert len(cluster.nodes) == 2
    kept = known.get("two")
    assert (kept.address, kept.jobs) == ("127.0.0.2:1", "http://127.0.0.1:2")
    status = asked(one, do="status")
    assert [each["state"] for each in status["machines"]] == ["running"] * 3
    assert status["ends_at"] == 1000.0 + 3600
    assert not (one.known.folder / orders.FOR_RAY).exists()
    assert (one.known.folder / orders.SOCKET).stat().st_mode & 0o777 == 0o600


def test_a_growing_one_leaves_them_to_the_autoscaler(up: Callable[[str], owner.Owner], cluster: FakeCluster) -> None:
    import yaml

    one = up(GROWING)
    assert cluster.nodes == []
    tree = yaml.safe_load((one.known.folder / orders.FOR_RAY).read_text())
    assert tree["provider"]["headway"]["id"] == one.known.id
    assert tree["provider"]["headway"]["market"] == {"folder": str(one.known.folder)}
    assert tree["available_node_types"]["worker"]["min_workers"] == 2
    said = asked(one, do="add", count=1, type=None)["said"]
    assert said == ["there are at least 3 of worker now; the autoscaler starts them"]
    tree = yaml.safe_load((one.known.folder / orders.FOR_RAY).read_text())
    assert tree["available_node_types"]["worker"]["min_workers"] == 3


def test_the_market_is_the_owners(up: Callable[[str], owner.Owner], cluster: FakeCluster) -> None:
    market = ThisMachine(up(GROWING).known.folder)
    one = market.launch(Option("any", "z", True, 0.5), {"ray-user-node-type": "worker", "x": "y"}, {}, "once")
    assert market.launch(Option("any", "z", True, 0.5), {"ray-user-node-type": "worker"}, {}, "once").id == one.id
    until(lambda: all(each.state == "running" for each in market.machines()), "it has booted")
    head, node = market.machines()
    assert head.tags["ray-node-type"] == "head"
    assert (node.id, node.option, node.tags["x"]) == (one.id, Option("any", "z", True, 0.5), "y")
    market.tag(node.id, {"x": "z"})
    market.tag(head.id, {"x": "h"})
    assert [each.tags["x"] for each in market.machines()] == ["h", "z"]
    market.terminate([node.id])
    market.terminate([node.id])
    assert [each.id for each in market.machines()] == ["two-head"]
    with pytest.raises(Refused) as refused:
        market.launch(Option("wrong"), {}, {}, "")
    assert refused.value.kind == UNKNOWN


class Workers(ThisMachine):
    """The market without the head, which is there before anything was asked for."""

    def machines(self) -> list[Machine]:
        return [each for each in super().machines() if each.tags["ray-node-type"] != "head"]


class TestThisMachine(MarketContract):
    @pytest.fixture
    def stall(self, up: Callable[[str], owner.Owner], clock: Clock) -> Stall:
        clock.now = time.time()
        folder = up(GROWING).known.folder
        return Stall(lambda: Workers(folder), Option("worker", "a", True), missing=None)  # the tags say which type


def test_a_market_whose_host_is_gone_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="does not answer"):
        ThisMachine(tmp_path).machines()


def test_an_order_that_fails_is_told_and_the_next_is_heard(
    up: Callable[[str], owner.Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = up(FIXED)
    with pytest.raises(BadInput, match="knows no such order"):
        asked(one, do="dance")
    with pytest.raises(RunFailed, match="KeyError"):
        asked(one, do="drain")
    with pytest.raises(BadInput, match="the head cannot be drained"):
        asked(one, do="drain", node="head", deadline_s=1, why="")
    monkeypatch.setattr(one.fleet, "launch", lambda *_: (_ for _ in ()).throw(RunFailed("x", "full")))
    with pytest.raises(Refused) as refused:
        ThisMachine(one.known.folder).launch(Option("worker"), {}, {}, "")
    assert refused.value.kind == CAPACITY
    assert len(asked(one, do="machines")["machines"]) == 3


def test_nodes_are_added_up_to_the_files_limit(up: Callable[[str], owner.Owner]) -> None:
    one = up(FIXED)
    assert asked(one, do="add", count=1, type="worker")["said"] == ["node 2 (worker) is up"]
    with pytest.raises(BadInput, match="1 more of worker: there are 3, and max_workers is 3"):
        asked(one, do="add", count=1, type=None)
    with pytest.raises(BadInput, match="--type gpu: the cluster's file has worker"):
        asked(one, do="add", count=1, type="gpu")


def test_a_changed_file_is_followed(up: Callable[[str], owner.Owner], cluster: FakeCluster) -> None:
    one = up(FIXED)
    known.keep_text(one.known, FIXED.replace("min_workers: 2, max_workers: 2", "min_workers: 3, max_workers: 3"))
    said = asked(one, do="apply")["said"]
    assert said == ["worker.min_workers is 3, was 2", "worker.max_workers is 3, was 2", "node 2 (worker) is up"]
    known.keep_text(one.known, FIXED.replace("min_workers: 2, max_workers: 2", "min_workers: 1, max_workers: 1"))
    assert "there are 3 of worker (nodes 0, 1, 2)" in asked(one, do="apply")["said"][-1]
    known.keep_text(one.known, GROWING)
    with pytest.raises(BadInput, match="whether it grows by itself is another"):
        asked(one, do="apply")


def test_it_ends_when_no_job_has_run_for_long(
    up: Callable[[str], owner.Owner], cluster: FakeCluster, clock: Clock
) -> None:
    one = up(FIXED)
    cluster.head.said = {"jobs": 1}
    ends: list[str] = []
    running = threading.Thread(target=lambda: ends.append(one.run()), daemon=True)
    running.start()
    clock.now += 120
    until(lambda: one._worked == clock.now, "it was seen to work")
    cluster.head.said = {"error": "no answer"}
    clock.now += 59
    until(lambda: one._worked == clock.now, "where Ray does not say, nothing is idle")
    cluster.head.said = {"jobs": 0}
    assert not one.ends
    clock.now += 61
    running.join(20)
    assert ends == ["no job has run on it for 1 minutes"]


@pytest.mark.parametrize("why", ["it has been up for 1 hours, as long as its file allows", "its head is gone"])
def test_it_ends_after_its_time_and_with_its_head(
    why: str, up: Callable[[str], owner.Owner], cluster: FakeCluster, clock: Clock
) -> None:
    one = up(FIXED)
    cluster.head.said = {"jobs": 1}
    if why == "its head is gone":
        cluster.head.gone = True
    else:
        clock.now += 3600
    assert one.run() == why


class Told(Caller):
    """Who called, without a pipe."""

    def __init__(self, hears: bool = True) -> None:
        self.lines: list[dict[str, Any]] = []
        self.hears, self.left = hears, lambda: None

    def tell(self, **what: Any) -> bool:
        self.lines.append(what)
        return self.hears

    def watch(self, left: Callable[[], None]) -> None:
        self.left = left

    def release(self) -> bool:
        return self.tell(up=True)


def test_the_host_hears_of_the_end_and_leaves_nothing(make: Callable[[str], owner.Owner], cluster: FakeCluster) -> None:
    one, caller, was_up = make(FIXED), Told(), []
    running = threading.Thread(target=lambda: was_up.append(host(one, Desk(one), caller)), daemon=True)
    running.start()
    until(lambda: {"up": True} in caller.lines, "it is up")
    ended = asked(one, do="end", why="as asked")["ended"]
    assert ended == ["the head", "node 0 (worker)", "node 1 (worker)"]
    running.join(20)
    assert was_up == [True]
    assert cluster.closed
    assert not (one.known.folder / orders.SOCKET).exists()
    assert "as asked" in (one.known.folder / orders.ENDED).read_text()
    with pytest.raises(orders.Gone):
        asked(one, do="machines")


@pytest.mark.parametrize("fails", ["head", "no memory"])
def test_a_cluster_that_does_not_come_up_leaves_nothing(
    fails: str, make: Callable[[str], owner.Owner], cluster: FakeCluster
) -> None:
    cluster.fails = fails
    one, caller = make(FIXED), Told()
    assert not host(one, Desk(one), caller)
    assert cluster.closed
    assert caller.lines[-1]["refused"][0] == "failed"
    assert "no memory" in " ".join(caller.lines[-1]["refused"])


def test_one_whose_caller_left_ends(make: Callable[[str], owner.Owner], cluster: FakeCluster) -> None:
    one, caller = make(FIXED), Told(hears=False)
    assert not host(one, Desk(one), caller)
    assert cluster.closed
    other, caller = make(GROWING), Told()
    cluster.closed = False
    caller.watch = lambda left: left()  # type: ignore[method-assign]
    assert not host(other, Desk(other), caller)
    assert cluster.closed


def test_the_caller_is_missed_at_once() -> None:
    hears, tells = os.pipe()
    caller, left = Caller(tells), threading.Event()
    caller.watch(left.set)
    caller.say("x")
    assert os.read(hears, 100) == b'{"say": "x"}\n'
    os.close(hears)
    assert left.wait(20)
    os.close(tells)


def test_a_caller_that_leaves_because_it_is_up_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    hears, tells = os.pipe()
    caller, left = Caller(tells), threading.Event()
    looked = threading.Event()

    def tell(**what: Any) -> bool:
        os.close(hears)  # as `up` does as soon as it has heard
        looked.wait(0.3)  # the watch would see it now
        return True

    monkeypatch.setattr(caller, "tell", tell)
    caller.watch(lambda: (left.set(), looked.set()))
    assert caller.release()
    assert not left.is_set()


def test_certificates_name_every_address_that_a_node_may_have(
    make: Callable[[str], owner.Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    from headway import certificates

    one = make(FIXED)
    assert owner.certified(one.known, one.file) == {}
    secured = file.parse(Path("c.yaml"), FIXED.replace("headway: {", "headway: {tls: true, "))
    variables = owner.certified(one.known, secured)
    assert certificates.check(time.time(), variables) == []
    named = set(certificates.read(Path(variables["RAY_TLS_SERVER_CERT"])).hosts)
    addresses = [address_of(number) for number in (HEAD, 0, 1, 251, 252, 999, 1000)]
    assert addresses[:5] == ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.254", "127.0.1.1"]
    assert addresses[6] == addresses[1]
    assert {address_of(number) for number in range(-1, 1000)} <= named


def test_shared_memory_is_shared() -> None:
    assert owner.store_bytes(10_000_000) == owner.STORE_LEAST
    assert owner.STORE_LEAST <= owner.store_bytes(3) <= owner.STORE_MOST


def test_a_node_that_cannot_start_says_why_though_its_folder_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "n0"
    folder.mkdir()
    node = launch(0, folder, (), False, (), dict(os.environ))
    try:
        settings = {
            "bare": False,
            "include_dashboard": False,
            "head": False,
            "gcs_address": "",
            "temp_dir": str(folder),
        }
        with pytest.raises(RunFailed, match="node 0 of the local cluster is gone: ValueError: Port is not specified"):
            node.ask(settings)
    finally:
        node.close()
