"""What our controller and worker group rely on inside Ray Train; on another release this says what moved."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest
import ray


def parameters(function: Any) -> list[str]:
    """As they are written: Ray adds one to the methods of a class that an actor was made of in this process."""
    return [name for name in inspect.signature(function).parameters if name != "_ray_trace_ctx"]


def test_the_release_is_the_one_that_was_read() -> None:
    assert ray.__version__.startswith("2.60."), "read headway/elastic/lead against this release first"


def test_seams_of_the_controller() -> None:
    from ray.train.v2._internal.execution.controller import TrainController

    for name in (
        "_step",
        "_start_worker_group",
        "_shutdown",
        "_generate_run_attempt_id",
        "_get_run_attempt_id",
        "get_state",
        "run",
        "get_result",
    ):
        assert callable(getattr(TrainController, name)), name
    assert inspect.iscoroutinefunction(TrainController._step)
    assert inspect.iscoroutinefunction(TrainController._shutdown)
    assert parameters(TrainController._start_worker_group) == ["self", "num_workers", "resources_per_worker"]
    source = inspect.getsource(TrainController)
    assert "self.worker_group_cls.create(" in source, "the worker group's class is no longer a class attribute"
    assert "_health_check_interval_s" in source


def test_nothing_is_asked_of_rays_autoscaler_but_places_for_workers() -> None:
    """Ray Train would keep machines that no worker is on, by a request of its own."""
    from ray.train import ScalingConfig

    from headway.elastic.lead.trainer import _NoRequests

    policy = _NoRequests(ScalingConfig(num_workers=3))
    policy.after_controller_start(None)
    assert policy._coordinator_client is None
    assert policy.make_decision_for_non_running_worker_group().num_workers == 3
    policy._cancel_resource_request()


def test_who_leads_a_run_needs_no_torch() -> None:
    """A second of every start."""
    code = "import sys, headway.elastic.lead.controller; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_seams_of_the_worker_group() -> None:
    from ray.train.v2._internal.execution.worker_group import WorkerGroup
    from ray.train.v2._internal.execution.worker_group.state import WorkerGroupState

    assert parameters(WorkerGroup._start_impl) == ["self", "worker_group_state_builder"]
    assert parameters(WorkerGroup._create_workers)[:4] == [
        "self",
        "num_workers",
        "placement_group",
        "resources_per_worker",
    ]
    assert parameters(WorkerGroup._init_train_context) == ["self", "workers", "sync_actor"]
    assert parameters(WorkerGroupState) == ["start_time", "placement_group_handle", "workers", "sync_actor"]
    source = inspect.getsource(WorkerGroup)
    for name in ("_world_rank_to_ongoing_poll", "_latest_poll_status", "_callbacks", "_collective_timeout_s"):
        assert name in source, name


def test_seams_of_the_worker() -> None:
    from ray.train.v2._internal.execution.context import DistributedContext, TrainContext
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

    assert set(parameters(DistributedContext)) == {
        "world_rank",
        "world_size",
        "local_rank",
        "local_world_size",
        "node_rank",
    }
    assert "distributed_context" in TrainContext.__dataclass_fields__
    assert not TrainContext.__dataclass_params__.frozen, "the context could no longer tell the truth after a resize"
    assert parameters(RayTrainWorker.run_train_fn) == ["self", "train_fn_ref"]


def test_2_3_seam_of_nodes_that_are_avoided() -> None:
    """A bundle's label selector keeps a worker off nodes by their ids."""
    from ray.util.placement_group import placement_group, remove_placement_group

    mine = not ray.is_initialized()
    if mine:
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        here, other = ray.get_runtime_context().get_node_id(), "f" * 56
        found = {}
        for selector, within_s in ((f"!in({other})", 60.0), (f"!in({here},{other})", 2.0)):
            labels = {ray._raylet.RAY_NODE_ID_KEY: selector}
            group = placement_group([{"CPU": 0.01}], bundle_label_selector=[labels])
            found[selector] = group.wait(within_s)
            remove_placement_group(group)
        assert list(found.values()) == [True, False]
    finally:
        if mine:
            ray.shutdown()


def test_seam_of_rays_messages() -> None:
    from ray._private import worker

    assert "print_to_stdstream(" in inspect.getsource(worker.listen_error_messages), "they would be printed again"


def test_seams_of_a_lean_ray() -> None:
    from ray._private import node, services
    from ray.dashboard import agent

    assert "start_ray_process(" in inspect.getsource(services.start_raylet)
    assert '"--dashboard_agent_command={}"' in inspect.getsource(services.start_raylet)
    source = inspect.getsource(agent.DashboardAgent.__init__)
    assert source.count("-1,") == 2, "a minimal Ray's agent says so that its ports are not in use"
    for name in ("start_api_server", "start_monitor", "start_log_monitor"):
        assert hasattr(node.Node, name)


def test_seam_of_workers_that_are_early() -> None:
    """Their actors are made as Ray Train makes them."""
    from ray.train.v2._internal.execution.worker_group import WorkerGroup
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

    from headway.elastic.wire.barrier import NoBarrier

    assert parameters(RayTrainWorker) == []
    assert parameters(RayTrainWorker.execute)[:2] == ["self", "fn"]
    assert "_worker_cls" in inspect.getsource(WorkerGroup)
    barrier = pickle.loads(pickle.dumps(NoBarrier()))
    with pytest.raises(RuntimeError, match="Record with session"):
        barrier.broadcast_from_rank_zero.remote()


def test_seams_of_the_trainer() -> None:
    from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    assert PlacementGroupCleanerCallback
    assert DatasetsCallback
    source = inspect.getsource(DataParallelTrainer._initialize_and_run_controller)
    assert "TrainController" in source
    assert "_create_default_callbacks" in inspect.getsource(DataParallelTrainer.fit)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (["a"], [(0, 1, 0, 1, 0)]),
        (["a", "b", "a"], [(0, 3, 0, 2, 0), (1, 3, 0, 1, 1), (2, 3, 1, 2, 0)]),
    ],
)
def test_places_among_members(nodes: list[str], expected: list[tuple[int, ...]]) -> None:
    from headway.elastic.lead.view import contexts

    found = [(c.world_rank, c.world_size, c.local_rank, c.local_world_size, c.node_rank) for c in contexts(nodes)]
    assert found == expected
