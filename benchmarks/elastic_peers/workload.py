"""What everybody trains in these measurements: the same model, the same numbered samples, the same step.

A step is GLOBAL_BATCH rows, whoever computes them. Each row also costs SECONDS_PER_ROW of sleep, which stands for an
accelerator at work: without it the step would be all CPU, and more workers than cores would measure the scheduler.
Imports torch only, so that it runs in a peer's own environment too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

GLOBAL_BATCH = 64
SECONDS_PER_ROW = float(os.environ.get("SECONDS_PER_ROW", "0.001"))
CHECKPOINT_EVERY = 20
LAYERS, CLASSES, TABLE = 4, 10, 4096


def build(parameters: int, seed: int) -> nn.Module:
    """An MLP of about `parameters` parameters; the same weights for the same seed."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    width = round((parameters / LAYERS) ** 0.5)
    hidden = [layer for _ in range(LAYERS) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, CLASSES))


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


class Samples:
    """Rows by number: the same number is always the same row."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        first = next(model.parameters())
        self.inputs = torch.randn(TABLE, first.shape[1], generator=generator)
        self.labels = torch.randint(0, CLASSES, (TABLE,), generator=generator)

    def loss(self, model: nn.Module, numbers: Sequence[int]) -> Tensor:
        """Mean loss over these rows."""
        rows = torch.tensor(numbers) % TABLE
        time.sleep(SECONDS_PER_ROW * len(numbers))
        return nn.functional.cross_entropy(model(self.inputs[rows]), self.labels[rows])


def state(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Any]:
    """What a checkpoint holds."""
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}


def take(state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Go on from a checkpoint; returns its step."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def share(step: int, rank: int, size: int) -> list[int]:
    """The numbers of the rows that one of `size` workers computes in a step."""
    cuts = [GLOBAL_BATCH * i // size for i in range(size + 1)]
    return list(range(step * GLOBAL_BATCH + cuts[rank], step * GLOBAL_BATCH + cuts[rank + 1]))
