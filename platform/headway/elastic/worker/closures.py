"""Optimisers that evaluate the loss themselves, as often as they like: what a step does for them.

Every evaluation is the same walk over the step's lanes, with the same randomness, so that a line search sees one
function (Nocedal and Wright 2006, Numerical Optimization, chapters 3 and 7). All workers get the same sums, and so
decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from headway.errors import BadInput

MOST = 10_000
"""Evaluations of one step."""

Batches = Generator[dict[str, torch.Tensor], None, Any] | Iterator[dict[str, torch.Tensor]]


class Again(Exception):
    """An evaluation counts for nothing: out of the optimiser, and from the step's beginning."""


def walk(
    lanes: Batches, loss: Callable[[dict[str, torch.Tensor]], torch.Tensor], backward: Callable[[torch.Tensor], None]
) -> Any:
    """One evaluation: the loss of every batch, and its gradients. Returns what the lanes return."""
    try:
        while True:
            try:
                batch = next(lanes)
            except StopIteration as end:
                return end.value
            backward(loss(batch))
    finally:
        lanes.close()  # type: ignore[union-attr]


def endless(step: int, optimizer: Optimizer) -> BadInput:
    """What is raised where an optimiser does not end."""
    return BadInput(
        f"{type(optimizer).__name__} evaluated the loss {MOST} times in step {step}",
        "it seems not to end by itself",
        "Give it fewer iterations a step (max_iter, max_eval).",
    )


def wanted(optimizer: Optimizer) -> BadInput:
    """What is raised where one was used as those that do not evaluate."""
    return BadInput(
        f"{type(optimizer).__name__} was used with step.lanes() and step.backward()",
        "it evaluates the loss again and again in one step",
        "Call step.minimize(lambda batch: loss) in place of the loop over step.lanes().",
    )
