"""Digests of tensors, where they are: to find memory that was corrupted, not forgery.

What is in host memory is read by XXH3, as fast as memory. What is on a device stays there: its integers are multiplied
by odd numbers that follow from their places, and added up, all modulo 2^64, so that a change of any one of them changes
the sum, and changes of several cancel with a chance of 2^-64. Only the sums are copied, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import xxhash

PIECE = 1 << 20
"""Integers that are multiplied at a time; they need 8 bytes each."""
_WIDTHS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Weights = dict[torch.device, torch.Tensor]
"""By which integers are multiplied, by device; filled as they are needed."""


class Digest:
    """Over bytes of tensors, in the order in which they are added.

    Args:
        weights: kept by whoever makes one digest after the other.
    """

    def __init__(self, weights: Weights) -> None:
        self._digest, self._weights = xxhash.xxh3_64(), weights
        self._sums: dict[torch.device, list[torch.Tensor]] = {}

    def add(self, flat: torch.Tensor) -> None:
        """Integers, shape [n], as `flat` gives them."""
        if flat.device.type == "cpu":
            self._digest.update(flat.view(torch.uint8).numpy().data)
        else:
            self._sums.setdefault(flat.device, []).extend(sums(flat, self._weights))

    def say(self, text: str) -> None:
        """Something else."""
        self._digest.update(text.encode())

    def read(self) -> bytes:
        """Eight bytes; waits for the devices."""
        for found in self._sums.values():
            self._digest.update(torch.stack(found).cpu().view(torch.uint8).numpy().data)
        self._sums = {}
        return self._digest.digest()


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Its bits as integers, shape [n]; a view where it is in one piece."""
    plain = tensor.detach().contiguous()
    plain = torch.view_as_real(plain) if plain.is_complex() else plain
    return plain.reshape(-1).view(_WIDTHS[plain.element_size()])


def sums(integers: torch.Tensor, weights: Weights) -> Iterator[torch.Tensor]:
    """One of each piece, on their device. integers: shape [n]."""
    odd = weights.get(integers.device)
    if odd is None:
        odd = weights[integers.device] = _odd().to(integers.device)
    for piece in integers.split(PIECE):
        yield (piece.to(torch.int64) * odd[: len(piece)]).sum()


def part(tensors: Iterable[torch.Tensor], number: int, of: int) -> Iterator[torch.Tensor]:
    """What is the `number`th of `of` parts of all these tensors' bits, as `flat` gives them: about as large each."""
    every = list(tensors)
    whole = sum(t.numel() * t.element_size() for t in every)
    first, last, at = whole * number // of, whole * (number + 1) // of, 0
    for tensor in every:
        size = tensor.numel() * tensor.element_size()
        begin, end = max(first - at, 0), min(last - at, size)
        if begin < end:
            integers = flat(tensor)
            each = integers.element_size()  # one that lies on the border belongs to the part in which it begins
            yield integers[-(-begin // each) : -(-end // each)]
        at += size


def _odd() -> torch.Tensor:
    """Odd numbers that differ wildly (splitmix64), the same everywhere."""
    mixed = np.arange(1, PIECE + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed = (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
    return torch.from_numpy(mixed.view(np.int64))
