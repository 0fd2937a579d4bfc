"""Everything about applying an update: precision, clipping, the weights' digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headway.weights import plain_state

if TYPE_CHECKING:
    from torch.optim import Optimizer


AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for a lane's forward pass."""
    if precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


def norm(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """L2 norm of all gradients together, a scalar; 0 where there are none."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


@torch.no_grad()
def scale(parameters: Sequence[nn.Parameter], factor: float) -> None:
    """Multiply all gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)


def step(optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
    """One update from the gradients at hand. Under fp16 scaling, an overflow skips the update, not the step."""
    scaler.step(optimizer)
    scaler.update()


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the state dict in order of names: name, dtype, shape, bytes of each parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(plain_state(model.state_dict()).items()):
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().to("cpu").contiguous()
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)} ".encode())
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
