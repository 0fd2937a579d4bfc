"""Points on their way to MLflow. To a server they go in its own REST words, since its client makes several objects of
each point first, which takes nine times as long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

ENDPOINT = "/api/2.0/mlflow/runs/log-batch"
AT_ONCE = 4
"""Requests; MLflow's server has so many workers unless told otherwise."""


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


def together(send: Callable[[Sequence[Metric]], int], parts: Iterable[Sequence[Metric]]) -> int:
    """The sum of what `send` returns for each part, of which several are under way at once.

    Raises:
        Exception: the first that `send` raised; no further part is begun then, and none is under way any more.
    """
    rest, lock = iter(parts), threading.Lock()
    sums: list[int] = []
    errors: list[Exception] = []

    def work() -> None:
        while True:
            with lock:
                part = next(rest, None)
            if part is None or errors:
                return
            try:
                sums.append(send(part))
            except Exception as error:
                errors.append(error)

    # No executor: its threads would be waited for at the end of a process that has given up on a server.
    threads = [threading.Thread(target=work, name=f"mlflow-batch-{n}", daemon=True) for n in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(sums)


def _store(client: MlflowClient) -> Any:
    return client._tracking_client.store


def _plain(metric: Metric) -> dict[str, Any]:
    point = {"key": metric.key, "value": metric.value, "timestamp": metric.timestamp, "step": metric.step}
    return point if metric.model_id is None else {**point, "model_id": metric.model_id}
