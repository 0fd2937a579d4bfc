"""One fixed binary tree over the lanes, in which they are added up whatever the number of workers.

Floating-point sums depend on the order of additions, so in `reproducible: bitwise` that order is a property of the run:
the lanes are the leaves of one binary tree, padded to a power of two. A lane that is empty in a step is absent, and
so is what lies beyond the last lane; a node with one child absent is its other child.

A worker adds up what it can by itself, as the lanes come, on a stack: whenever both children of a node are there, they
become the node. What remains are its *partial sums*, the largest nodes whose lanes it carries all. Whoever has all
workers' partial sums folds them with the same rule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


class Node(NamedTuple):
    """The lanes from place << level up to, not including, (place + 1) << level."""

    level: int
    place: int


@dataclass(frozen=True)
class Folded:
    """What a sequence of nodes comes to.

    Args:
        merges: for each node in turn, how many of the sums before it on the stack it is added to.
        left: what is on the stack in the end.
    """

    merges: tuple[int, ...]
    left: tuple[Node, ...]


@dataclass(frozen=True)
class Plan:
    """How the lanes of a step are added up.

    Args:
        own: by rank, what the worker does with its lanes.
        order: rank and number of every partial sum, from the first lanes to the last.
        merges: for each of them in turn, how many of the sums before it on the stack it is added to; in the end one
            sum is on the stack, or none where there are no lanes.
    """

    own: tuple[Folded, ...]
    order: tuple[tuple[int, int], ...]
    merges: tuple[int, ...]

    @property
    def one_each(self) -> bool:
        """Whether there are two workers of one partial sum each: a + b is b + a, so any way of adding them is right."""
        return [len(folded.left) for folded in self.own] == [1, 1]


@lru_cache(maxsize=64)
def plan(carried: tuple[tuple[int, ...], ...], lanes: int) -> Plan:
    """How the lanes are added up.

    Args:
        carried: by rank, the lanes that are not empty, ascending.
        lanes: of the run.

    Raises:
        ValueError: a lane is carried twice or out of range, or a worker's lanes do not ascend.
    """
    present = sorted(lane for each in carried for lane in each)
    if len(set(present)) < len(present) or (present and not 0 <= present[0] <= present[-1] < lanes):
        raise ValueError(f"lanes carried {carried} are not each one of {lanes}, once")
    if any(list(each) != sorted(each) for each in carried):
        raise ValueError(f"lanes carried {carried} do not ascend")
    own = tuple(fold([Node(0, lane) for lane in each], present, lanes) for each in carried)
    placed = [(node, rank, number) for rank, folded in enumerate(own) for number, node in enumerate(folded.left)]
    placed.sort(key=lambda each: each[0].place << each[0].level)
    whole = fold([node for node, _, _ in placed], present, lanes)
    return Plan(own, tuple((rank, number) for _, rank, number in placed), whole.merges)


def fold(nodes: Sequence[Node], present: Sequence[int], lanes: int) -> Folded:
    """Add up nodes as far as they go.

    Args:
        nodes: that do not overlap, from the first lanes to the last.
        present: the lanes that are not empty, whoever carries them, ascending.
        lanes: of the run.
    """
    height = (lanes - 1).bit_length()
    merges: list[int] = []
    stack: list[Node] = []
    for node in nodes:
        merged = 0
        while node.level < height:
            sibling = Node(node.level, node.place ^ 1)
            if not _absent(sibling, present):
                if not stack or stack[-1] != sibling:
                    break  # somebody else's, or yet to come
                stack.pop()
                merged += 1
            node = Node(node.level + 1, node.place >> 1)
        stack.append(node)
        merges.append(merged)
    return Folded(tuple(merges), tuple(stack))


def _absent(node: Node, present: Sequence[int]) -> bool:
    at = bisect_left(present, node.place << node.level)
    return at == len(present) or present[at] >= (node.place + 1) << node.level
