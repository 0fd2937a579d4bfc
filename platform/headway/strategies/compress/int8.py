"""A byte for each number, with one scale for a block of them."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

MOST = 127
"""Symmetric: -128 is not used."""


class Int8:
    """The largest of a block is +-127, and the others are rounded to that grid, halves to even; see
    `headway.strategies.compress.Codec`. A block that holds what is no number says so of all its numbers.

    A message is the blocks' scales, float32, and the numbers, int8.

    Args:
        block: elements of one scale; a multiple of 4.
    """

    def __init__(self, block: int = 256) -> None:
        self.block = block

    def size(self, elements: int) -> int:
        return 4 * self._blocks(elements) + elements + -elements % 4

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        elements, blocks = len(values), self._blocks(len(values))
        rows = pad(values, (0, blocks * self.block - elements)).view(blocks, self.block)
        scales = rows.abs().amax(dim=1) / MOST
        divisors = torch.where(scales == 0, 1.0, scales).unsqueeze(1)
        codes = (rows / divisors).round_().clamp_(-MOST, MOST).to(torch.int8).view(-1)
        return torch.cat([scales.view(torch.uint8), codes[: elements + -elements % 4].view(torch.uint8)])

    def decode(self, message: torch.Tensor, elements: int) -> torch.Tensor:
        blocks = self._blocks(elements)
        scales = message[: 4 * blocks].view(torch.float32)
        codes = message[4 * blocks :][:elements].view(torch.int8).to(torch.float32)
        rows = pad(codes, (0, blocks * self.block - elements)).view(blocks, self.block)
        return rows.mul_(scales.unsqueeze(1)).view(-1)[:elements]

    def _blocks(self, elements: int) -> int:
        return -(-elements // self.block)
