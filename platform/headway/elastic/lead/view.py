"""A worker's place among the members, as Ray Train's own context tells it to the user's code."""

from __future__ import annotations

from collections.abc import Sequence

from ray.train.v2._internal.execution.context import DistributedContext, get_train_context

from headway.core.spots import Spot, spots


def contexts(nodes: Sequence[str]) -> list[DistributedContext]:
    """Ray Train's view of each member's place, from the members' nodes in order of rank."""
    return [_context(spot) for spot in spots(nodes)]


def show(spot: Spot) -> None:
    """Have `ray.train.get_context()` in this worker's process tell its place among the members."""
    get_train_context().distributed_context = _context(spot)


def _context(spot: Spot) -> DistributedContext:
    return DistributedContext(
        world_rank=spot.rank,
        world_size=spot.size,
        local_rank=spot.local_rank,
        local_world_size=spot.local_size,
        node_rank=spot.node_rank,
    )
