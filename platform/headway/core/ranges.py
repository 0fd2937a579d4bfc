"""A model's tensors cut into near-equal ranges, which workers carry as they carry lanes.

The cut follows from the tensors and the number of ranges alone, never from who carries what: so the same elements
are updated together, in the same order, on any number of workers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

ALIGNMENT = 64
"""Elements. A tensor is cut only at multiples of it, from the tensor's own beginning: vectorised loops end with a few
elements that are done one by one, and some round these differently (torch's fused SGD and Adam do). Cut so, an element
is at the end of a loop exactly where it is in the whole tensor."""


class Piece(NamedTuple):
    """Elements [start, stop) of a tensor, flattened; the tensor by its number."""

    tensor: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


Ranges = tuple[tuple[Piece, ...], ...]
"""By number, what lies in each: pieces in ascending order of their tensors, one at most of each tensor."""


def through(sizes: Sequence[int], ranges: int, alignment: int = ALIGNMENT) -> Ranges:
    """Ranges of elements, one after another, with cuts through tensors: each cut is where equal ranges have it, but for
    what the alignment takes.

    Args:
        sizes: of the tensors, in elements.
        ranges: how many; some are empty where there is too little.
        alignment: see `ALIGNMENT`.

    Raises:
        ValueError: there is to be no range.
    """
    if ranges < 1:
        raise ValueError(f"{ranges} ranges")
    starts = [0, *accumulate(sizes)]
    cuts = [0]
    for number in range(1, ranges):
        ideal = starts[-1] * number // ranges
        tensor = bisect_right(starts, ideal) - 1  # the one that the element lies in
        if tensor < len(sizes):
            inside = (ideal - starts[tensor] + alignment // 2) // alignment * alignment
            ideal = starts[tensor] + min(inside, sizes[tensor])
        cuts.append(ideal)
    found: list[list[Piece]] = [[] for _ in range(ranges)]
    for tensor, (begin, end) in enumerate(pairwise(starts)):
        if begin == end:  # of no elements, and yet somebody's
            found[min(bisect_right(cuts, begin), ranges) - 1].append(Piece(tensor, 0, 0))
        for number, (first, last) in enumerate(pairwise([*cuts, starts[-1]])):
            start, stop = max(first, begin), min(last, end)
            if start < stop:
                found[number].append(Piece(tensor, start - begin, stop - begin))
    return tuple(map(tuple, found))


def of_whole(sizes: Sequence[int], ranges: int) -> Ranges:
    """Ranges of whole tensors, as near to equal as it goes when the largest are dealt first, each to who has least.

    Args:
        sizes: of the tensors, in elements.
        ranges: how many; some are empty where there are fewer tensors.

    Raises:
        ValueError: there is to be no range.
    """
    if ranges < 1:
        raise ValueError(f"{ranges} ranges")
    filled, found = [0] * ranges, [[] for _ in range(ranges)]  # type: tuple[list[int], list[list[Piece]]]
    for tensor in sorted(range(len(sizes)), key=lambda each: (-sizes[each], each)):
        number = filled.index(min(filled))
        found[number].append(Piece(tensor, 0, sizes[tensor]))
        filled[number] += sizes[tensor]
    return tuple(tuple(sorted(each)) for each in found)


def carriers(carried: Sequence[Sequence[int]]) -> Mapping[int, int]:
    """Of each range, the rank of who carries it.

    Args:
        carried: numbers of ranges by rank.

    Raises:
        ValueError: one is carried twice.
    """
    found = {number: rank for rank, numbers in enumerate(carried) for number in numbers}
    if len(found) < sum(map(len, carried)):
        raise ValueError(f"ranges carried {carried} are not each carried once")
    return found


def backed_up(carried: Sequence[Sequence[int]], rank: int) -> tuple[int, ...]:
    """Ranges that a worker has a copy of, ascending: those of the one before it in a ring of all. None for one alone.

    Args:
        carried: numbers of ranges by rank.
        rank: of the worker.
    """
    return tuple(sorted(carried[rank - 1])) if len(carried) > 1 else ()
