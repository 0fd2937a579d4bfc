"""Ray Train's worker group, resized in place: it begins empty, and its workers come and go.

With `trainer` and `processes` beside it the only module that touches `ray.train.v2._internal` (Ray 2.60;
tests/ray/test_seams.py fails on a release where the seams are others). See docs/decisions/0006-ray-train-internals.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.v2._internal.execution.worker_group.placement_group_handle import PlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker, Worker
from ray.train.v2._internal.util import bundle_to_remote_args, time_monotonic
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from headway.driver.names import Names
from headway.elastic.lead.view import contexts
from headway.elastic.wire.barrier import NoBarrier


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


class _State(WorkerGroupState):
    """Of a group without a barrier."""

    def shutdown(self) -> None:
        for worker in self.workers:
            ray.kill(worker.actor)
        self.placement_group_handle.shutdown()


def standing(names: Names, name: str, node: str, cpus: int, env: dict[str, Any]) -> Any:
    """The actor of a worker to be, on a node, which takes nothing there as long as it has nothing to do. What a worker
    takes is held for it by its placement group from then on."""
    threads = {"OMP_NUM_THREADS": str(cpus)}  # as Ray would set it for one that takes so many
    env = {**env, "env_vars": {**env.get("env_vars", {}), **threads}}
    actor_class = ray.remote(runtime_env=env, num_cpus=0)(RayTrainWorker)
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return actor_class.options(scheduling_strategy=there, **names.of(name)).remote()


def process(names: Names, name: str, group: Any, resources: dict[str, float], env: dict[str, Any]) -> Any:
    """The actor of a worker, which is being started in its placement group; as Ray Train makes them, with a name."""
    actor_class = ray.remote(runtime_env=env, **bundle_to_remote_args(resources))(RayTrainWorker)
    there = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=0)
    return actor_class.options(scheduling_strategy=there, **names.of(name)).remote()


class ElasticWorkerGroup(WorkerGroup):
    """A worker group that begins empty and whose workers come and go."""

    names: Names
    _state = _State
    _standing: list[tuple[str, Any]]
    """Nodes and actors that stand by."""

    def take(self, early: Mapping[str, tuple[Any, Any]]) -> None:
        """Workers' placement groups and actors that are there already, see `headway.elastic.lead.early`."""
        self._early: dict[str, Any] = {name: actor for name, (_, actor) in early.items()}
        self.groups.by_worker.update({name: group for name, (group, _) in early.items()})

    def stand_by(self, standing: list[tuple[str, Any]]) -> None:
        """Processes that take nothing so far, by their nodes: who gets a place there works in one of them."""
        self._standing = list(standing)

    def let_go(self) -> None:
        """Nobody needs those that stand by any more."""
        standing, self._standing = self._standing, []
        for _, actor in standing:
            ray.kill(actor)

    def _start_impl(self, worker_group_state_builder: Any) -> None:
        self._assert_inactive()
        self.groups = _Groups()
        self._replica_groups, self._worker_rank_to_replica_group_rank = [], {}
        self.take({})
        self._standing = []
        self._worker_group_state = self._state(time_monotonic(), self.groups, [], NoBarrier())

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
        actor = self._early.pop(name, None) or self._stood_by(group)
        if actor is None:
            env = self._get_worker_runtime_env(self._train_run_context.run_config.worker_runtime_env)
            actor = process(self.names, name, group, resources, env)
        try:
            metadata = ray.get(actor.get_metadata.remote())
        except RayActorError:
            ray.kill(actor)
            raise
        worker = Worker(actor, metadata, resources, placement_group_bundle_index=0)
        return WorkerGroup._assign_worker_ranks([worker], 0, None, None)[0]

    def _stood_by(self, group: Any) -> Any:
        """One that stands by on the node of a group; None where there is none."""
        if not self._standing:
            return None
        table = ray.util.placement_group_table(group)
        node = next(iter(table["bundles_to_node_id"].values()))
        for each in list(self._standing):
            with suppress(ValueError):  # another worker was faster
                if each[0] == node:
                    self._standing.remove(each)
                    return each[1]
        return None

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
