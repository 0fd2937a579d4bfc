"""Which optimisers and schedules a session has: the loop's own, or those that the job names in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from headway import optim
from headway.elastic.worker.updates import wants_closure
from headway.errors import BadInput, nearest
from headway.job import Job

Optimizers = Optimizer | Mapping[str, Optimizer]
Schedules = LRScheduler | Mapping[str, LRScheduler | None] | None


def chosen(
    job: Job,
    model: nn.Module,
    optimizer: Optimizers,
    schedule: Callable[..., Any] | None,
    steps: int,
    clips: bool = False,
) -> tuple[Optimizers, Schedules]:
    """The optimiser and its schedule; of several by name.

    Args:
        job: may name others.
        model: that they are of.
        optimizer: the loop's own.
        schedule: likewise; called as schedule(optimizer, steps).
        steps: of the whole run.
        clips: the loop has clipping of its own.

    Raises:
        BadInput: the job names one where there are several; what there is cannot be used.
    """
    if not isinstance(optimizer, Mapping):
        if job.optimizer is not None:
            optimizer = optim.named_optimizer(job.optimizer, model)
        _check_closure(job, optimizer, clips)
        return optimizer, optim.checked_schedule(job, optimizer, steps, schedule)
    _check(optimizer)
    for each in optimizer.values():
        _check_closure(job, each, clips)
    if job.optimizer is not None:
        raise _of_one("optimizer", job.optimizer.name, optimizer)
    if job.schedule is not None and job.schedule.name != "task":
        raise _of_one("schedule", job.schedule.name, optimizer)
    return optimizer, _schedules(job, optimizer, schedule, steps)


def _check(optimizers: Mapping[str, Any]) -> None:
    if not optimizers:
        raise BadInput("optimizer() returned an empty dict", "nothing would be trained", "Return one at least.")
    for name, each in optimizers.items():
        if not isinstance(name, str) or not name or "/" in name or not isinstance(each, Optimizer):
            raise BadInput(
                f"optimizer() returned {name!r}: {type(each).__name__}",
                "several optimisers come by name, which is text without a slash",
                "Return them like {'critic': torch.optim.Adam(...), 'generator': torch.optim.Adam(...)}.",
            )


def _check_closure(job: Job, optimizer: Optimizer, clips: bool) -> None:
    """Raises BadInput: the optimiser evaluates the loss itself, which leaves no room for what the job wants."""
    if not wants_closure(optimizer):
        return
    kind = type(optimizer).__name__
    if job.precision == "fp16":
        raise BadInput(
            f"precision=fp16 with {kind}",
            "it searches along the gradient, which scaled losses make too coarse",
            "Set precision to bf16 or fp32.",
        )
    if job.clip_norm is not None or clips:
        fact = "clip()" if job.clip_norm is None else f"clip_norm={job.clip_norm:g}"
        raise BadInput(
            f"{fact} with {kind}",
            "it compares gradients with one another, and clipped ones are others",
            f"Leave {fact.partition('=')[0]} out.",
        )


def _of_one(key: str, name: str, optimizers: Mapping[str, Optimizer]) -> BadInput:
    return BadInput(
        f"{key}.name={name}",
        f"there are several optimisers ({', '.join(optimizers)}), and it does not say whose it is",
        f"Leave {key} out of the job, and let the task's {key}() give them; its numbers may be the task's arguments.",
    )


def _schedules(
    job: Job, optimizers: Mapping[str, Optimizer], schedule: Callable[..., Any] | None, steps: int
) -> dict[str, LRScheduler | None]:
    """Of several optimisers, by name."""
    made = schedule(optimizers, steps) if schedule is not None else None
    if made is None:
        return {}
    if not isinstance(made, Mapping):
        raise BadInput(
            f"schedule() returned a {type(made).__name__}",
            f"there are several optimisers: {', '.join(optimizers)}",
            "Return a dict of schedulers by their names; one without needs no entry.",
        )
    for name in made:
        if name not in optimizers:
            raise BadInput(
                f"schedule() returned one for {name!r}",
                "there is no optimiser of that name",
                nearest(name, list(optimizers)),
            )
    by_steps = job.model_copy(update={"schedule": None})
    found = {}
    for name, each in made.items():
        of_job = job if isinstance(each, ReduceLROnPlateau) else by_steps
        found[name] = optim.checked_schedule(of_job, optimizers[name], steps, lambda *_, each=each: each)
    return found
