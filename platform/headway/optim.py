"""Optimisers and schedules by the names that a job gives them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from headway.core import schedules
from headway.errors import BadInput

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from headway import job as jobs

_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
"""What a schedule keeps in the optimiser's groups."""
_MOMENTA = ("momentum", "betas", "base_momentum", "max_momentum")
"""What one that cycles momentum keeps there too."""


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
    if section is None or section.name == "task":
        return default(optimizer, steps) if default else None
    if section.name == "plateau":
        return ReduceLROnPlateau(optimizer, section.mode, section.factor, section.patience)
    return LambdaLR(optimizer, schedules.Shape.of(section, steps).factor)


def checked_schedule(
    job: jobs.Job,
    optimizer: Optimizer,
    steps: int,
    default: Callable[[Optimizer, int], LRScheduler | None] | None,
) -> LRScheduler | None:
    """The schedule of a run, made for an optimiser that was not stepped yet.

    Args:
        job: whose section `schedule` overrides the task's, or names the metric that it goes by.
        optimizer: that it is for.
        steps: of the whole run.
        default: the task's, or the loop's own.

    Raises:
        BadInput: it is no schedule; it is another optimiser's; it wants a metric and the job names none, or the other
            way round, or nothing is evaluated.
    """
    section = job.schedule
    made = schedule(section, optimizer, steps, default)
    metric = section.metric if section is not None else None
    kind = type(made).__name__
    if made is None:
        if metric is not None:
            raise BadInput(f"schedule.metric={metric}", "the task has no schedule", "Choose one with schedule.name.")
        return None
    if not callable(getattr(made, "step", None)) or not callable(getattr(made, "state_dict", None)):
        raise BadInput(
            f"schedule() returned a {kind}",
            "a schedule has step() and state_dict(), as those of torch.optim.lr_scheduler",
            "Return one of them, or None.",
        )
    theirs = getattr(made, "optimizer", optimizer)
    if theirs is not optimizer:
        raise BadInput(
            f"schedule() returned a {kind} of another optimiser",
            "it would move rates that nobody uses",
            "Make it for the optimiser that schedule(optimizer, steps) is given.",
        )
    if isinstance(made, ReduceLROnPlateau):
        if metric is None:
            raise BadInput(
                "the schedule is ReduceLROnPlateau, and the job names no metric for it",
                "it is stepped after each evaluation, with one of the validation metrics",
                "Write `schedule: {metric: loss}` in the job, or the name of another metric.",
            )
        if job.data.validation is None:
            raise BadInput(
                f"schedule.metric={metric}",
                "there is no validation set, so that no metric is ever known",
                "Set data.validation, or choose a schedule that goes by steps.",
            )
    elif metric is not None:
        raise BadInput(
            f"schedule.metric={metric}", f"the schedule is a {kind}, which goes by steps", "Leave the metric out."
        )
    return made


def is_recomputable(made: LRScheduler) -> bool:
    """Whether a schedule follows from the number of steps alone, so that it can be made for another length."""
    return isinstance(made, torch.optim.lr_scheduler.LRScheduler) and not isinstance(made, ReduceLROnPlateau)


def advance(made: LRScheduler, optimizer: Optimizer, before: list[dict[str, Any]], steps: int) -> None:
    """Bring a schedule that was just made to where it is after so many steps.

    Args:
        made: for the length that the run has now, and never stepped.
        optimizer: with the state of a run of another length.
        before: the options of its groups when the schedule was made.
        steps: that were done.

    Raises:
        BadInput: it does not go so far.
    """
    names = _RATES + (_MOMENTA if _cycles_momentum(made) else ())
    for group, first in zip(optimizer.param_groups, before, strict=False):
        for name in names:
            if name in first:
                group[name] = copy.copy(first[name])
            else:
                group.pop(name, None)
    optimizer._opt_called = True  # type: ignore[attr-defined]  # its steps were done in another process
    try:
        if type(made) is LambdaLR and steps:
            made.last_epoch, made._step_count = steps - 1, steps
            made.step()
            return
        for _ in range(steps):
            made.step()
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadInput(
            f"the schedule {type(made).__name__} cannot be brought to step {steps}",
            str(error).splitlines()[0] if str(error) else type(error).__name__,
            "Make it for the number of steps that schedule(optimizer, steps) is given.",
        ) from error


def _cycles_momentum(made: Any) -> bool:
    inner = getattr(made, "_schedulers", ())
    return bool(getattr(made, "cycle_momentum", False)) or any(_cycles_momentum(each) for each in inner)
