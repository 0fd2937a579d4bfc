"""How many workers have room on a cluster's nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Resources = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, memory in bytes."""


def room(node: Resources, worker: Resources) -> int:
    """Workers that one node holds."""
    wanted = {name: amount for name, amount in worker.items() if amount > 0}
    if not wanted:
        return 0
    return max(0, min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items()))


def rooms(nodes: Iterable[Resources], worker: Resources) -> int:
    """Workers that all of them hold together."""
    return sum(room(node, worker) for node in nodes)


def short(nodes: Iterable[Resources], worker: Resources) -> dict[str, tuple[float, float]]:
    """Why a worker has room on none of the nodes: (wanted, most that any has) by resource; empty where each resource
    is there, only not together on one node."""
    nodes = list(nodes)
    most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in worker}
    return {name: (amount, most[name]) for name, amount in worker.items() if amount > most[name]}
