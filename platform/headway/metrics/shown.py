"""What a metric gives, as named numbers and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from headway.errors import BadInput

MOST_NUMBERS = 100
"""Entries of a vector that are numbers of their own, as NAME/0, NAME/1, ...; each is a curve."""
MOST_ENTRIES = 10_000
"""Of a table that is kept."""


@dataclass
class Shown:
    """Args:
    values: numbers by name.
    tables: what is more than a number, as lists of lists; None in them is NaN.
    """

    values: dict[str, float] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Shown) -> None:
        self.values |= other.values
        self.tables |= other.tables


def shown(name: str, result: Any) -> Shown:
    """A result by name: a number as it is; a dict as NAME/KEY, a tuple as NAME/0, ...; a vector as a table and, where
    it is short, as numbers likewise, but for NaN; a matrix as a table.

    Raises:
        BadInput: it is none of these.
    """
    if isinstance(result, Mapping):
        found = Shown()
        for key, value in result.items():
            found.add(shown(f"{name}/{key}", value))
        return found
    if isinstance(result, list | tuple) and any(not isinstance(each, bool | int | float) for each in result):
        return shown(name, dict(enumerate(result)))
    array = _array(name, result)
    if array.size == 1 and array.ndim < 2:
        return Shown({name: float(array.reshape(()))})
    numbers = {}
    if array.ndim == 1 and array.size <= MOST_NUMBERS:
        numbers = {f"{name}/{place}": float(value) for place, value in enumerate(array) if value == value}
    tables = {name: _listed(array.tolist())} if array.size <= MOST_ENTRIES else {}
    return Shown(numbers, tables)


def _array(name: str, result: Any) -> np.ndarray[Any, Any]:
    value = result.detach().cpu() if isinstance(result, torch.Tensor) else result
    if isinstance(value, torch.Tensor):
        value = value.float().numpy() if value.dtype is torch.bfloat16 else value.numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise BadInput(
            f"the metric {name} gave a {type(result).__name__}",
            "a metric is a number, or several in a vector, a matrix or a dict",
            "Let its compute() return one of them.",
        )
    return array


def _listed(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_listed(each) for each in tree]
    return None if tree != tree else tree
