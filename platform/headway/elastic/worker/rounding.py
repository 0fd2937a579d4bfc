"""How this machine rounds: a digest of a small fixed computation, so that another CPU is not taken for bad memory.

Two nodes of unlike CPUs give unlike last bits for the same step: their libraries choose other kernels. Replicas then
drift apart as if memory were damaged. Compared once, when a worker joins, this digest tells the one from the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch.nn import functional

ROWS, WIDTH = 48, 193
"""Larger than the kernels' blocks, and no multiple of them, so that their remainders take part."""


def digest(threads: int) -> str:
    """The bits that one thread, and so many, give for a fixed product, convolution, functions and sums; 16 hex digits.

    float32, on the CPU, without random numbers. Takes some milliseconds; the number of torch's threads is put back.

    Args:
        threads: torch threads of a worker, as the job has them.
    """
    found = hashlib.blake2b(digest_size=8)
    before = torch.get_num_threads()
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for number in sorted({1, threads}):
                torch.set_num_threads(number)
                for result in _results():
                    found.update(result.contiguous().numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    return found.hexdigest()


def _results() -> Iterator[torch.Tensor]:
    left, right = _numbers(ROWS, WIDTH), _numbers(WIDTH, ROWS + 1)
    product = left @ right
    yield product
    yield functional.linear(left, right.t().contiguous(), product[0])
    yield functional.conv2d(_numbers(2, 3, 17, 19), _numbers(5, 3, 3, 3), padding=1)
    yield left.exp()
    yield left.tanh()
    yield left.sigmoid()
    yield product.softmax(1)
    yield functional.layer_norm(left, (WIDTH,))
    yield left.sum(0)
    yield left.sum()
    yield (left * left).mean().rsqrt()


def _numbers(*shape: int) -> torch.Tensor:
    """Float32 in [-1, 1) that look like noise and are the same everywhere: whole numbers, scaled by a power of two."""
    size = 1
    for length in shape:
        size *= length
    mixed = torch.arange(1, size + 1, dtype=torch.int64) * 0x9E3779B1 % 2**32
    return ((mixed >> 8).to(torch.float32) / 2.0**23 - 1.0).reshape(shape)
