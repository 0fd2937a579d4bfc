"""Torch's random generators of this process, the devices' among them, as whoever called finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def put_back() -> Iterator[None]:
    """While this lasts they may be seeded and drawn from; then they are as they were.

    Starts no CUDA. Where it starts meanwhile, or later, its generators have the seed that the CPU's had before, as
    after `torch.manual_seed`.
    """
    seed, started = torch.initial_seed(), torch.cuda.is_initialized()
    devices = list(range(torch.cuda.device_count())) if started else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        if not started:
            torch.cuda.manual_seed_all(seed)
