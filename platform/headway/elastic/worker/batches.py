"""From what a reader gives to tensors on the device."""

from __future__ import annotations

from collections.abc import Sequence
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


class Unlike(Exception):
    """Batches that cannot become one. Args: why, in words."""


def joined(batches: Sequence[Any], rows: Sequence[int]) -> Any:
    """Batches laid end to end, the opposite of `parts`: what has one entry per row, in any nest of dicts, lists and
    tuples. Anything else must be equal in all.

    Args:
        batches: one at least, on one device.
        rows: of each.

    Raises:
        Unlike: their shapes, types or names differ; something of them is of a kind that nobody can lay end to end.
    """
    return batches[0] if len(batches) == 1 else _join(batches, rows, "the batch")


def _join(parts: Sequence[Any], rows: Sequence[int], where: str) -> Any:
    first, kind = parts[0], type(parts[0])
    if any(type(part) is not kind for part in parts):
        raise Unlike(f"{where} is a {kind.__name__} in one lane, and something else in another")
    if isinstance(first, torch.Tensor | np.ndarray):
        return _end_to_end(parts, rows, where)
    if isinstance(first, dict):
        if any(part.keys() != first.keys() for part in parts):
            raise Unlike(f"{where} has other names in other lanes")
        made = {name: _join([part[name] for part in parts], rows, f"{name!r}") for name in first}
        return made if kind is dict else like(first, made)
    if kind in (list, tuple) or hasattr(first, "_fields"):
        if kind in (list, tuple) and _by_row(parts, rows):
            return kind(entry for part in parts for entry in part)
        if any(len(part) != len(first) for part in parts):
            raise Unlike(f"{where} has other lengths in other lanes")
        each = [_join(column, rows, f"{where}[{at}]") for at, column in enumerate(zip(*parts, strict=True))]
        return kind(*each) if hasattr(first, "_fields") else kind(each)
    if kind in _PLAIN and all(part == first for part in parts):
        return first
    raise Unlike(f"{where} is a {kind.__name__}, which cannot be laid end to end")


def _end_to_end(parts: Sequence[Any], rows: Sequence[int], where: str) -> Any:
    first = parts[0]
    if isinstance(first, np.ndarray):
        plain = type(first) is np.ndarray  # one with a mask, say, would lose it
    else:  # before anything is asked of them: a nested one has no shape
        plain = all(p.layout is torch.strided and not p.is_nested and p.device == first.device for p in parts)
    if not plain:
        raise Unlike(f"{where} is no plain {'array' if isinstance(first, np.ndarray) else 'tensor'}")
    if any(part.ndim == 0 or part.shape[0] != count for part, count in zip(parts, rows, strict=True)):
        raise Unlike(f"{where} has not one entry per row")
    other = next((part for part in parts if part.shape[1:] != first.shape[1:]), None)
    if other is not None:
        raise Unlike(
            f"{where} has rows of shape {tuple(first.shape[1:])} in one lane, {tuple(other.shape[1:])} in another"
        )
    if any(part.dtype != first.dtype for part in parts):
        raise Unlike(f"{where} has other types in other lanes")
    return np.concatenate(parts) if isinstance(first, np.ndarray) else torch.cat(list(parts))


def _by_row(parts: Sequence[Any], rows: Sequence[int]) -> bool:
    """Whether lists have one entry per row, which is no nest itself."""
    return all(len(part) == count and not any(map(_is_nest, part)) for part, count in zip(parts, rows, strict=True))


_PLAIN = (str, bytes, bool, int, float, type(None))


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
