"""Points on their way to MLflow. To a server they go in its own REST words, for its client makes several objects of each
point first, which takes nine times as long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

ENDPOINT = "/api/2.0/mlflow/runs/log-batch"


def has_server(client: MlflowClient) -> bool:
    """Whether MLflow's own server is asked, by HTTP; Databricks' has rules of its own."""
    from mlflow.store.tracking.rest_store import RestStore

    return type(_store(client)) is RestStore


def post(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log finite points of a run, at most 1,000. What MLflow retries, and for how long, is as for all its requests.

    Raises:
        MlflowException: as of `MlflowClient.log_batch`.
    """
    if not has_server(client):
        client.log_batch(run_id, metrics=metrics, synchronous=True)
        return
    from mlflow.utils.rest_utils import http_request_safe

    body = {"run_id": run_id, "metrics": [_plain(metric) for metric in metrics]}
    http_request_safe(_store(client).get_host_creds(), ENDPOINT, "POST", json=body)


def _store(client: MlflowClient) -> Any:
    return client._tracking_client.store


def _plain(metric: Metric) -> dict[str, Any]:
    point = {"key": metric.key, "value": metric.value, "timestamp": metric.timestamp, "step": metric.step}
    return point if metric.model_id is None else {**point, "model_id": metric.model_id}
