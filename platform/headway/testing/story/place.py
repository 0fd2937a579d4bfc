"""The cluster and the cloud that a drill is on: one kind of worker, which may be any of several kinds of machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.cluster.file import ClusterFile, parse
from headway.testing.cloud.cloud import Cloud
from headway.testing.cloud.goods import Offer

IDLE_S = 6.0
"""An idle machine is let go after so long."""
NAME = "drill"
OFFERS = (
    Offer("h1.small", "a", price_per_hour=0.10, spot_price_per_hour=None, boot_s=0.2),
    Offer("c1.small", "a", price_per_hour=0.40, spot_price_per_hour=0.12, capacity=1, boot_s=2.0),
    Offer("c1.small", "b", price_per_hour=0.40, spot_price_per_hour=0.14, capacity=1, boot_s=8.0),
    Offer("c2.small", "b", price_per_hour=0.48, spot_price_per_hour=0.20, boot_s=14.0),
)
"""The head's, and three kinds of a worker's. The cheapest are sold out with one, and each boots more slowly than the
one before, so that a run is seen to begin and to grow. Real machines take a minute or more."""


def cloud() -> Cloud:
    """What is sold."""
    return Cloud(OFFERS)


def cluster_file(cpus: float, most: int, idle_s: float = IDLE_S, offers: tuple[Offer, ...] = OFFERS) -> ClusterFile:
    """The cluster: a head, and no worker until one is asked for.

    Args:
        cpus: of a worker's machine: as many as a worker of the job asks for.
        most: machines beside the head.
        idle_s: after which an idle machine is let go.
        offers: of the cloud; the first is the head's.
    """
    head, *workers = offers
    kinds = [
        {"type": each.type, "zone": each.zone, "spot": True, "price_per_hour": each.spot_price_per_hour}
        for each in workers
    ]
    tree: Mapping[str, Any] = {
        "cluster_name": NAME,
        "max_workers": most,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {"type": "test-cloud", "headway": {"notices": "aws", "boot_limit_minutes": 1.0}},
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "one_of": [{"type": head.type, "zone": head.zone, "spot": False}]},
            "worker": {"resources": {"CPU": cpus}, "max_workers": most, "one_of": kinds},
        },
    }
    return parse(Path("drill.yaml"), json.dumps(tree))
