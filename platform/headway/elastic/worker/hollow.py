"""Trees of tensors and plain values, taken apart: the tensors, and the tree with holes in their places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from headway.errors import BadInput
from headway.strategies import plain

ARRAY_BYTES = 4096
"""Numpy arrays from this size on travel as tensors do, bucket by bucket."""
_ARRAYS = frozenset(np.dtype(kind) for kind in "b1 i1 i2 i4 i8 u1 f2 f4 f8 c8 c16".replace("b1", "?").split())


class Hole(int):
    """Stands in the tree for the tensor of that number."""


class ArrayHole(Hole):
    """For an array of numpy's."""


def pack(tree: Any) -> tuple[bytes, list[torch.Tensor]]:
    """The tree with holes as bytes (see `plain.pack`), and its tensors, by number; not copied.

    Raises:
        BadInput: something in it cannot travel.
    """
    tensors: list[torch.Tensor] = []

    def taken(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided:
                raise BadInput(
                    f"a tensor of layout {value.layout} cannot be given to other workers",
                    "state travels as plain memory",
                    "Let state_dict() give dense tensors.",
                )
            tensors.append(value.detach())
            return {"tensor": len(tensors) - 1}
        if type(value) is np.ndarray and value.nbytes >= ARRAY_BYTES and value.dtype in _ARRAYS:
            tensors.append(torch.from_numpy(np.array(value, copy=not value.flags.writeable)))
            return {"ndarray": len(tensors) - 1}
        return None

    return plain.pack(tree, taken), tensors


def written(tree: Any) -> list[Any]:
    """The tree as a plain value, for what is small. Raises BadInput as `pack`."""
    text, tensors = pack(tree)
    hosted = [tensor.cpu().contiguous() for tensor in tensors]
    flats = [tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in hosted]
    return [text, [[each.dtype, list(each.shape), flat] for each, flat in zip(hosted, flats, strict=True)]]


def read(found: Any) -> Any:
    """The tree that was `written`, with tensors of its own in host memory."""
    text, tensors = found
    made = []
    for dtype, shape, flat in tensors:
        tensor = torch.empty(shape, dtype=dtype)
        if flat:
            tensor.reshape(-1).view(torch.uint8).copy_(torch.frombuffer(bytearray(flat), dtype=torch.uint8))
        made.append(tensor)
    return filled(unpack(text), made)


def unpack(data: bytes) -> Any:
    """The tree with holes.

    Raises:
        ValueError: it is nothing that `pack` writes.
    """

    def given(kind: str, content: Any) -> Any:
        found = {"tensor": Hole, "ndarray": ArrayHole}.get(kind)
        if found is None or type(content) is not int:
            raise ValueError(f"unknown kind of value: {kind[:40]!r}")
        return found(content)

    return plain.unpack(data, given)


def beside(tree: Any, own: Any) -> Iterator[tuple[int, Any]]:
    """Each hole's number, with what another tree has in its place; None: nothing."""
    if isinstance(tree, Hole):
        yield int(tree), own
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from beside(value, own.get(key) if isinstance(own, dict) else None)
    elif isinstance(tree, list | tuple):
        alike = isinstance(own, list | tuple) and len(own) == len(tree)
        for value, other in zip(tree, own if alike else [None] * len(tree), strict=True):
            yield from beside(value, other)


def filled(tree: Any, tensors: list[torch.Tensor]) -> Any:
    """The tree with the tensors in their holes."""
    if isinstance(tree, ArrayHole):
        return tensors[tree].numpy()
    if isinstance(tree, Hole):
        return tensors[tree]
    if isinstance(tree, dict):
        return {key: filled(value, tensors) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(filled(value, tensors) for value in tree)
    return tree


def copied(tree: Any) -> Any:
    """The tree with copies of its tensors, in host memory."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(copied(value) for value in tree)
    return tree
