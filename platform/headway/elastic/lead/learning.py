"""What the lead of a run learns of the market it buys on, and tells it: Ray's store, asked in a thread that may wait.

Where something is not to be had now, what was known before holds.
"""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

from headway.core import offers, till, wishes
from headway.core.news import NAMESPACE
from headway.core.offers import Stock
from headway.elastic.lead.wishing import Wishing

ANSWER_S = 10.0


class Learns:
    """Called by one thread, every few seconds."""

    def __init__(self) -> None:
        self._machines: dict[str, tuple[str, bool]] = {}
        """By Ray's id of its node: the machine's type, and whether it is a spot machine."""

    def look(self, wishing: Wishing, recorder: Any) -> None:
        """Learn what there is to know, and have the cluster know what is wished. Raises whatever Ray does."""
        stock = Stock.decode(_internal_kv_get(offers.KEY, namespace=NAMESPACE))
        if stock.offers:
            self._machines |= machines()
        told = ray.get(recorder.outlay.remote(), timeout=ANSWER_S)
        wishing.learnt(stock, self._machines, told["dollars"], told["beside"])
        wish = wishing.wish(time.time())
        if wish is not None:
            key = wishes.KEYS + wish.run.encode()
            _internal_kv_put(key, wish.encode(), overwrite=True, namespace=NAMESPACE)


def machines() -> dict[str, tuple[str, bool]]:
    """Of each node that the cluster's provider bought, by Ray's id: its type, and whether it is a spot machine."""
    from ray.autoscaler.v2.sdk import get_cluster_resource_state

    bought = till.Till.decode(_internal_kv_get(till.KEY, namespace=NAMESPACE))
    if bought is None:
        return {}
    client = ray._private.state.state.global_state_accessor and ray._private.worker.global_worker.gcs_client
    found = {}
    for state in get_cluster_resource_state(client).node_states:
        machine = bought.machines.get(state.instance_id)
        if machine is not None:
            found[state.node_id.hex()] = machine.type, machine.spot
    return found
