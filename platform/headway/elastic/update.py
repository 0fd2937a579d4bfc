"""Everything about applying an update: optimisers and schedules by name, precision, clipping."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headway.core import schedules
from headway.errors import BadInput

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from headway import job as jobs
    from headway.strategies.group import Group

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def named_optimizer(section: jobs.Optimizer, model: nn.Module) -> Optimizer:
    """The optimiser that the job names, over all trainable parameters.

    Raises:
        BadInput: torch's constructor refuses one of the job's keys.
    """
    kinds = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adagrad": torch.optim.Adagrad,
        "rmsprop": torch.optim.RMSprop,
    }
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in (section.model_extra or {}).items()}
    try:
        made: Optimizer = kinds[section.name](
            (p for p in model.parameters() if p.requires_grad), lr=section.lr, **options
        )
        return made
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"optimizer {section.name} with {options}", str(error), "See torch.optim for its options."
        ) from None


def schedule(
    section: jobs.Schedule | None,
    optimizer: Optimizer,
    steps: int,
    default: Callable[[Optimizer, int], LRScheduler | None] | None,
) -> LRScheduler | None:
    """The job's schedule by name, else the task's."""
    if section is None:
        return default(optimizer, steps) if default else None
    options = {"cosine": ("final",), "linear": ("final",), "step": ("every", "factor")}.get(section.name, ())
    chosen = {name: getattr(section, name) for name in options}
    shape: Callable[..., float] = schedules.SCHEDULES[section.name]
    warmup = section.warmup_steps

    def factor(step: int) -> float:
        after = max(0, step - warmup)
        return schedules.warmed_up(shape(after, max(1, steps - warmup), **chosen), step, warmup)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


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
