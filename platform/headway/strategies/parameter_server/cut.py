"""Where everything lies: parameters in ranges, ranges in flat buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from headway.core.ranges import Piece, Ranges, of_whole, through
from headway.strategies.flat import Layout

ELEMENTWISE = frozenset({"SGD", "Adam", "AdamW", "Adagrad", "RMSprop", "Adadelta", "Adamax", "NAdam", "RAdam"})
"""Of torch.optim: what becomes of an element does not hang on the others, so that tensors can be cut."""


def is_elementwise(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser is one of torch's `ELEMENTWISE`, and no class made from one."""
    kind = type(optimizer)
    return kind.__name__ in ELEMENTWISE and getattr(torch.optim, kind.__name__, None) is kind


@dataclass(frozen=True)
class Part:
    """A piece of a parameter that is trained: in the flat buffer of its dtype it is [first, first + piece.size)."""

    piece: Piece
    flat: int
    first: int


class Cut:
    """A model's parameters in ranges.

    Args:
        parameters: all that may be trained, frozen ones too, in the same order on every worker: their ranges stay
            when some are frozen or let go.
        ranges: how many.
        whole: a tensor is never cut: for optimisers that look at a tensor as a whole, see `is_elementwise`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], ranges: int, whole: bool = False) -> None:
        self.parameters = list(dict.fromkeys(parameters))
        sizes = [p.numel() for p in self.parameters]
        self.ranges: Ranges = (of_whole if whole else through)(sizes, ranges)
        self.numbers = {id(p): number for number, p in enumerate(self.parameters)}

    def layouts(self, trained: Sequence[nn.Parameter], extra: int) -> list[Layout]:
        """Flat buffers of those that are trained, range by range, so that a range is in one piece of each; one per
        dtype. The last is that of float32, with room for so many more elements."""
        device = trained[0].device if trained else torch.device("cpu")
        ours = {id(p) for p in trained}
        order = dict.fromkeys(piece.tensor for pieces in self.ranges for piece in pieces)
        placed = [self.parameters[number] for number in order if id(self.parameters[number]) in ours]
        dtypes = [*dict.fromkeys(p.dtype for p in placed if p.dtype != torch.float32), torch.float32]
        found = []
        for dtype in dtypes:
            these = [p for p in placed if p.dtype == dtype]
            starts, end = [], 0
            for parameter in these:
                starts.append(end)
                end += parameter.numel()
            room = extra if dtype == torch.float32 else 0
            found.append(
                Layout(these, starts, [(0, len(these))], [0, end + room], slice(end, end + room), dtype, device)
            )
        return found

    def parts(self, layouts: Sequence[Layout]) -> tuple[tuple[Part, ...], ...]:
        """By range, the pieces of what the buffers hold, in the order in which they lie."""
        places = {
            self.numbers[id(p)]: (flat, start)
            for flat, layout in enumerate(layouts)
            for p, start in zip(layout.parameters, layout.starts, strict=True)
        }
        return tuple(
            tuple(
                Part(piece, places[piece.tensor][0], places[piece.tensor][1] + piece.start)
                for piece in pieces
                if piece.tensor in places
            )
            for pieces in self.ranges
        )


class Shares:
    """What of each flat buffer is whose.

    Args:
        parts: by range.
        carried: numbers of the ranges by rank, ascending.
        flats: how many buffers there are.
    """

    def __init__(self, parts: Sequence[Sequence[Part]], carried: Sequence[Sequence[int]], flats: int) -> None:
        self.spans = [[_span(each, flat) for each in parts] for flat in range(flats)]
        """By buffer and range: [first, last)."""
        self.carried = [sorted(numbers) for numbers in carried]
        self.sizes = [
            [sum(span[number][1] - span[number][0] for number in numbers) for numbers in self.carried]
            for span in self.spans
        ]
        """By buffer and rank: elements."""

    def of(self, flat: int, rank: int) -> list[tuple[int, int]]:
        """Of a buffer, the spans that are a worker's, in order of the ranges; those without elements are left out."""
        spans = (self.spans[flat][number] for number in self.carried[rank])
        return [(first, last) for first, last in spans if first < last]

    def place(self, part: Part, number: int, rank: int) -> int:
        """Where a part begins in what a worker has of its buffer, range after range."""
        before = 0
        for each in self.carried[rank]:
            first, last = self.spans[part.flat][each]
            if each == number:
                return before + part.first - first
            before += last - first
        raise KeyError(number)


def _span(parts: Sequence[Part], flat: int) -> tuple[int, int]:
    ours = [part for part in parts if part.flat == flat]
    if not ours:
        return 0, 0
    return ours[0].first, ours[-1].first + ours[-1].piece.size
