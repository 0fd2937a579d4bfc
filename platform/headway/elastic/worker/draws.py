"""The process's generators of random numbers: set to those of a place in the run, and whether anybody drew since."""

from __future__ import annotations

import random

import numpy as np
import torch

from headway.core.keys import key


def seed(purpose: str, *place: int) -> int:
    """Set the process's generators (torch, NumPy, Python) to those of a place in the run: what is drawn follows the
    place, not the worker. Returns the seed."""
    chosen = key(purpose, *place)
    torch.default_generator.manual_seed(chosen)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(chosen)
    np.random.seed(chosen & 0xFFFFFFFF)  # users' augmentation may call the global generator
    random.seed(chosen)
    return chosen


def drawn(chosen: int) -> bool:
    """Whether anything was drawn from them since they were seeded so. They are left otherwise than they were found.

    Each gives what it would give first, or does not: to ask NumPy for its whole state takes five times as long.
    """
    if torch.cuda.is_initialized() and _offset() != 0:
        return True
    found = _first()
    torch.default_generator.manual_seed(chosen)
    np.random.seed(chosen & 0xFFFFFFFF)
    random.seed(chosen)
    return found != _first()


def _first() -> tuple[int, float, float]:
    whole = torch.randint(2**62, (), generator=torch.default_generator, device="cpu")
    return int(whole), float(np.random.random_sample()), random.random()


def _offset() -> int:
    """How far the device's generator is; it is known without waiting for the device."""
    generators = torch.cuda.default_generators
    return int(generators[torch.cuda.current_device()].get_offset())
