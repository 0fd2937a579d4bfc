"""What a pass keeps of its rows until its backward pass: bytes that grow with the rows, on any device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from headway.data.own.batching import nest
from headway.elastic.worker import recompute
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
    """Bytes at the peak, about. Of blocks that are computed again (see `headway.elastic.worker.recompute`) what they
    are given is kept, and beside that, at any time, what one of them keeps by itself."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    whole: dict[int, int] = {}
    blocks: list[dict[int, int]] = []
    alive: list[torch.Tensor] = []  # memory that is let go is given to others

    def keep(found: dict[int, int], tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() not in own:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    def watched(found: dict[int, int]) -> AbstractContextManager[None]:
        return torch.autograd.graph.saved_tensors_hooks(partial(keep, found), lambda tensor: tensor)

    def block(arguments: tuple[Any, ...]) -> AbstractContextManager[None]:
        nest(arguments, lambda part: keep(whole, part) if isinstance(part, torch.Tensor) else part)
        blocks.append({})
        return watched(blocks[-1])

    with recompute.counting(block), watched(whole):
        made = loss(batch)
    largest = max((sum(size for at, size in each.items() if at not in whole) for each in blocks), default=0)
    del made
    return sum(whole.values()) + largest
