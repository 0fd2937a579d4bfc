"""The process's random generators, while a dataset's code runs: seeded for what it does, and put back afterwards.

The training's own draws (dropout) come from the same generators, which belong to the process and not to a thread. So
rows are read either by the thread that trains, which puts the generators back, or in another process; never beside it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Seed = Callable[[int], None]
NAMES = ("python", "numpy", "torch")


@contextmanager
def lent() -> Iterator[Seed]:
    """Lend the generators of Python, NumPy and torch (where it is loaded): gives what seeds all of them."""
    before = states()
    try:
        yield seed
    finally:
        put_back(before)


def seed(number: int, names: Iterable[str] = NAMES) -> None:
    """Seed generators.

    Args:
        number: below 2^63.
        names: of `NAMES`; torch's only where it is loaded.
    """
    for name in names:
        if name == "python":
            random.seed(number)
        elif name == "numpy":
            np.random.seed(number & 0xFFFFFFFF)
        elif "torch" in sys.modules:
            sys.modules["torch"].default_generator.manual_seed(number)


def states(names: Iterable[str] = NAMES) -> dict[str, Any]:
    """Of generators, by name; without torch's where it is not loaded."""
    found: dict[str, Any] = {}
    for name in names:
        if name == "python":
            found[name] = random.getstate()
        elif name == "numpy":
            found[name] = np.random.get_state()
        elif "torch" in sys.modules:
            found[name] = sys.modules["torch"].default_generator.get_state()
    return found


def put_back(before: dict[str, Any]) -> None:
    """Give generators the states that they had."""
    for name, state in before.items():
        if name == "python":
            random.setstate(state)
        elif name == "numpy":
            np.random.set_state(state)
        else:
            sys.modules["torch"].default_generator.set_state(state)


def drawn(before: dict[str, Any]) -> set[str]:
    """Names of the generators that are in another state than before."""
    return {name for name, state in states(before).items() if not _same(state, before[name])}


def _same(one: Any, other: Any) -> bool:
    if hasattr(one, "equal"):  # torch's
        return bool(one.equal(other))
    if isinstance(one[1], np.ndarray):
        return one[2:] == other[2:] and bool(np.array_equal(one[1], other[1]))
    return bool(one == other)
