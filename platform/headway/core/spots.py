"""Where each member of a generation is among the others: by rank, and on its node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spot:
    """One member's.

    Args:
        rank: of all.
        size: number of members.
        local_rank: of those on its node.
        local_size: number of those.
        node_rank: of its node.
        nodes: number of distinct nodes.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    node_rank: int
    nodes: int


def spots(nodes: Sequence[str]) -> list[Spot]:
    """Of each member, from the members' nodes in order of rank; O(n)."""
    sizes, found = Counter(nodes), []
    place = {node: number for number, node in enumerate(sizes)}  # in the order in which they came first
    before: Counter[str] = Counter()
    for rank, node in enumerate(nodes):
        found.append(Spot(rank, len(nodes), before[node], sizes[node], place[node], len(sizes)))
        before[node] += 1
    return found
