"""Batches whose bits do not depend on where their memory happens to lie.

MKL and other libraries of kernels choose their loops by the address and the strides of what they are given, and so the
last bits of a matrix product: a slice of a window and a batch that came through the object store gave other sums for
rows of 9, 13 or 17 numbers. Every array of a batch therefore begins at an aligned address and lies row after row,
whoever read it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from headway.data.arrays import Array

ALIGNMENT = 64
"""Bytes: a cache line, the widest vector register, and what torch's own allocator gives."""

NUMBERS = "biufc"


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Memory for an array, at an aligned address."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    memory: Array = aligned_at(np.empty(size + ALIGNMENT, np.uint8), size).view(kind)
    return memory.reshape(shape)


def aligned_at(memory: Array, size: int, lead: int = 0) -> Array:
    """So many bytes of uint8 memory, which has ALIGNMENT to spare; byte `lead` of them is at an aligned address."""
    skip = -(_address(memory) + lead) % ALIGNMENT
    return memory[skip : skip + size]


def aligned_batch(arrays: Any) -> Any:
    """The arrays of a batch, each as `aligned` gives it; what is no dict is the user's, to be refused later."""
    return {name: aligned(value) for name, value in arrays.items()} if isinstance(arrays, dict) else arrays


def aligned(value: Any) -> Any:
    """Numbers as a writable array, or tensor, that begins at an aligned address with strides that follow its shape.

    What is so already is returned itself. Tensors that are dense keep the order of their dimensions (channels last).
    What holds no numbers is returned as it is.
    """
    torch = sys.modules.get("torch")  # a tensor can only come from where it is loaded
    if torch is not None and isinstance(value, torch.Tensor):
        return _aligned_tensor(torch, value)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):  # the user's, and refused by name where it becomes a tensor
        return value
    if array.dtype.kind not in NUMBERS or not array.ndim or not array.size:
        return value
    if array.flags.writeable and not _address(array) % ALIGNMENT and array.strides == _strides(array):
        return array
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]  # a third of what .ctypes costs
    return address


def _strides(array: Array) -> tuple[int, ...]:
    """Of an array of this shape whose rows lie one after the other, dimensions of one entry among them."""
    strides, step = [], array.itemsize
    for length in reversed(array.shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def _aligned_tensor(torch: Any, tensor: Any) -> Any:
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided or not tensor.numel():
        return tensor
    if not tensor.data_ptr() % ALIGNMENT and tensor.is_contiguous():
        return tensor
    return tensor.clone()  # torch's memory is aligned; the copy's strides follow from the strides alone
