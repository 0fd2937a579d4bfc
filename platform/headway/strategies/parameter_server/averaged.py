"""A range of dense parameters whose updates are means over the replicas that are there first: backup workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from headway.core.clocks import FirstOf
from headway.core.ranges import Piece
from headway.strategies.kept import Tree
from headway.strategies.parameter_server.slab import Slab


class Averaged(Slab):
    """As `Slab`, with the same messages; but a push's gradients, which are multiplied by the share that its replica has
    of the step's rows, are added up until the step is complete, and divided by the shares that came. Then they make one
    update: what all replicas would have made, of the rows of those that were there.

    Its version is how many steps are complete; `at` in its tree counts the pushes that are in it.

    Args:
        optimizer, parameters, pieces, tree: as of `Slab`.
        clocks: with which pushes a step is complete.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        pieces: Sequence[Piece],
        clocks: FirstOf,
        tree: Tree | None = None,
    ) -> None:
        self._first = clocks
        self._came = torch.zeros(sum(piece.size for piece in pieces))
        self._used, self._shares, self._pushes = [0] * len(pieces), 0.0, 0
        super().__init__(optimizer, parameters, pieces, clocks, tree)
        self.version = clocks.step

    def apply(self, content: torch.Tensor, factor: float) -> None:
        """Take a push, and make the update where the step is complete with it.

        Args:
            content: of a push; uint8.
            factor: the share of the step's rows by which its gradients are multiplied.
        """
        here = content[: len(self.pieces)].tolist()
        self._came += content[self.head_bytes :].view(torch.float32)
        self._used = [max(pair) for pair in zip(self._used, here, strict=True)]
        self._shares, self._pushes = self._shares + factor, self._pushes + 1
        if not self._first.completes:
            return
        if self._shares > 0:  # else nobody had a row
            self._update(self._came / self._shares, self._used)
        self.version = self._first.step + 1
        self._came.zero_()
        self._used, self._shares = [0] * len(self.pieces), 0.0

    def tree(self) -> Tree:
        """All of it, with what came of the step that is under way; copied."""
        under_way = {"came": self._came.clone(), "used": list(self._used), "shares": self._shares}
        return {**super().tree(), "at": self._pushes, "step": self._first.step, **under_way}

    def load(self, tree: Mapping[str, Any]) -> None:
        """Values, the step and what came of it."""
        super().load(tree)
        self._pushes = int(tree["at"])
        self._first.step = self.version = int(tree.get("step", 0))
        if "came" in tree:
            self._came.copy_(tree["came"])
            self._used, self._shares = [int(each) for each in tree["used"]], float(tree["shares"])
