"""What Ray knows of a cluster's machines, and where it keeps our news: asked from where its autoscaler runs."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from headway.core import news, offers, till, wishes
from headway.core.inventory import Draining, Standing
from headway.core.tenancy import HELD

ANSWER_S = 10.0


def head_address() -> str:
    """The head's address, as Ray's autoscaler was started with it; else RAY_ADDRESS; "" where neither is."""
    for argument in sys.argv:
        if argument.startswith("--gcs-address="):
            return argument.partition("=")[2]
    return os.environ.get("RAY_ADDRESS", "")


def standings() -> Mapping[str, Standing] | None:
    """By the cloud's id of a machine, what has become of its node; None where Ray cannot be asked."""
    if not head_address():
        return None
    from ray.autoscaler.v2.sdk import get_cluster_resource_state
    from ray.core.generated.autoscaler_pb2 import NodeStatus  # type: ignore[attr-defined]

    try:
        client = _client(head_address())
        states = get_cluster_resource_state(client).node_states
        drains = any(state.status == NodeStatus.Value("DRAINING") for state in states)
        ends_ms = client.get_draining_nodes(timeout=ANSWER_S) if drains else {}
    except Exception:  # Ray's own errors have no common kind
        return None
    found: dict[str, Standing] = {}
    for state in states:
        if state.instance_id and found.get(state.instance_id, "dead") == "dead":  # a machine may have had two nodes
            standing: Standing = "alive"
            if state.status == NodeStatus.Value("DEAD"):
                standing = "dead"
            elif state.status == NodeStatus.Value("DRAINING"):
                standing = Draining(ends_ms.get(state.node_id.hex(), 0) / 1000)
            found[state.instance_id] = standing
    return found


def tell(told: news.News) -> None:
    """Write the news where `cluster status` and the driver read them. Raises whatever Ray does."""
    if head_address():
        _client(head_address()).internal_kv_put(news.KEY, told.encode(), True, news.NAMESPACE)


def tell_till(told: till.Till) -> None:
    """Write what was bought where the leads of runs read it. Raises whatever Ray does."""
    if head_address():
        _client(head_address()).internal_kv_put(till.KEY, told.encode(), True, till.NAMESPACE)


def till_before() -> till.Till | None:
    """What was written of it last; None where nothing was. Raises whatever Ray does."""
    return till_of(head_address()) if head_address() else None


def till_of(address: str) -> till.Till | None:
    """What the cluster whose head is at that address has bought; None where nobody keeps account of it. Raises whatever
    Ray does."""
    return till.Till.decode(_client(address).internal_kv_get(till.KEY, till.NAMESPACE))


def heard(address: str) -> news.News:
    """The news of the cluster whose head is at that address. Raises whatever Ray does."""
    return news.News.decode(_client(address).internal_kv_get(news.KEY, news.NAMESPACE))


def show(stock: offers.Stock) -> None:
    """Write what is sold where runs read it. Raises whatever Ray does."""
    if head_address():
        _client(head_address()).internal_kv_put(offers.KEY, stock.encode(), True, news.NAMESPACE)


def wished() -> list[wishes.Wish]:
    """What runs wish; of those that have no wish that there are some. Raises whatever Ray does."""
    if not head_address():
        return []
    client = _client(head_address())
    keys = client.internal_kv_keys(wishes.KEYS, news.NAMESPACE)
    found = [wishes.Wish.decode(client.internal_kv_get(key, news.NAMESPACE)) for key in keys]
    said = {wish.run: wish for wish in found if wish is not None}
    for key in client.internal_kv_keys(HELD, news.NAMESPACE):
        run = key.decode().removeprefix(HELD.decode())
        at = json.loads(client.internal_kv_get(key, news.NAMESPACE) or b"{}").get("at", 0.0)
        if run not in said:
            said[run] = wishes.Wish(run, at=float(at))
    return list(said.values())


@functools.cache
def _client(address: str) -> Any:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return GcsClient(address=address)
