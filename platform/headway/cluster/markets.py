"""From a cluster's file to the cloud that it names."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from headway.cluster.market import Market
from headway.errors import BadInput, nearest

KNOWN = {
    "this-machine": "headway.cluster.local.market:open_market",
    "aws": "headway.cluster.aws.market:open_market",
}
"""Where each market is made: a function of the provider section and the cluster's name."""


def open_market(provider: Mapping[str, Any], cluster: str) -> Market:
    """The market of a provider section, as `ClusterFile.for_ray` makes it: `market` names it.

    One of the known, or `module:function`, which gets the section and the cluster's name.

    Raises:
        BadInput: there is no such market.
    """
    name = str(provider.get("market", ""))
    module, _, function = (name if ":" in name else KNOWN.get(name, "")).partition(":")
    if not module:
        raise BadInput(f"provider.market={name!r} is no market", "", nearest(name, list(KNOWN)))
    return cast(Market, getattr(importlib.import_module(module), function)(provider, cluster))
