"""Lazy layers, which take their shapes from the first batch they see: they see one before the optimiser is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from headway.elastic.worker import batches, update
from headway.errors import BadInput
from headway.task import loss_by_update

if TYPE_CHECKING:
    from headway.data.read.reader import Batch
    from headway.elastic.worker.context import Context
    from headway.task import Task


def layers(model: nn.Module) -> list[str]:
    """Names of the layers that have seen no batch yet."""
    return [name or type(module).__name__ for name, module in model.named_modules() if _waits(module)]


def refuse(model: nn.Module) -> None:
    """Raises BadInput: there are some."""
    found = layers(model)
    if found:
        raise BadInput(
            f"the model's lazy layers have seen no batch: {', '.join(found)}",
            "their parameters have no shape yet",
            "Put one batch through the model before its optimiser is made, under torch.no_grad().",
        )


def shaped(model: nn.Module, task: Task, context: Context) -> nn.Module:
    """The model; where it has lazy layers, the run's first batch has been through the task's loss for their sake.

    Every worker does so, with the same batch. Buffers are left as they were, or as they begin.

    Raises:
        BadInput: a layer that the loss does not use.
    """
    if not layers(model):
        return model
    if loss_by_update(task):
        refuse(model)
    device = torch.device(context.device)
    model.to(device)
    buffers = {buffer: buffer.clone() for buffer in model.buffers() if not is_lazy(buffer)}
    begun = [module for module in model.modules() if any(map(is_lazy, module.buffers(recurse=False)))]
    model.train()
    with torch.no_grad(), update.autocast(context.job.precision, device):
        task.loss(model, batches.tensors_of(_first(context), device))
        for buffer, before in buffers.items():
            buffer.copy_(before)
        for module in begun:
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.reset_running_stats()
    refuse(model)
    return model


def _waits(module: nn.Module) -> bool:
    held = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return any(map(is_lazy, held))


def _first(context: Context) -> Batch:
    """The first batch of the run that has rows."""
    reader = context.train
    order = reader.order
    places = (
        (step, lane) for step in range(order.steps_per_epoch) for lane, size in enumerate(order.sizes(step)) if size
    )
    return next(batch for batch in (reader.batch(0, *place) for place in places) if len(batch.ids))
