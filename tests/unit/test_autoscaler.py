"""What Ray's autoscaler (v2) makes of a provider: its own reconciler, in this process, with a cluster made up.

Some of these tests say what Ray does wrong, and fail when it no longer does: then our own remedy may go.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.instance_manager import InstanceManager
from ray.autoscaler.v2.instance_manager.instance_storage import InstanceStorage
from ray.autoscaler.v2.instance_manager.node_provider import NodeProviderAdapter
from ray.autoscaler.v2.instance_manager.reconciler import Reconciler
from ray.autoscaler.v2.instance_manager.storage import InMemoryStorage
from ray.autoscaler.v2.instance_manager.subscribers.cloud_instance_updater import CloudInstanceUpdater
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler
from ray.core.generated.autoscaler_pb2 import ClusterResourceState, NodeStatus
from ray.core.generated.instance_manager_pb2 import GetInstanceManagerStateRequest, Instance
from tests.tiers import SOAK, examples

from headway.cluster.market import Refused
from headway.cluster.provider import Provider
from headway.core.inventory import Draining, Standing
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.goods import Lies, Offer

HEAD = {"ray-cluster-name": "t", "ray-node-type": "head", "ray-user-node-type": "head"}
FILE: dict[str, Any] = {
    "cluster_name": "t",
    "max_workers": 4,
    "idle_timeout_minutes": 2,
    "upscaling_speed": 100.0,
    "provider": {"type": "external", "module": "unused", "disable_node_updaters": True},
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1},
            "min_workers": 0,
            "max_workers": 4,
            "node_config": {"headway": {"one_of": [{"type": "c", "zone": "a", "spot": True}], "order": "cheapest"}},
        },
    },
    **{key: {} for key in ("auth", "docker", "file_mounts")},
    **{
        key: []
        for key in (
            *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
            *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
        )
    },
}


class Reader:
    """Of Ray's: gives the file."""

    def __init__(self) -> None:
        self.config = AutoscalingConfig(FILE, skip_content_hash=True)

    def get_cached_autoscaling_config(self) -> AutoscalingConfig:
        return self.config

    def refresh_cached_autoscaling_config(self) -> None:
        """It does not change."""


class Ray:
    """A cluster as Ray's autoscaler sees it: nodes and demand as the test says, machines from the provider."""

    def __init__(self, make: Any = None) -> None:
        self.now = 1000.0
        self.nodes: dict[str, Standing] = {}
        self.demand = 0
        self.idle_since: dict[str, float] = {}
        offers = [Offer("m", "", 0.1, None, boot_s=0.0), Offer("c", "a", 1.0, 0.3, boot_s=0.0)]
        self.cloud = Cloud(offers, clock=lambda: self.now)
        market = self.cloud.market("t")
        self.provider = (make or Provider)(
            {"type": "external", "headway": {"hold_s": 0.0}},
            "t",
            market=market,
            standings=lambda: self.nodes,
            tell=lambda news: None,
            clock=lambda: self.now,
        )
        reader = Reader()
        self.config = reader.config
        self.adapter = NodeProviderAdapter(self.provider, reader, max_launch_batch_per_type=1)
        self.monitor = CloudResourceMonitor()
        self.manager = InstanceManager(
            InstanceStorage("t", InMemoryStorage()), [CloudInstanceUpdater(self.adapter), self.monitor]
        )
        self.scheduler = ResourceDemandScheduler()
        head = self.cloud.launch("t", self._option("m", ""), HEAD, {}, "head")
        self.head = head.id
        self.nodes[head.id] = "alive"

    @staticmethod
    def _option(kind: str, zone: str) -> Any:
        from headway.cluster.market import Option

        return Option(kind, zone)

    def cycle(self, seconds: float = 5.0) -> None:
        """One look of the autoscaler; what it asks of the provider is done before this returns."""
        Reconciler.reconcile(
            instance_manager=self.manager,
            scheduler=self.scheduler,
            cloud_provider=self.adapter,
            cloud_resource_monitor=self.monitor,
            ray_cluster_resource_state=self._state(),
            non_terminated_cloud_instances=self.adapter.get_non_terminated(),
            autoscaling_config=self.config,
            cloud_provider_errors=self.adapter.poll_errors(),
        )
        self.adapter._main_executor.submit(lambda: None).result(10)
        self.adapter._node_launcher_executors.submit(lambda: None).result(10)
        self.adapter._node_launcher_executors.shutdown(wait=True)
        self.adapter._node_launcher_executors = type(self.adapter._node_launcher_executors)(1)
        self.now += seconds

    def _state(self) -> ClusterResourceState:
        state = ClusterResourceState()
        for number, (machine, standing) in enumerate(sorted(self.nodes.items())):
            node = state.node_states.add()
            node.node_id = f"node-{machine}".encode()
            node.instance_id = machine
            head = machine == self.head
            node.ray_node_type_name = "head" if head else "worker"
            words: dict[Standing, str] = {"alive": "RUNNING", "dead": "DEAD"}
            node.status = NodeStatus.Value(words.get(standing, "DRAINING"))
            if machine in self.idle_since and standing == "alive":
                node.status = NodeStatus.Value("IDLE")
                node.idle_duration_ms = int(1000 * (self.now - self.idle_since[machine]))
            if head:
                node.total_resources["node:__internal_head__"] = 1
            else:
                node.total_resources["CPU"] = 1
                node.available_resources["CPU"] = 0
            node.node_ip_address = f"10.0.0.{number}"
        if self.demand:
            request = state.pending_resource_requests.add()
            request.count = self.demand
            request.request.resources_bundle["CPU"] = 1
        return state

    def instances(self) -> Counter[str]:
        """Ray's own records, by status."""
        found = self.manager.get_instance_manager_state(GetInstanceManagerStateRequest()).state.instances
        return Counter(Instance.InstanceStatus.Name(each.status) for each in found)

    def live(self, wanted: int) -> None:
        """What machines do by themselves: those that run join, those that are gone are dead, those stopped leave.

        Args:
            wanted: so many nodes have work, or shall have.
        """
        self.cloud.tick()
        for vm in self.cloud.machines:
            if vm.cluster == "t" and vm.running_at is not None and vm.ending_at is None:
                self.nodes.setdefault(vm.id, "alive")
            elif vm.id in self.nodes:
                self.nodes[vm.id] = "dead"
        found = self.manager.get_instance_manager_state(GetInstanceManagerStateRequest()).state.instances
        for each in found:
            if each.status == Instance.RAY_STOP_REQUESTED:
                self.nodes[each.cloud_instance_id] = "dead"
        working = [each for each, standing in sorted(self.nodes.items()) if standing == "alive" and each != self.head]
        for idle in working[wanted:]:
            self.idle_since.setdefault(idle, self.now)
        for busy in working[:wanted]:
            self.idle_since.pop(busy, None)
        self.demand = max(0, wanted - len(working))

    def look(self, seconds: float = 5.0) -> None:
        """As `cycle`; whatever is raised is logged, and the next look follows, as Ray does."""
        try:
            self.cycle(seconds)
        except (Refused, OSError):
            self.now += seconds

    def working(self) -> int:
        """Nodes that live, and do not idle."""
        alive = [each for each, standing in self.nodes.items() if standing == "alive" and each != self.head]
        return len([each for each in alive if each not in self.idle_since])

    def comes(self, wanted: int, condition: Callable[[], bool]) -> bool:
        """Whether it comes to that within an hour and stays so: pauses after refusals last, and boots too."""
        held = 0
        for _ in range(120):
            self.live(wanted)
            self.look(30.0)
            self.live(wanted)
            held = held + 1 if condition() else 0
            if held == 5:
                return True
        return False

    def close(self) -> None:
        self.adapter._main_executor.shutdown()
        self.adapter._node_launcher_executors.shutdown()

    def up(self) -> str:
        """Until there is one worker, which has joined."""
        self.demand = 1
        self.cycle()
        self.cycle()
        worker = self.cloud.machines[-1].id
        assert worker != self.head
        self.nodes[worker] = "alive"
        self.demand = 0
        self.cycle()
        assert self.instances() == {"RAY_RUNNING": 2}
        return worker


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Ray logs each change of each record."""
    log = logging.getLogger("ray")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


@pytest.fixture
def ray() -> Iterator[Ray]:
    ray = Ray()
    yield ray
    ray.close()


class Believing(NodeProvider):
    """A provider that tells Ray what the cloud says, as most do."""

    def __init__(self, config: dict[str, Any], name: str, market: Any, **_: Any) -> None:
        super().__init__(config, name)
        self.market, self.seen = market, dict[str, Any]()

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        self.seen |= {each.id: each for each in self.market.machines()}
        return [each.id for each in self.market.machines() if each.state != "stopping"]

    def node_tags(self, node_id: str) -> dict[str, str]:
        return dict(self.seen[node_id].tags)

    def is_running(self, node_id: str) -> bool:
        return True

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        option = Ray._option("c", "a")
        for number in range(count):
            tags = {**tags, "ray-cluster-name": "t"}
            self.market.launch(option, tags, {}, f"{number} {len(self.seen)} {id(object())}")

    def terminate_nodes(self, node_ids: list[str]) -> None:
        self.market.terminate(node_ids)


def test_a_refusal_is_asked_again_at_every_look_and_each_is_kept_for_ever_and_no_reason_is_told() -> None:
    """Of Ray: so the provider waits, and tells."""
    ray = Ray(Believing)
    ray.cloud.refuse(reason="none is left")
    ray.demand = 2
    for _ in range(10):
        ray.cycle()
    assert ray.instances()["ALLOCATION_FAILED"] >= 16
    found = ray.manager.get_instance_manager_state(GetInstanceManagerStateRequest()).state.instances
    details = [each.status_history[-1].details for each in found if each.status_history]
    assert not any("none is left" in each for each in details)


def test_a_machine_that_is_missing_from_one_list_is_written_off_for_good() -> None:
    """Of Ray: so the provider shows what works."""
    ray = Ray(Believing)
    worker = ray.up()
    ray.cloud.lie(5.0, forgets=True)
    ray.cycle()
    for _ in range(10):
        ray.cycle()
    assert ray.nodes[worker] == "alive"
    assert ray.instances() == {
        "RAY_RUNNING": 1,
        "TERMINATED": 1,
        "ALLOCATED": 1,
    }  # waiting for what has joined long ago


def test_ours_keeps_it(ray: Ray) -> None:
    worker = ray.up()
    ray.cloud.lie(5.0, forgets=True)
    ray.cycle()
    for _ in range(10):
        ray.cycle()
    assert ray.instances() == {"RAY_RUNNING": 2}
    assert ray.cloud.left("t") == [ray.head, worker]


def test_what_the_cloud_shows_though_it_is_gone_is_replaced_all_the_same(ray: Ray) -> None:
    worker = ray.up()
    ray.cloud.lie(1e6, ghosts=True)
    ray.cloud.kill(worker)
    ray.nodes[worker] = "dead"
    ray.demand = 1
    for _ in range(5):
        ray.cycle()
    (new,) = set(ray.cloud.left("t")) - {ray.head}
    assert new != worker
    ray.nodes[new] = "alive"
    ray.demand = 0
    for _ in range(30):
        ray.cycle(30.0)
    assert ray.cloud.left("t") == [ray.head, new]
    assert len(ray.cloud.machines) == 3


def test_one_that_never_boots_is_replaced(ray: Ray) -> None:
    ray.cloud.lie(never_boots=1)
    ray.demand = 1
    for _ in range(8):
        ray.cycle(200.0)
    worker = ray.cloud.left("t")[-1]
    assert worker == "i-0002"
    assert ray.cloud.left("t") == [ray.head, worker]


def test_one_that_is_drained_is_replaced_before_its_end_and_then_given_back(ray: Ray) -> None:
    worker = ray.up()
    ray.nodes[worker] = Draining()
    ray.demand = 1
    ray.cycle()
    ray.cycle()
    new = ray.cloud.machines[-1].id
    assert ray.cloud.left("t") == [ray.head, worker, new]
    ray.nodes[new], ray.demand = "alive", 0
    for _ in range(5):
        ray.cycle(300.0)
    assert ray.cloud.left("t") == [ray.head, new]


def test_a_cloud_that_throttles_stops_nothing_for_good(ray: Ray) -> None:
    ray.up()
    ray.cloud.lie(20.0, throttles=True)
    ray.demand = 1
    for _ in range(8):
        ray.cycle()
    assert len(ray.cloud.left("t")) == 3


LIES = st.sampled_from(["ghosts", "forgets", "foreign", "loses", "throttles", "silent", "stuck"])
HAPPENINGS = st.one_of(
    st.tuples(st.just("want"), st.integers(0, 4)),
    st.tuples(st.just("lie"), st.tuples(LIES, st.integers(1, 400))),
    st.tuples(st.just("never"), st.integers(1, 3)),
    st.tuples(st.just("kill"), st.integers(0, 3)),
    st.tuples(st.just("refuse"), st.integers(1, 400)),
)


@given(st.lists(st.tuples(HAPPENINGS, st.integers(1, 12)), max_size=12))
@settings(max_examples=examples(12, 2000), deadline=None, derandomize=not SOAK)
def test_however_the_cloud_lies_the_cluster_comes_to_what_is_wanted_and_then_to_nothing(
    story: list[tuple[tuple[str, Any], int]],
) -> None:
    ray, wanted = Ray(), 0
    for (what, how), looks in story:
        workers = [each for each in ray.cloud.left("t") if each != ray.head]
        if what == "want":
            wanted = how
        elif what == "lie":
            ray.cloud.lie(float(how[1]), **{how[0]: True})
        elif what == "never":
            ray.cloud.lie(never_boots=how)
        elif what == "refuse":
            ray.cloud.refuse(for_s=float(how))
        elif workers:
            ray.cloud.kill(workers[how % len(workers)])
        for _ in range(looks):
            ray.live(wanted)
            ray.look()
    ray.cloud.lies, ray.cloud._rules = Lies(), []
    assert ray.comes(wanted, lambda: ray.working() == wanted)
    assert ray.comes(0, lambda: ray.cloud.left("t") == [ray.head])
    ray.close()
