"""What room a cluster has, and whether it can have more: asked of Ray by the process that is connected to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from headway.core import news

GROUP = "ray.io/node-group"
"""Label of a node that was started as one of a kind."""
MANY = 1000
"""Of what takes nothing a node has room for as many as anybody wants."""


def has_autoscaler() -> bool:
    """Whether the cluster says that it can have nodes that it has not.

    Under Kubernetes it says so itself; the first autoscaler by its status. The second says nothing: it is there where
    it is switched on, and nodes came with the name of a kind (or where our provider, which it runs, has news).
    """
    import ray
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray._private.state import state
    from ray._raylet import (  # type: ignore[attr-defined]
        GCS_AUTOSCALER_STATE_NAMESPACE,
        GCS_AUTOSCALER_V2_ENABLED_KEY,
    )
    from ray.experimental.internal_kv import _internal_kv_get

    config = state.get_cluster_config()
    if config is not None:
        return any(group.max_count != 0 for group in config.node_group_configs)
    if _internal_kv_get(news.KEY, namespace=news.NAMESPACE) is not None:
        return True
    if _internal_kv_get(GCS_AUTOSCALER_V2_ENABLED_KEY, namespace=GCS_AUTOSCALER_STATE_NAMESPACE) != b"1":
        return has_kinds(_internal_kv_get(DEBUG_AUTOSCALING_STATUS))
    return any(node["Labels"].get(GROUP) for node in ray.nodes() if node["Alive"])


def has_kinds(status: bytes | None) -> bool:
    """Whether a status that an autoscaler wrote names kinds of nodes; one that only looks calls each after its id."""
    try:
        report = json.loads(status or b"{}")["autoscaler_report"]
        kinds = [*report["active_nodes"], *(kind for _, kind, _ in report["pending_nodes"])]
    except (ValueError, KeyError, TypeError):
        return False
    return any(not kind.startswith("node_") for kind in kinds)


def fits(each: Mapping[str, float]) -> bool:
    """Whether a living node that is to stay has room now for something of this size."""
    return any(number > 0 for number in _rooms(each))


def fit(each: Mapping[str, float]) -> int:
    """For how many of this size living nodes that are to stay have room now, as far as Ray knows."""
    return sum(_rooms(each))


def _rooms(each: Mapping[str, float]) -> Iterator[int]:
    """For how many each of these nodes has room."""
    import ray
    from ray._private.state import available_resources_per_node, state

    free, leaving = available_resources_per_node(), state.get_draining_nodes()
    for node in ray.nodes():
        if node["Alive"] and node["NodeID"] not in leaving:
            has = free.get(node["NodeID"], {})
            yield min((int(has.get(name, 0) // amount) for name, amount in each.items() if amount > 0), default=MANY)
