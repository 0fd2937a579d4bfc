"""Ray Train's worker group, resized in place: it begins empty, and its workers come and go.

With `trainer` and `processes` beside it the only module that touches `ray.train.v2._internal` (Ray 2.60;
tests/ray/test_seams.py fails on a release where the seams are others). See docs/decisions/0006-ray-train-internals.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.execution.checkpoint.sync_actor import SynchronizationActor
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2._internal.execution.worker_group.worker import Worker
from ray.train.v2._internal.util import bundle_to_remote_args, time_monotonic
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from headway.driver.names import Names
from headway.elastic.lead.view import contexts


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
    _state = WorkerGroupState

    def _start_impl(self, worker_group_state_builder: Any) -> None:
        self._assert_inactive()
        self.groups = _Groups()
        self._replica_groups, self._worker_rank_to_replica_group_rank = [], {}
        self._worker_group_state = self._state(time_monotonic(), self.groups, [], self._barrier())

    def _barrier(self) -> Any:
        """By which Ray Train's own workers agree."""
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        return SynchronizationActor.options(label_selector=here).remote(
            timeout_s=self._collective_timeout_s, warn_interval_s=self._collective_warn_interval_s
        )

    def spawn(self, name: str, group: Any, first: Callable[..., None] | None, *told: Any) -> Any:
        """Start a worker's process in its placement group and its train function in that; blocks.

        Args:
            first: called in the process before its train function is, with `told`.
        """
        context = self._worker_group_context
        worker = self._created(name, group, context.resources_per_worker)
        self._init_train_context([worker], self._worker_group_state.sync_actor)
        if first is not None:
            ray.get(worker.actor.execute.remote(first, *told))
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
        self._worker_group_state = self._state(
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


class _Unbound(WorkerGroupState):
    """Of a group without a barrier."""

    def shutdown(self) -> None:
        for worker in self.workers:
            ray.kill(worker.actor)
        self.placement_group_handle.shutdown()


class PooledWorkerGroup(ElasticWorkerGroup):
    """A group whose workers work for different runs: they have nothing to agree on, and need no actor for that."""

    _state = _Unbound

    def _barrier(self) -> Any:
        return None
