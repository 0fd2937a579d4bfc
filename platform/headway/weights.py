"""A model as a whole, and its weights by plain names, whatever wraps it: for training, checkpoints and prediction.

Modules by name are one `nn.ModuleDict`. `torch.compile` puts `_orig_mod.` into the names of a module's weights; they
are kept without it, so that a run may be resumed, and its weights loaded, with and without compiling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from headway.errors import BadInput

COMPILED = "_orig_mod."
"""What `torch.compile` puts into names."""


def whole(model: nn.Module | Mapping[str, nn.Module]) -> nn.Module:
    """The model as one module.

    Args:
        model: one; or several by name.

    Raises:
        BadInput: it is none.
    """
    if isinstance(model, nn.Module):
        return model
    if not isinstance(model, Mapping) or not model:
        raise BadInput(
            f"the model is a {type(model).__name__}", "a torch.nn.Module is needed, or several by name", "Give one."
        )
    for name, each in model.items():
        if not isinstance(each, nn.Module) or not isinstance(name, str):
            raise BadInput(
                f"the model has {name!r}: {type(each).__name__}",
                "several models are torch.nn.Modules by name",
                "Give them like {'critic': ..., 'generator': ...}.",
            )
    return nn.ModuleDict(dict(model))


def plain(name: str) -> str:
    """A weight's name without what compiling put into it."""
    return name.replace(COMPILED, "")


def plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict by plain names."""
    return {plain(name): value for name, value in state.items()}


def state_for(model: nn.Module, state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict, of plain names or of a compiled model's, by the names that a model has for its weights: for
    `model.load_state_dict`. Names that the model does not have stay as they are."""
    theirs = {plain(name): name for name in model.state_dict(keep_vars=True)}
    return {theirs.get(plain(name), name): value for name, value in state.items()}
