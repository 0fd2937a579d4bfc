"""Ray Train's trainer with live membership: it starts one of our controllers in place of its own.

Touches `ray.train.v2._internal`, see `headway.elastic.lead.group`.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


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
        controller: the class of the controller, see `headway.elastic.lead.processes`.
        function: the train function.
        controls: keyword arguments of the controller beside Ray Train's.
        rest: arguments of DataParallelTrainer.
    """

    def __init__(self, controller: type[Any], function: Any, controls: dict[str, Any], **rest: Any) -> None:
        DataParallelTrainer.__init__(self, function, backend_config=_NoBackendConfig(), **rest)
        self._controller, self._controls = controller, controls

    def _create_default_callbacks(self) -> list[Any]:
        # The cleaner knows of one placement group only; ours go with the controller. The datasets' callback starts an
        # actor per worker that joins, and has every worker import Ray Data, for datasets that there are none of.
        left_out = (PlacementGroupCleanerCallback, DatasetsCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, left_out)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        actor = ray.remote(num_cpus=0, label_selector=here, runtime_env={"env_vars": get_env_vars_to_propagate()})
        named = actor(self._controller).options(**self._controls["names"].of("controller"))
        arguments["scaling_policy"] = _NoRequests(self.scaling_config)
        controller = named.remote(**arguments, **self._controls)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())
