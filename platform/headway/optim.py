"""Optimisers and schedules by the names that a job gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from headway.core import schedules
from headway.errors import BadInput

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from headway import job as jobs


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
