"""Whether a state is one to go on from: no NaN among parameters and the optimiser's state, no trained one infinite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK = 4 << 20  # elements looked at at once, so that it takes little memory


def flaw(parts: Mapping[str, Any], parameters: Mapping[str, bool] | None = None) -> str | None:
    """The first thing that is wrong with a checkpoint's parts, or None.

    Args:
        parts: trees by name; `model`, `optimizer` and the optimiser's own parameters are looked at.
        parameters: names in `model`, and whether each is trained; buffers (a mask of -inf) are not in it, and are left
            alone. Where not given, every tensor of the model is looked at for NaN, and none for infinities.
    """
    model = parts.get("model", {})
    for name in parameters if parameters is not None else model:
        tensor = model.get(name)
        found = _found(tensor, infinite=bool(parameters and parameters[name]))
        if found:
            return f"{found} in {name}"
    own = parts.get("session", {}).get("own", {})
    return _in_tree(parts.get("optimizer", {}), "the optimiser's state") or _in_tree(
        own, "the optimiser's own parameters"
    )


def _in_tree(tree: Any, where: str) -> str | None:
    if isinstance(tree, Mapping):
        values: Any = tree.values()
    elif isinstance(tree, list | tuple):
        values = tree
    else:
        found = _found(tree, infinite=False)
        return f"{found} in {where}" if found else None
    return next((found for found in (_in_tree(value, where) for value in values) if found), None)


def _found(value: Any, infinite: bool) -> str | None:
    import torch

    if isinstance(value, float):
        return "NaN" if value != value else None
    if not isinstance(value, torch.Tensor) or not (value.is_floating_point() or value.is_complex()):
        return None
    for part in _chunks(value.detach()):
        chunk = part.float() if part.element_size() == 1 else part  # torch has no isinf for all kinds of float8
        if bool((chunk != chunk).any()):
            return "NaN"
        if infinite and bool(chunk.isinf().any()):
            return "an infinity"
    return None


def _chunks(tensor: torch.Tensor) -> Any:
    if tensor.is_complex():
        import torch

        tensor = torch.view_as_real(tensor)
    return tensor.reshape(-1).split(CHUNK)
