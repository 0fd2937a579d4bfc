"""The largest numbers, and where they are."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import pad

SPAN = 1 << 16
"""Elements whose places within it take two bytes."""
PARTS = 4
"""Of a warm-up."""


def share(step: int, warm_up: int, ratio: float) -> float:
    """Of the elements, what is sent in a step: more in the first ones, while weights move fast (Lin et al. 2018, Deep
    Gradient Compression, section 3.3: 75, 93.75, 98.4 and 99.6 % are left out in turn).

    Args:
        step: from 0.
        warm_up: steps of it.
        ratio: that is sent after it, and never less.
    """
    if step >= warm_up:
        return ratio
    return max(ratio, float(0.25 ** (PARTS * step // warm_up + 1)))


class TopK:
    """The largest by magnitude, as they are; all others are zero. See `headway.strategies.compress.Codec`; it has no
    block, since what is largest is so of the whole.

    A message is how many come of each span of 65,536 elements, int32; the numbers, float32; and their places within
    their spans, 16 bits: 6 bytes for each, where an index of 32 bits makes 8.

    Args:
        ratio: of the elements that are sent; one at least.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio

    def many(self, elements: int) -> int:
        """Numbers that are sent."""
        return min(max(math.ceil(self._ratio * elements), 1), elements)

    def size(self, elements: int) -> int:
        many = self.many(elements)
        return 4 * _spans(elements) + 4 * many + 2 * (many + many % 2)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        many, device = self.many(len(values)), values.device
        found = values.abs().topk(many, sorted=False).indices.sort().values
        ends = torch.arange(1, _spans(len(values)) + 1, device=device) * SPAN
        counts = torch.searchsorted(found, ends).diff(prepend=torch.zeros(1, dtype=torch.int64, device=device))
        places = pad((found % SPAN - SPAN // 2).to(torch.int16), (0, many % 2))
        parts = (counts.to(torch.int32), values[found], places)
        return torch.cat([part.view(torch.uint8) for part in parts])

    def decode(self, message: torch.Tensor, elements: int) -> torch.Tensor:
        out = torch.zeros(elements, dtype=torch.float32, device=message.device)
        self.add(message, out)
        return out

    def add(self, message: torch.Tensor, out: torch.Tensor) -> None:
        """Add what a message says."""
        where, values = self.said(message, len(out))
        out[where] += values  # no place comes twice

    def said(self, message: torch.Tensor, elements: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Places, int64, ascending; and the numbers there, float32."""
        many, spans = self.many(elements), _spans(elements)
        counts, values, places = message.split([4 * spans, 4 * many, 2 * (many + many % 2)])
        ends = counts.view(torch.int32).to(torch.int64).cumsum(0)
        span = torch.searchsorted(ends, torch.arange(many, device=message.device), right=True)
        return span * SPAN + places.view(torch.int16)[:many] + SPAN // 2, values.view(torch.float32)


def _spans(elements: int) -> int:
    return -(-elements // SPAN)
