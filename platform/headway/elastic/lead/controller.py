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
import itertools
import logging
import threading
import time
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.experimental.internal_kv import _internal_kv_get
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.controller import TrainControllerLoopIterationResult
from ray.train.v2._internal.execution.controller.state import FinishedState, RunningState, ShuttingDownState
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2._internal.execution.worker_group.worker import Worker
from ray.train.v2._internal.util import bundle_to_remote_args, time_monotonic
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from headway.core.demand import Worth
from headway.core.events import Launch
from headway.core.membership import Policy
from headway.core.news import KEY, NAMESPACE, News
from headway.core.prospect import Prospect
from headway.driver.names import Names
from headway.elastic.lead import notices, room
from headway.elastic.lead.coordinator import Coordinator, Failure
from headway.elastic.lead.places import Orders, Places, where
from headway.elastic.lead.view import contexts, show
from headway.elastic.wire import place
from headway.elastic.wire.place import Place

logger = logging.getLogger(__name__)

NODES_POLL_S = 0.5
RISKS_EVERY = 4
"""Every so many looks it is asked for nodes that are at risk."""
RECORD_S = 30.0
MARKET_S, MARKET_SEEN_S = 2.0, 10.0
"""Between two looks at what a cluster's provider tells; and at whether there is one."""


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
        total_steps: of the run; 0 where that is not known.
        at_once: so many workers are asked of a cluster that buys machines whether or not it pays.
    """

    worker_group_cls = ElasticWorkerGroup

    def __init__(
        self,
        *,
        policy: Policy,
        recorder: Any,
        alike: bool,
        names: Names,
        total_steps: int = 0,
        at_once: int = 1,
        **rest: Any,
    ) -> None:
        self._recorder, self._names = recorder, names
        self._launched: dict[str, Any] = {}
        self._dismissed: set[str] = set()
        self._lock = threading.Lock()
        self._members: list[str] | None = None
        self._settled: list[str] = []
        self._failed: Any = None
        """The recorder's word that it knows why the run failed."""
        self._over = threading.Event()
        self._orders = Orders(room.has_autoscaler(), at_once)
        here = ray.get_runtime_context().get_node_id()
        self._coordinator = Coordinator(policy, self, here, alike, Prospect(at_once, total_steps))
        self._host = ray.util.get_node_ip_address()
        super().__init__(**rest)

    def resize(self, least: int, most: int, by: str, request: str, at_once: int) -> None:
        """Called by the driver, see `Coordinator.resize`."""
        self._coordinator.resize(least, most, by, request, at_once)

    # What the coordinator asks for; called in its thread

    def launch(self, wanted: Launch) -> None:
        threading.Thread(target=self._launch, args=(wanted,), name=f"launch-{wanted.worker}", daemon=True).start()

    def dismiss(self, worker: str) -> None:
        threading.Thread(target=self._free, args=(worker,), name=f"dismiss-{worker}", daemon=True).start()

    def record(self, event: dict[str, Any]) -> None:
        self._recorder.event.remote(event)

    def changed(self, members: list[str]) -> None:
        self._members = members

    def order(self, number: int, worth: Worth) -> None:
        if self._orders.allow(number) and self._orders.buys:
            self.record({"kind": "demand", "time": time.time(), "workers": worth.workers, "reason": worth.reason})

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
            group = self._places.find(wanted)
            if group is None:
                return
            assert self._worker_group is not None
            node, address = where(group)
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
            self._free(name)  # of one that was dismissed meanwhile nobody else lets the place go

    def _say_crowded(self, name: str) -> None:
        self.record({"kind": "crowded", "time": time.time(), "worker": name})

    def _is_unwanted(self, name: str) -> bool:
        return self._over.is_set() or self._is_dismissed(name)

    def _is_dismissed(self, name: str) -> bool:
        with self._lock:
            return name in self._dismissed

    def _free(self, name: str) -> None:
        with self._lock:
            self._dismissed.add(name)
            worker = self._launched.pop(name, None)
        self._orders.gone(name)
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
        for look in itertools.count():
            if self._over.wait(NODES_POLL_S):
                return
            try:
                draining = ray._private.state.state.get_draining_nodes()
                reasons = {node: notices.reason(node, deadline) for node, deadline in draining.items()}
                risks = notices.at_risk() if look % RISKS_EVERY == 0 else {}
                dead |= {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
            except Exception as error:  # the control store may be away for a moment
                logger.warning("the nodes' states are not known: %s", error)
                continue
            for node, deadline_ms in draining.items():
                left = deadline_ms / 1000 - time.time() if deadline_ms else 30.0
                self._coordinator.drained(node, max(0.0, left), reasons[node])
            for node, reason in risks.items():
                self._coordinator.at_risk(node, reason)
            for node in dead:
                self._coordinator.node_died(node)

    def _watch_market(self) -> None:
        """Hand on why machines that are asked for cannot be had, as the cluster's provider tells it. A head that is
        new may not have said yet that there is one."""
        while not self._over.wait(MARKET_S if self._orders.buys else MARKET_SEEN_S):
            try:
                self._orders.buys = self._orders.buys or room.has_autoscaler()
                told = News.decode(_internal_kv_get(KEY, namespace=NAMESPACE))
            except Exception as error:  # as above
                logger.warning("what the cluster waits for is not known: %s", error)
                continue
            self._coordinator.market("; ".join(f"{kind}: {each.reason}" for kind, each in told.waiting.items()))

    # Ray Train's control loop

    def _start_worker_group(self, num_workers: int, resources_per_worker: dict[str, float]) -> None:
        super()._start_worker_group(num_workers, resources_per_worker)
        assert self._worker_group is not None
        self._worker_group.names = self._names
        self._places = Places(
            self._worker_group.groups,
            self._worker_group.get_resources_per_worker(),
            self._is_unwanted,
            self._over.wait,
            self._orders,
            self._say_crowded,
            self._coordinator.came,
        )
        self._port = self._coordinator.start(self._host)
        self._coordinator.begin()
        threading.Thread(target=self._watch_nodes, name="watch-nodes", daemon=True).start()
        threading.Thread(target=self._watch_market, name="watch-market", daemon=True).start()

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


class _NoRequests(FixedScalingPolicy):
    """Asks Ray's autoscaler for nothing: what a run wants of machines are its workers' placement groups.

    Ray Train would ask for as many bundles as the run began with beside them, through an actor that it starts for that,
    and again and again: machines would be bought twice, and none that is idle would go.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class ElasticTrainer(DataParallelTrainer):
    """Ray Train's trainer with live membership. Not its TorchTrainer: who leads has no use for torch.

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
        arguments["scaling_policy"] = _NoRequests(self.scaling_config)
        controller = named.remote(**arguments, **self._controls)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())
