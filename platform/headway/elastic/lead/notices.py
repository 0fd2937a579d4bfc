"""What the agents of the cluster's nodes have said of them; they keep it in Ray's internal store."""

from __future__ import annotations

from functools import lru_cache

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

from headway.core.news import NAMESPACE
from headway.core.notices import DRAIN, RISK_KEY, why


@lru_cache(maxsize=1000)
def reason(node: str, deadline_ms: int) -> str:
    """Why a node is drained that is to go at this time; "" where nobody said. Asked for once."""
    return why(_internal_kv_get(DRAIN + node, namespace=NAMESPACE))


def at_risk() -> dict[str, str]:
    """Nodes that may be taken away before long, and why it is thought so."""
    keys = _internal_kv_list(RISK_KEY, namespace=NAMESPACE)
    return {key.decode().removeprefix(RISK_KEY): why(_internal_kv_get(key, namespace=NAMESPACE)) for key in keys}
