"""A range of dense parameters as a server has it: values, optimiser, and how far each replica's updates are in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from headway.core.clocks import Clocks, FirstOf
from headway.core.ranges import Piece
from headway.strategies.kept import Tree
from headway.strategies.parameter_server.shard import copied, like, sliced


class Slab:
    """See the module. Not for several threads at a time.

    What a push carries: for each piece a byte that says whether its gradient is there, padded to a multiple of four
    bytes, then float32 gradients of all pieces, one after another. What a pull gives: float32 values likewise.

    Args:
        optimizer: the user's; its class, groups and options are those of the updates.
        parameters: of the run, by number; values are copied from them.
        pieces: in the range.
        clocks: whose steps are in it.
        tree: to go on from, see `tree`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        pieces: Sequence[Piece],
        clocks: Clocks | FirstOf,
        tree: Tree | None = None,
    ) -> None:
        self._user, self.pieces, self.version = optimizer, tuple(pieces), 0
        self.clocks: Clocks | FirstOf = clocks
        ends, at = [], 0
        for piece in pieces:
            ends.append((at, at + piece.size))
            at += piece.size
        self._spans = ends
        self.flat = torch.empty(at, dtype=torch.float32)
        """The values, in host memory."""
        places = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
        groups: list[list[nn.Parameter]] = [[] for _ in optimizer.param_groups]
        state: dict[nn.Parameter, dict[str, Any]] = {}
        kept = (tree or {}).get("state", {})
        self._views: list[nn.Parameter] = []
        for piece, (first, last) in zip(pieces, ends, strict=True):
            parameter = parameters[piece.tensor]
            whole = piece.size == parameter.numel()
            self.flat[first:last] = parameter.detach().reshape(-1)[piece.start : piece.stop]
            view = nn.Parameter(self.flat[first:last].view(parameter.shape if whole else (piece.size,)))
            self._views.append(view)
            if id(parameter) in places:
                groups[places[id(parameter)]].append(view)
                if str(piece.tensor) in kept:
                    state[view] = {k: copied(v) for k, v in kept[str(piece.tensor)].items()}
                elif found := optimizer.state.get(parameter):
                    state[view] = sliced(found, parameter, piece)
        self._optimizer, self._places = like(optimizer, groups, state), [n for n, each in enumerate(groups) if each]
        if tree:
            self.load(tree)

    @property
    def head_bytes(self) -> int:
        """Of a push, before the gradients."""
        return -(-len(self.pieces) // 4) * 4

    def fits(self, size: int) -> bool:
        """Whether a push of so many bytes is of this range."""
        return size == self.head_bytes + self.flat.nbytes

    def apply(self, content: torch.Tensor, factor: float) -> None:
        """Make an update.

        Args:
            content: of a push; uint8.
            factor: by which gradients are multiplied.
        """
        used = content[: len(self.pieces)].tolist()
        gradients = content[self.head_bytes :].view(torch.float32)
        self._update(gradients if factor == 1.0 else gradients * factor, used)
        self.version += 1

    def _update(self, gradients: torch.Tensor, used: Sequence[int]) -> None:
        """Of all pieces: those that are used have these gradients."""
        for view, (first, last), here in zip(self._views, self._spans, used, strict=True):
            view.grad = gradients[first:last].view_as(view) if here else None
        for mine, number in zip(self._optimizer.param_groups, self._places, strict=True):
            theirs = self._user.param_groups[number]  # schedules move its rates
            mine.update({key: value for key, value in theirs.items() if key != "params"})
        self._optimizer.step()
        for view in self._views:
            view.grad = None

    def read(self, content: torch.Tensor, room: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """What a pull gives, copied into the room."""
        return room(len(self.flat)).copy_(self.flat)

    def tree(self) -> Tree:
        """All of it, to be kept; copied."""
        state = {
            str(piece.tensor): {k: copied(v) for k, v in self._optimizer.state[view].items()}
            for piece, view in zip(self.pieces, self._views, strict=True)
            if self._optimizer.state.get(view)
        }
        return {"at": self.version, "state": state, "values": self.flat.clone(), "clocks": dict(self.clocks.done)}

    def load(self, tree: Mapping[str, Any]) -> None:
        """Values and clocks of a tree."""
        self.version = int(tree["at"])
        with torch.no_grad():
            if "values" in tree:
                self.flat.copy_(tree["values"])
        self.clocks.done = {int(replica): int(step) for replica, step in tree.get("clocks", {}).items()}


def packed(pieces: Sequence[Piece], gradients: Mapping[int, torch.Tensor | None]) -> torch.Tensor:
    """What a push of a range carries, see `Slab`; uint8.

    Args:
        pieces: in the range.
        gradients: whole, by number of their parameters; of any dtype and device. None, or not there: not used.
    """
    head = -(-len(pieces) // 4) * 4
    content = torch.zeros(head + 4 * sum(piece.size for piece in pieces), dtype=torch.uint8)
    body = content[head:].view(torch.float32)
    at = 0
    for number, piece in enumerate(pieces):
        gradient = gradients.get(piece.tensor)
        if gradient is not None:
            content[number] = 1
            body[at : at + piece.size] = gradient.detach().reshape(-1)[piece.start : piece.stop]
        at += piece.size
    return content


@torch.no_grad()
def unpacked(pieces: Sequence[Piece], values: torch.Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Put pulled values where they belong.

    Args:
        pieces: in the range.
        values: float32, shape [elements of the range].
        parameters: of the run, by number; written in place.
    """
    at = 0
    for piece in pieces:
        into = parameters[piece.tensor].data
        new = values[at : at + piece.size]
        if into.is_contiguous():
            into.view(-1)[piece.start : piece.stop] = new
        else:
            flat = into.reshape(-1)
            flat[piece.start : piece.stop] = new
            into.copy_(flat.view_as(into))
        at += piece.size
