"""A tree of tensors and plain values from one worker to another."""

from __future__ import annotations

import math
from typing import Any

import torch

from headway.strategies import plain
from headway.strategies.group import Group
from headway.strategies.kept import Tree
from headway.strategies.lost import PeerLost


def send(group: Group, tree: Tree, to: int) -> None:
    """Give it to one worker, which calls `receive`.

    Raises:
        PeerLost: a worker went away.
        BadInput: something in the tree cannot travel, see `plain.pack`.
    """
    tensors: list[torch.Tensor] = []

    def other(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return None
        tensors.append(value)
        host = value.device.type == "cpu"
        return {"tensor": [len(tensors) - 1, str(value.dtype).removeprefix("torch."), list(value.shape), host]}

    head = torch.frombuffer(bytearray(plain.pack(tree, other)), dtype=torch.uint8)
    group.send(torch.tensor([len(head)], device=group.device), to)
    group.send(head.to(group.device), to)
    for tensor in tensors:
        if tensor.numel():
            group.send(tensor.detach().to(group.device).contiguous(), to)


def receive(group: Group, source: int, device: torch.device) -> Tree:
    """What one worker sends.

    Args:
        group: of both.
        source: its rank.
        device: for tensors that are not in host memory there.

    Raises:
        PeerLost: a worker went away, or sent what is no tree.
    """
    size = torch.zeros(1, dtype=torch.int64, device=group.device)
    group.receive(size, source)
    if not 0 < int(size) <= plain.MOST_BYTES:
        raise PeerLost(f"a peer announced a tree of {int(size)} bytes")
    head = torch.empty(int(size), dtype=torch.uint8, device=group.device)
    group.receive(head, source)
    rooms: list[tuple[torch.Tensor, torch.Tensor]] = []

    def other(kind: str, content: Any) -> Any:
        if kind != "tensor":
            raise ValueError(f"unknown kind of value: {kind[:40]!r}")
        number, dtype, shape, host = content
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype) or number != len(rooms) or math.prod(shape) < 0:
            raise ValueError(f"no tensor: {str(content)[:80]}")
        made = torch.empty(shape, dtype=found, device="cpu" if host else device)
        rooms.append((made, made if made.device == group.device else made.to(group.device)))
        return made

    try:
        tree = plain.unpack(head.cpu().numpy().tobytes(), other)
    except (ValueError, RuntimeError) as error:
        raise PeerLost(f"a peer sent no tree: {error}") from error
    for made, there in rooms:
        if made.numel():
            group.receive(there, source)
            if there is not made:
                made.copy_(there)
    return dict(tree)
