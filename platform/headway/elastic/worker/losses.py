"""What a loss is, and what is said where it is none."""

from __future__ import annotations

from typing import Any

import torch

from headway.errors import BadInput


def require_loss(loss: Any) -> None:
    """Raises BadInput for what cannot be backpropagated."""
    if not isinstance(loss, torch.Tensor):
        kind = type(loss).__name__
        parts = f" of {', '.join(map(str, loss))}" if isinstance(loss, dict) else ""
        remedy = "Give the loss alone, and record the rest with step.record(name, value) in a loop of your own."
        if isinstance(loss, dict) and "loss" in loss:
            remedy = "Give its 'loss' alone, and record the rest with step.record(name, value) in a loop of your own."
        if isinstance(loss, int | float):
            remedy = "Leave out .item() and float(): a number has no graph to go back through."
        raise BadInput(
            f"the loss is a {kind}{parts}, in step.backward(loss) or as loss() of the task returned it",
            "a loss is one scalar tensor, the mean over the batch's rows",
            remedy,
        )
    if loss.dim() != 0:
        raise BadInput(
            f"step.backward() was given a loss of shape {tuple(loss.shape)}",
            "a loss is one number",
            "Take its mean.",
        )
    if not loss.is_floating_point():
        raise BadInput(
            f"step.backward() was given a loss of {loss.dtype}",
            "a loss is a real number of floating point",
            "Take the real part, or its absolute value." if loss.is_complex() else "Compute it in floating point.",
        )
    if not loss.requires_grad:
        raise BadInput(
            "step.backward() was given a loss that no parameter has a part in",
            "it was detached, computed under no_grad(), or everything that it depends on is frozen",
            "Compute it from the model's output, and leave at least one parameter that requires_grad.",
        )
