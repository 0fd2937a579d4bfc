"""A session's whole state from the worker that is ahead to those that are behind, in buckets, over the group."""

from __future__ import annotations

import pickle
from collections import defaultdict
from typing import Any

import torch

from headway.strategies import exchange
from headway.strategies.group import Group

BUCKET_BYTES = 32 * 2**20


class _Hole(int):
    """Stands in the tree for the tensor of that number."""


def send(group: Group, tree: Any) -> None:
    """Give a tree of tensors and plain values to all; every member must call `send` or `receive`.

    Raises:
        PeerLost: somebody went away.
    """
    tensors: list[torch.Tensor] = []
    hollow = _hollow(tree, tensors)
    shapes = [(t.dtype, tuple(t.shape)) for t in tensors]
    with exchange():
        group.broadcast_object(pickle.dumps((hollow, shapes)), group.rank)
        for bucket in _buckets(shapes):
            device = tensors[bucket[0]].device
            flat = torch.cat([tensors[i].detach().to(device).reshape(-1) for i in bucket])
            group.broadcast(flat, group.rank)


def receive(group: Group, source: int, device: torch.device) -> Any:
    """The tree that the member of rank `source` sends; floating-point tensors arrive on `device`.

    Raises:
        PeerLost: somebody went away.
    """
    with exchange():
        hollow, shapes = pickle.loads(group.broadcast_object(None, source))
        tensors: list[Any] = [None] * len(shapes)
        for bucket in _buckets(shapes):
            dtype = shapes[bucket[0]][0]
            sizes = [torch.Size(shapes[i][1]).numel() for i in bucket]
            flat = torch.empty(sum(sizes), dtype=dtype, device=device)
            group.broadcast(flat, source)
            for i, part in zip(bucket, flat.split(sizes), strict=True):
                tensors[i] = part.view(shapes[i][1]).clone()
    return _filled(hollow, tensors)


def _buckets(shapes: list[tuple[torch.dtype, tuple[int, ...]]]) -> list[list[int]]:
    """Numbers of the tensors that travel in one message: of one dtype, about BUCKET_BYTES together."""
    found: list[list[int]] = []
    filled: dict[torch.dtype, int] = defaultdict(int)
    open_bucket: dict[torch.dtype, list[int]] = {}
    for i, (dtype, shape) in enumerate(shapes):
        size = torch.Size(shape).numel() * dtype.itemsize
        if not size:
            size = 0
        if dtype not in open_bucket or filled[dtype] + size > BUCKET_BYTES:
            open_bucket[dtype], filled[dtype] = [], 0
            found.append(open_bucket[dtype])
        open_bucket[dtype].append(i)
        filled[dtype] += size
    return found


def _hollow(tree: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(tree, torch.Tensor):
        tensors.append(tree)
        return _Hole(len(tensors) - 1)
    if isinstance(tree, dict):
        return {key: _hollow(value, tensors) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_hollow(value, tensors) for value in tree)
    return tree


def _filled(tree: Any, tensors: list[Any]) -> Any:
    if isinstance(tree, _Hole):
        return tensors[tree]
    if isinstance(tree, dict):
        return {key: _filled(value, tensors) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(_filled(value, tensors) for value in tree)
    return tree


def copied(tree: Any) -> Any:
    """The tree with copies of its tensors, in host memory."""
    tensors: list[torch.Tensor] = []
    hollow = _hollow(tree, tensors)
    return _filled(hollow, [t.detach().to("cpu", copy=True) for t in tensors])
