"""Live membership on Ray Train: its controller and worker group, resized in place.

The only module that touches `ray.train.v2._internal` (Ray 2.60; tests/ray/test_seams.py fails on a release where the
seams are others). See docs/decisions/0006-ray-train-internals.md.

- Every worker has a placement group of its own; it is launched, and taken away, in a thread that may block.
- Ray Train's control loop only polls, keeps its worker group in step with the coordinator's generation, and ends.
- Decisions are made in the coordinator's thread; see `headway.elastic.lead.coordinator`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.train.backend import Backend, BackendConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.controller import TrainControllerLoopIterationResult
from ray.train.v2._internal.execution.controller.state import FinishedState, RunningState, ShuttingDownState
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2._internal.execution.worker_group.worker import Worker
from ray.train.v2._internal.util import bundle_to_remote_args, time_monotonic
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from headway.core.events import Launch
from headway.core.membership import Policy
from headway.driver.names import Names
from headway.elastic.lead.coordinator import Coordinator, Failure
from headway.elastic.lead.view import contexts, show
from headway.elastic.wire import place
from headway.elastic.wire.place import Place

logger = logging.getLogger(__name__)

NODES_POLL_S = 0.5
RECORD_S = 30.0
AVOID_S = 120.0
"""So long a worker waits for a place that is not on a node to be avoided; then any will do."""
APART_S = 2.0
"""So long a spare waits for a place on a node that carries no member."""
CROWDED_S = 20.0
"""After so long without a place for a spare it is said that there is no room."""


class _Groups(PlacementGroupHandle):
    """One placement group per worker, by the worker's id."""

    def __init__(self) -> None:
        self.by_worker: dict[str, Any] = {}

    @property
    def placement_group(self) -> Any:
        return next(iter(self.by_worker.values()), None)

    def ready(self) -> Any:
        return ray.put(True)

    def wait(self, timeout_seconds: float = 30) -> bool:
        return True

    def shutdown(self) -> None:
        for name in list(self.by_worker):
            self.free(name)

    def free(self, worker: str) -> None:
        group = self.by_worker.pop(worker, None)
        if group is not None:
            remove_placement_group(group)


class ElasticWorkerGroup(WorkerGroup):
    """A worker group that begins empty and whose workers come and go."""

    names: Names

    def _start_impl(self, worker_group_state_builder: Any) -> None:
        self._assert_inactive()
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        barrier = SynchronizationActor.options(label_selector=here).remote(
            timeout_s=self._collective_timeout_s, warn_interval_s=self._collective_warn_interval_s
        )
        self.groups = _Groups()
        self._replica_groups, self._worker_rank_to_replica_group_rank = [], {}
        self._worker_group_state = WorkerGroupState(time_monotonic(), self.groups, [], barrier)

    def spawn(self, name: str, group: Any, where: Place) -> Any:
        """Start a worker's process in its placement group and its train function in that; blocks."""
        context = self._worker_group_context
        worker = self._created(name, group, context.resources_per_worker)
        self._init_train_context([worker], self._worker_group_state.sync_actor)
        ray.get(worker.actor.execute.remote(place.enter, where, show))
        ray.get(worker.actor.run_train_fn.remote(context.train_fn_ref))
        return worker

    def _created(self, name: str, group: Any, resources: dict[str, float]) -> Worker:
        """As `_create_workers` does it, for one actor that has a name."""
        env = self._get_worker_runtime_env(self._train_run_context.run_config.worker_runtime_env)
        actor_class = ray.remote(runtime_env=env, **bundle_to_remote_args(resources))(self._worker_cls)
        there = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
        actor = actor_class.options(scheduling_strategy=there, **self.names.of(name)).remote()
        try:
            metadata = ray.get(actor.get_metadata.remote())
        except RayActorError:
            ray.kill(actor)
            raise
        worker = Worker(actor, metadata, resources, placement_group_bundle_index=0)
        return WorkerGroup._assign_worker_ranks([worker], 0, None, None)[0]

    def settle(self, workers: list[Any], attempt: str) -> None:
        """Let these be the group's workers, in order of rank; Ray Train's callbacks hear of it as of a new group."""
        started = bool(self.get_workers())
        if started:
            for callback in self._callbacks:
                callback.before_worker_group_shutdown(self)
                callback.after_worker_group_shutdown(self._worker_group_context)
        for worker, context in zip(workers, contexts([w.metadata.node_id for w in workers]), strict=True):
            worker.distributed_context = context
        state = self._worker_group_state
        self._worker_group_state = WorkerGroupState(
            state.start_time, state.placement_group_handle, list(workers), state.sync_actor
        )
        self._world_rank_to_ongoing_poll.clear()
        self._latest_poll_status = None
        self._worker_group_context = dataclasses.replace(
            self._worker_group_context, run_attempt_id=attempt, num_workers=len(workers)
        )
        if not workers:
            return
        for callback in self._callbacks:
            callback.before_worker_group_start(self._worker_group_context)
        for callback in self._callbacks:
            callback.after_worker_group_start(self)
        for callback in self._callbacks:
            callback.after_worker_group_training_start(self)


class ElasticController(TrainController):
    """Runs as an actor on the driver's node. See the module.

    Args:
        policy: of membership.
        recorder: actor handle of `headway.elastic.lead.recorder.Recorder`.
        alike: see `Coordinator`.
        names: of the run's actors.
    """

    worker_group_cls = ElasticWorkerGroup

    def __init__(self, *, policy: Policy, recorder: Any, alike: bool, names: Names, **rest: Any) -> None:
        self._recorder, self._names = recorder, names
        self._launched: dict[str, Any] = {}
        self._dismissed: set[str] = set()
        self._lock = threading.Lock()
        self._members: list[str] | None = None
        self._settled: list[str] = []
        self._failed: Any = None
        """The recorder's word that it knows why the run failed."""
        self._over = threading.Event()
        self._said_crowded = False
        self._coordinator = Coordinator(policy, self, ray.get_runtime_context().get_node_id(), alike)
        self._host = ray.util.get_node_ip_address()
        super().__init__(**rest)

    # What the coordinator asks for; called in its thread

    def launch(self, wanted: Launch) -> None:
        threading.Thread(target=self._launch, args=(wanted,), name=f"launch-{wanted.worker}", daemon=True).start()

    def dismiss(self, worker: str) -> None:
        threading.Thread(target=self._free, args=(worker,), name=f"dismiss-{worker}", daemon=True).start()

    def record(self, event: dict[str, Any]) -> None:
        self._recorder.event.remote(event)

    def changed(self, members: list[str]) -> None:
        self._members = members

    def ended(self, failure: Failure | None) -> None:
        if failure is not None:
            self._failed = self._recorder.fail.remote(failure)
        self._over.set()

    # Workers' places; in threads that may block

    def _launch(self, wanted: Launch) -> None:
        name = wanted.worker
        try:
            if self._over.wait(wanted.after_s):
                return
            group = self._find_place(wanted)
            if group is None:
                return
            assert self._worker_group is not None
            node, address = _where(group)
            self._coordinator.placed(name, node, address)
            here = Place(name, self._host, self._port, self._coordinator.pulse_port, self._coordinator.token)
            worker = self._worker_group.spawn(name, group, here)
            with self._lock:
                self._launched[name] = worker
            self._coordinator.spawned(name)
            if self._is_dismissed(name):
                self._free(name)
        except Exception as error:  # a node that died while the worker was started on it, of whatever kind
            logger.warning("worker %s could not be started: %s", name, error)
            self._coordinator.gone(name, "start_failed")

    def _find_place(self, wanted: Launch) -> Any:
        """A placement group that is ready, or None if the worker is not wanted any more."""
        assert self._worker_group is not None
        name, begun = wanted.worker, time.monotonic()
        resources = [self._worker_group.get_resources_per_worker()]
        wishes = [(wanted.avoid, AVOID_S), ((), math.inf)]  # such a node is better than none
        if wanted.apart:
            wishes.insert(0, ((*wanted.avoid, *wanted.apart), APART_S))
        for nodes, patience_s in wishes:
            elsewhere = _elsewhere(nodes)
            if elsewhere is None and patience_s < math.inf:
                continue
            group = placement_group(resources, bundle_label_selector=elsewhere)
            self._worker_group.groups.by_worker[name] = group
            until = time.monotonic() + patience_s
            while time.monotonic() < until:
                if group.wait(1.0):
                    return group
                if self._over.is_set() or self._is_dismissed(name):
                    break
                if wanted.spare and time.monotonic() - begun > CROWDED_S:
                    self._say_crowded(name)
            self._worker_group.groups.free(name)
            if self._over.is_set() or self._is_dismissed(name):
                break
        return None

    def _say_crowded(self, name: str) -> None:
        """Once: the cluster has no room for spares, which is no reason not to train."""
        with self._lock:
            said, self._said_crowded = self._said_crowded, True
        if not said:
            self.record({"kind": "crowded", "time": time.time(), "worker": name})

    def _is_dismissed(self, name: str) -> bool:
        with self._lock:
            return name in self._dismissed

    def _free(self, name: str) -> None:
        with self._lock:
            self._dismissed.add(name)
            worker = self._launched.pop(name, None)
        try:
            if worker is not None:
                ray.kill(worker.actor)
            if self._worker_group is not None:
                self._worker_group.groups.free(name)
        except (RayError, ValueError) as error:
            logger.warning("worker %s could not be ended: %s", name, error)

    def _watch_nodes(self) -> None:
        """Hand on what Ray says of nodes: notices that they will be taken away, and that they are dead."""
        dead: set[str] = set()
        while not self._over.wait(NODES_POLL_S):
            try:
                draining = ray._private.state.state.get_draining_nodes()
                dead |= {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
            except Exception as error:  # the control store may be away for a moment
                logger.warning("the nodes' states are not known: %s", error)
                continue
            for node, deadline_ms in draining.items():
                left = deadline_ms / 1000 - time.time() if deadline_ms else 30.0
                self._coordinator.drained(node, max(0.0, left))
            for node in dead:
                self._coordinator.node_died(node)

    # Ray Train's control loop

    def _start_worker_group(self, num_workers: int, resources_per_worker: dict[str, float]) -> None:
        super()._start_worker_group(num_workers, resources_per_worker)
        assert self._worker_group is not None
        self._worker_group.names = self._names
        self._port = self._coordinator.start(self._host)
        self._coordinator.begin()
        threading.Thread(target=self._watch_nodes, name="watch-nodes", daemon=True).start()

    async def _step(self) -> TrainControllerLoopIterationResult:
        if not isinstance(self.get_state(), RunningState):
            return await super()._step()
        if self._over.is_set():
            next_state: Any = ShuttingDownState(next_state=FinishedState())
        else:
            next_state = RunningState()
            await self._keep_up()
        return TrainControllerLoopIterationResult(
            run_attempt_id=self._get_run_attempt_id(), previous_state=self.get_state(), next_state=next_state
        )

    async def _keep_up(self) -> None:
        """Bring the worker group up to the coordinator's generation, and poll it."""
        group = self._worker_group
        assert group is not None
        try:
            members = self._members
            if members is not None and members != self._settled:
                with self._lock:
                    workers = [self._launched.get(m) for m in members]
                if all(workers):
                    attempt = self._generate_run_attempt_id()
                    await asyncio.to_thread(group.settle, workers, attempt)
                    self._settled = members
            await asyncio.sleep(self._health_check_interval_s)
            if group.get_workers() and self._members == self._settled:
                await asyncio.to_thread(group.poll_status, self._health_check_interval_s)
        except (RayError, AssertionError) as error:  # a worker died under a callback's hands; its end is seen elsewhere
            logger.info("Ray Train's view lags behind: %s", error)
            self._settled = []

    async def _shutdown(self) -> TrainControllerLoopIterationResult:
        self._over.set()
        if self._failed is not None:  # before the driver sees that this is over
            await asyncio.to_thread(ray.wait, [self._failed], timeout=RECORD_S)
        for name in list(self._launched):
            self._free(name)
        result = await super()._shutdown()
        self._coordinator.close()
        return result


class _NoBackend(Backend):
    """Ray Train sets no process group up: ours change with each generation."""


class _NoBackendConfig(BackendConfig):
    @property
    def backend_cls(self) -> type[Backend]:
        return _NoBackend


class ElasticTrainer(TorchTrainer):
    """Ray Train's TorchTrainer with live membership.

    Args:
        function: the train function.
        controls: keyword arguments of `ElasticController` beside Ray Train's.
        rest: arguments of DataParallelTrainer.
    """

    def __init__(self, function: Any, controls: dict[str, Any], **rest: Any) -> None:
        DataParallelTrainer.__init__(self, function, backend_config=_NoBackendConfig(), **rest)
        self._controls = controls

    def _create_default_callbacks(self) -> list[Any]:
        # The cleaner knows of one placement group only; ours go with the controller. The datasets' callback starts an
        # actor per worker that joins, and has every worker import Ray Data, for datasets that there are none of.
        left_out = (PlacementGroupCleanerCallback, DatasetsCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, left_out)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        actor = ray.remote(num_cpus=0, label_selector=here, runtime_env={"env_vars": get_env_vars_to_propagate()})
        named = actor(ElasticController).options(**self._controls["names"].of("controller"))
        controller = named.remote(**arguments, **self._controls)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())


def _elsewhere(avoid: tuple[str, ...]) -> list[dict[str, str]] | None:
    """A selector for the only bundle of a group that keeps it off these nodes, if there is another."""
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    avoided = sorted(alive & set(avoid))
    if not avoided or len(avoided) == len(alive):
        return None
    return [{ray._raylet.RAY_NODE_ID_KEY: f"!in({','.join(avoided)})"}]


def _where(group: Any) -> tuple[str, tuple[str, int] | None]:
    """The node of a ready placement group's only bundle, and the address of its raylet."""
    table = ray.util.placement_group_table(group)
    node = next(iter(table["bundles_to_node_id"].values()))
    for found in ray.nodes():
        if found["NodeID"] == node:
            return node, (found["NodeManagerAddress"], int(found["NodeManagerPort"]))
    return node, None
