"""Everything about applying an update: precision, clipping, the weights' digest."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from headway.strategies.group import Group

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for a lane's forward pass."""
    if precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def apply(
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    scaler: torch.amp.GradScaler,
    model: nn.Module,
    clip_norm: float | None,
) -> None:
    """One update from the gradients at hand. Under fp16 scaling, an overflow skips the update, not the step."""
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    scaler.step(optimizer)
    scaler.update()
    if scheduler is not None:
        if scaler.is_enabled():
            optimizer._opt_called = True  # type: ignore[attr-defined]  # an overflow in the first step is no mistake
        scheduler.step()


@torch.no_grad()
def broadcast(model: nn.Module, group: Group) -> None:
    """Give rank 0's parameters and buffers to all, so that a model built unseeded is still one model.

    Raises:
        PeerLost: a worker went away.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        whole = tensor.detach().contiguous()  # a channels_last weight is not, and torch refuses it
        group.broadcast(whole, 0)
        if whole is not tensor:
            tensor.copy_(whole)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the state dict in order of names: name, dtype, shape, bytes of each parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().to("cpu").contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)} ".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
