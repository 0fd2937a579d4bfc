"""From what a reader gives to tensors on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headway.data.read.reader import Batch
from headway.errors import BadInput


def tensors_of(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch that has rows, on the device."""
    return tensors(batch.arrays, len(batch.ids), device)


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


def _tensor(name: str, array: np.ndarray[Any, Any]) -> torch.Tensor:
    try:
        return torch.from_numpy(_writable(array))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        remedy = "Return arrays of numbers or booleans."
        raise BadInput(f"transform returned {name!r} of type {array.dtype}", reason, remedy) from None


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C")
