"""What a pass keeps of its rows until its backward pass: bytes that grow with the rows, on any device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from headway.data.own.batching import nest
from headway.elastic.worker.batches import parts


def per_row(loss: Callable[[Any], torch.Tensor], model: nn.Module, batch: Any, rows: int) -> int | None:
    """Bytes of tensors that autograd keeps for each row; what does not grow with the rows is left out.

    Args:
        loss: of a batch.
        model: its parameters and buffers do not count.
        batch: of `rows` rows.

    Returns:
        None where it cannot be told: of one row, of compiled parts, or where the loss does not allow for being watched.
    """
    if rows < 2 or any(hasattr(module, "_orig_mod") for module in model.modules()):
        return None
    with suppress(Exception):  # of user's code that transforms functions, say, or of rows that cannot be cut
        few, small = parts(batch, rows, rows // 2)[0]
        small = nest(
            small, lambda part: part.clone() if isinstance(part, torch.Tensor) else part
        )  # no part of the whole
        return max(0, (_kept(loss, model, batch) - _kept(loss, model, small)) // (rows - few))
    return None


def _kept(loss: Callable[[Any], torch.Tensor], model: nn.Module, batch: Any) -> int:
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() not in own:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = loss(batch)
    kept = sum(found.values())
    del made  # not before: memory that is let go is given to others
    return kept
