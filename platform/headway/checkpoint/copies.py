"""A copy of a state in host memory, made where training stands still for it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from headway.errors import BadInput

if TYPE_CHECKING:
    import torch

Copied = dict[tuple[Any, ...], "torch.Tensor"]
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, set)


class Copies:
    """Copies trees of tensors and plain values; memory of the copy before is used again, for new pages cost more.

    A copy is good until the next one is taken. Tensors of the same memory (tied weights) are copied once, and are
    of the same memory in it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], torch.Tensor] = {}

    def take(self, tree: Any) -> Any:
        """A copy of the tree.

        Args:
            tree: tensors of any device, numbers, text, and dicts, lists and tuples of them.

        Raises:
            BadInput: a value that could not be loaded again without running code from the file.
        """
        return self._taken(tree, (), {})

    def _tensor(self, tensor: torch.Tensor, at: tuple[Any, ...], copied: Copied) -> torch.Tensor:
        import torch

        if tensor.layout != torch.strided or tensor.is_quantized:
            return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)  # which says that it cannot be
        bytes_ = tensor.numel() * tensor.element_size()
        memory = (tensor.device, tensor.data_ptr(), bytes_, tensor.dtype)
        buffer = self._buffers.get(at)
        like = torch.empty_like(tensor, device="meta")  # dense, in the same order where the tensor is
        dense = like.stride() == tensor.stride() and not (tensor.is_conj() or tensor.is_neg())
        if dense and memory in copied:
            self._buffers.pop(at, None)
            return copied[memory].as_strided(tensor.shape, tensor.stride())
        if buffer is None or (buffer.shape, buffer.dtype, buffer.stride()) != (like.shape, like.dtype, like.stride()):
            # Not of `like`: torch goes through its compiler's parts for a meta tensor's, and imports them for seconds.
            buffer = self._buffers[at] = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
        buffer.copy_(tensor.detach())
        if dense and bytes_ and tensor.data_ptr():  # what has no address is its own
            copied[memory] = buffer
        return buffer

    def _taken(self, tree: Any, at: tuple[Any, ...], copied: Copied) -> Any:
        """at: where the tree is in the whole, for the error; copied: what there is of the same memory."""
        import torch

        if isinstance(tree, torch.Tensor):
            return self._tensor(tree, at, copied)
        if isinstance(tree, dict):
            found = copy.copy(tree)  # keeps the kind, and the versions that a module's state dict carries beside it
            for key, value in tree.items():
                found[key] = self._taken(value, (*at, key), copied)
            return found
        if type(tree) in (list, tuple):
            return type(tree)([self._taken(value, (*at, i), copied) for i, value in enumerate(tree)])
        if isinstance(tree, np.generic):
            return tree.item()
        if isinstance(tree, (*_PLAIN, torch.dtype, torch.device, torch.Size)):
            return copy.copy(tree)
        raise BadInput(
            f"{'.'.join(map(str, at))} holds a {type(tree).__module__}.{type(tree).__qualname__}",
            "a checkpoint takes tensors, numbers, text, and dicts and lists of them",
            "Return such values from its state_dict().",
        )
