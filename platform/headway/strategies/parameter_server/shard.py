"""The user's optimiser, at work on one range: new values and new state beside the old ones.

Of a range is kept {"at": updates that were made, "state": {number of the parameter: {key: value}}}. A state of the
parameter's own shape is cut as the parameter is; what has another shape (a count of steps) is there in each of its
pieces.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from headway.core.ranges import Piece
from headway.errors import BadInput
from headway.strategies.kept import Tree

_OF_THE_WHOLE = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
"""Hooks of the user's optimiser, which are given it with all its parameters."""


def stepped(
    optimizer: Optimizer,
    parameters: Sequence[nn.Parameter],
    pieces: Sequence[Piece],
    tree: Tree,
    gradients: Mapping[int, torch.Tensor],
) -> tuple[dict[int, torch.Tensor], Tree]:
    """One update of a range. Neither parameters nor tree nor optimiser are changed.

    Args:
        optimizer: the user's, whose class, groups and options are those of the update; a parameter's state is taken
            from it where the tree has none.
        parameters: of the run, by number.
        pieces: in the range.
        tree: what is kept of it; empty at first.
        gradients: by parameter's number, of those that have one; flat, of the piece's size.

    Returns:
        New values of what has a gradient and is the optimiser's, flat, by parameter's number; and the tree after the
        update. It shares tensors with the one given where nothing moved.

    Raises:
        BadInput: the optimiser keeps numbers in its groups, or returns with parameters of another shape.
    """
    places = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
    before: dict[str, Any] = tree.get("state", {})
    after = dict(before)
    groups: list[list[nn.Parameter]] = [[] for _ in optimizer.param_groups]
    state: dict[nn.Parameter, dict[str, Any]] = defaultdict(dict)
    moved: dict[int, nn.Parameter] = {}
    for piece in pieces:
        parameter = parameters[piece.tensor]
        place = places.get(id(parameter))
        if place is None:
            continue  # another optimiser's, whose turn it is not
        key = str(piece.tensor)
        if key not in before and (found := optimizer.state.get(parameter)):
            after[key] = sliced(found, parameter, piece)
        if piece.tensor in gradients:
            shadow = nn.Parameter(valued(parameter, piece))
            shadow.grad = gradients[piece.tensor].view_as(shadow)
            if key in after:
                state[shadow] = {name: copied(value) for name, value in after[key].items()}
            moved[piece.tensor] = shadow
            groups[place].append(shadow)
    if moved:
        served = like(optimizer, groups, state)
        options = [{k: v for k, v in group.items() if k != "params"} for group in served.param_groups]
        served.step()
        _check_options(served, options)
        for number, shadow in moved.items():
            after[str(number)] = dict(served.state.get(shadow, {}))
    values = {number: shadow.detach().reshape(-1) for number, shadow in moved.items()}
    return values, {"at": int(tree.get("at", 0)) + 1, "state": after}


def valued(parameter: nn.Parameter, piece: Piece) -> torch.Tensor:
    """A copy of a piece: of the parameter's shape where it is all of it, else flat."""
    whole = parameter.detach()
    if piece.size == whole.numel():
        return whole.clone(memory_format=torch.contiguous_format)
    return whole.reshape(-1)[piece.start : piece.stop].clone()


def sliced(state: Mapping[str, Any], parameter: torch.Tensor, piece: Piece) -> dict[str, Any]:
    """A piece's part of a parameter's state, copied."""
    found = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape and piece.size < parameter.numel():
            value = value.reshape(-1)[piece.start : piece.stop]
        found[name] = copied(value)
    return found


def joined(states: Sequence[tuple[Piece, Mapping[str, Any]]], parameter: torch.Tensor) -> dict[str, Any]:
    """A parameter's state from all its pieces, in order: the opposite of `sliced`."""
    first = states[0][1]
    if len(states) == 1:
        return dict(first)
    found = dict(first)
    for name, value in first.items():
        if isinstance(value, torch.Tensor) and value.dim() == 1 and len(value) == states[0][0].size:
            found[name] = torch.cat([state[name] for _, state in states]).view(parameter.shape)
    return found


def like(optimizer: Optimizer, groups: Sequence[list[nn.Parameter]], state: Mapping[Any, dict[str, Any]]) -> Optimizer:
    """An optimiser with the attributes of the user's, for other tensors. Its constructor is not called: that of a class
    of the user's own may take anything."""
    made: Optimizer = object.__new__(type(optimizer))
    # `step` is an attribute of the object where a schedule counts its calls.
    made.__dict__.update({name: value for name, value in vars(optimizer).items() if name != "step"})
    for hooks in _OF_THE_WHOLE:
        setattr(made, hooks, OrderedDict())
    made.state = defaultdict(dict, state)
    made.param_groups = [
        {**group, "params": ours} for group, ours in zip(optimizer.param_groups, groups, strict=True) if ours
    ]
    return made


def _check_options(served: Optimizer, before: Sequence[Mapping[str, Any]]) -> None:
    for group, options in zip(served.param_groups, before, strict=True):
        for name, value in group.items():
            if name != "params" and value is not options.get(name) and value != options.get(name):
                raise BadInput(
                    f"{type(served).__name__} keeps {name!r} in its groups and changes it in step()",
                    "each range of the parameters has an optimiser of its own, and the groups are the user's",
                    "Set strategy to all_reduce, or use an optimiser whose state is the parameters'.",
                )


def copied(value: Any) -> Any:
    """Of an optimiser's state: tensors and what holds them; plain values are as they are."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(each) for each in value)
    return value
