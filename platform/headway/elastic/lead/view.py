"""A worker's place among the members, as Ray Train's own context tells it to the user's code."""

from __future__ import annotations

from ray.train.v2._internal.execution.context import DistributedContext, get_train_context


def contexts(nodes: list[str]) -> list[DistributedContext]:
    """Ray Train's view of each member's place, from the members' nodes in order of rank."""
    order = list(dict.fromkeys(nodes))
    return [
        DistributedContext(
            world_rank=rank,
            world_size=len(nodes),
            local_rank=nodes[:rank].count(node),
            local_world_size=nodes.count(node),
            node_rank=order.index(node),
        )
        for rank, node in enumerate(nodes)
    ]


def show(rank: int, nodes: tuple[str, ...]) -> None:
    """Have `ray.train.get_context()` in this worker's process tell its place among the members."""
    get_train_context().distributed_context = contexts(list(nodes))[rank]
