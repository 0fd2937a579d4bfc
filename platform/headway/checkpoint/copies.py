"""A copy of a state in host memory, made where training stands still for it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from headway.errors import BadInput

_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, set)


class Copies:
    """Copies trees of tensors and plain values; memory of the copy before is used again, for new pages cost more.

    A copy is good until the next one is taken.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Any] = {}

    def take(self, tree: Any, at: tuple[Any, ...] = ()) -> Any:
        """A copy of the tree.

        Args:
            tree: tensors of any device, numbers, text, and dicts, lists and tuples of them.
            at: where the tree is in the whole, for the error.

        Raises:
            BadInput: a value that could not be loaded again without running code from the file.
        """
        import torch

        if isinstance(tree, torch.Tensor):
            buffer = self._buffers.get(at)
            if buffer is None or buffer.shape != tree.shape or buffer.dtype != tree.dtype:
                buffer = self._buffers[at] = torch.empty(tree.shape, dtype=tree.dtype)
            return buffer.copy_(tree.detach())
        if isinstance(tree, dict):
            copied = copy.copy(tree)  # keeps the kind, and the versions that a module's state dict carries beside it
            for key, value in tree.items():
                copied[key] = self.take(value, (*at, key))
            return copied
        if type(tree) in (list, tuple):
            return type(tree)([self.take(value, (*at, i)) for i, value in enumerate(tree)])
        if isinstance(tree, np.generic):
            return tree.item()
        if isinstance(tree, (*_PLAIN, torch.dtype, torch.device, torch.Size)):
            return copy.copy(tree)
        raise BadInput(
            f"{'.'.join(map(str, at))} holds a {type(tree).__module__}.{type(tree).__qualname__}",
            "a checkpoint takes tensors, numbers, text, and dicts and lists of them",
            "Return such values from its state_dict().",
        )
