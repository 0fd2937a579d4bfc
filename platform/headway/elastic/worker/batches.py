"""From what a reader gives to tensors on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headway.data.own.batching import like, nest
from headway.data.read.reader import Batch
from headway.errors import BadInput


def tensors_of(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch that has rows, on the device; of a dataset of the user's own whatever their rows were put together to."""
    if batch.own:
        moved: dict[str, torch.Tensor] = _moved(batch.arrays, device)
        return moved
    return tensors(batch.arrays, len(batch.ids), device)


def parts(batch: dict[str, torch.Tensor], rows: int, most: int) -> list[tuple[int, dict[str, torch.Tensor]]]:
    """A batch in parts of so many rows at most, one after the other: the rows of each, and its tensors.

    Raises:
        BadInput: a tensor that the task's own `collate` made has not one entry per row; nothing in it has.
    """
    if rows <= most:
        return [(rows, batch)]
    cuts = [(first, min(first + most, rows)) for first in range(0, rows, most)]
    found = [(last - first, _cut(batch, rows, first, last)) for first, last in cuts]
    if any(part is batch for _, part in found):
        raise BadInput(
            f"a batch is a {type(batch).__module__}.{type(batch).__qualname__}",
            "nobody knows how to cut it into parts, as `accumulate` wants it",
            "Have collate() return tensors in a dict, a list or a tuple, or leave accumulate out.",
        )
    return found


def _cut(batch: Any, rows: int, first: int, last: int) -> Any:
    """Rows [first, last) of each tensor in a nest, and of each list or tuple of other things."""
    plain = type(batch) in (list, tuple)
    if plain and len(batch) == rows and not any(map(_is_nest, batch)):
        return batch[first:last]
    if plain:
        return type(batch)(_cut(part, rows, first, last) for part in batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cut(part, rows, first, last) for part in batch))
    if isinstance(batch, dict):
        made = {name: _cut(part, rows, first, last) for name, part in batch.items()}
        return made if type(batch) is dict else like(batch, made)
    if not (hasattr(batch, "shape") and hasattr(batch, "dtype")):
        return batch
    if batch.ndim == 0 or batch.shape[0] != rows:
        raise BadInput(
            f"a batch of {rows} rows holds a tensor of shape {tuple(batch.shape)}",
            "it cannot be cut into parts with so many rows each, as `accumulate` wants it",
            "Have collate() return one entry per row, or leave accumulate out.",
        )
    return batch[first:last]


def _is_nest(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray | dict | list | tuple)


def tensors(arrays: dict[str, Any], rows: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Arrays as tensors on the device.

    Raises:
        BadInput: the transform returned something else than a dict of arrays with one entry per row.
    """
    if not isinstance(arrays, dict):
        raise BadInput(
            f"transform returned {type(arrays).__name__}", "a batch is a dict of arrays by name", "Return a dict."
        )
    batch = {}
    for name, array in arrays.items():
        tensor = array if isinstance(array, torch.Tensor) else _tensor(name, np.asarray(array))
        if tensor.dim() == 0 or tensor.shape[0] != rows:
            raise BadInput(
                f"transform returned {name!r} with shape {tuple(tensor.shape)} for {rows} rows",
                "the first dimension of every array is the row",
                "Return one entry per row.",
            )
        batch[name] = tensor.to(device, non_blocking=tensor.is_pinned())
    return batch


def _moved(batch: Any, device: torch.device) -> Any:
    """The same with its tensors on the device; arrays of numbers become tensors."""

    def move(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biuf":
                return value
            value = torch.from_numpy(_writable(value))
        return value.to(device, non_blocking=value.is_pinned()) if isinstance(value, torch.Tensor) else value

    if not isinstance(batch, torch.Tensor | dict | list | tuple) and callable(getattr(batch, "to", None)):
        return batch.to(device)  # a batch of a kind of its own, of graphs say
    return nest(batch, move)


def _tensor(name: str, array: np.ndarray[Any, Any]) -> torch.Tensor:
    try:
        return torch.from_numpy(_writable(array))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        remedy = "Return arrays of numbers or booleans."
        raise BadInput(f"transform returned {name!r} of type {array.dtype}", reason, remedy) from None


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C")
