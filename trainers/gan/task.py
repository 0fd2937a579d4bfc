"""A GAN of points: a Wasserstein critic that learns five times for each update of the generator, in turns in one step.

python trainers/gan/task.py data/ring.parquet       # makes the points
headway data prepare data/ring.parquet data/ring
headway train trainers/gan/job.yaml

Gulrajani et al. 2017, Improved Training of Wasserstein GANs, algorithm 1 (https://arxiv.org/abs/1704.00028).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

import headway

NOISE = 4


def points(rows: int, seed: int = 0) -> pa.Table:
    """Points of eight small clouds on a circle: columns x and y, float32."""
    random = np.random.default_rng(seed)
    angle = random.integers(0, 8, rows) * np.pi / 4
    place = np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(0, 0.05, (rows, 2))
    return pa.table({"x": place[:, 0].astype(np.float32), "y": place[:, 1].astype(np.float32)})


def network(inputs: int, width: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


class Ring(headway.Task):
    def __init__(self, width: int = 64, critic_steps: int = 5, penalty: float = 0.1) -> None:
        self.width, self.critic_steps, self.penalty = width, critic_steps, penalty

    def model(self) -> dict[str, nn.Module]:
        return {"critic": network(2, self.width, 1), "generator": network(NOISE, self.width, 2)}

    def optimizer(self, model: Any) -> dict[str, torch.optim.Optimizer]:
        return {name: torch.optim.Adam(each.parameters(), lr=1e-3, betas=(0.5, 0.9)) for name, each in model.items()}

    def updates(self, step: Any) -> Sequence[str]:
        return [*["critic"] * self.critic_steps, "generator"]

    def loss(self, model: Any, batch: dict[str, torch.Tensor], update: str) -> torch.Tensor:
        real = torch.stack([batch["x"], batch["y"]], 1)
        made = model["generator"](torch.randn(len(real), NOISE, device=real.device))
        if update == "generator":
            return -model["critic"](made).mean()
        between = torch.lerp(made, real, torch.rand(len(real), 1, device=real.device)).requires_grad_()
        (slope,) = torch.autograd.grad(model["critic"](between).sum(), between, create_graph=True)
        distance = model["critic"](real).mean() - model["critic"](made).mean()
        return self.penalty * (slope.norm(dim=1) - 1).square().mean() - distance

    def metrics(self, model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """How far made points are from the circle: 0.04 for the real ones."""
        made = model["generator"](torch.randn(len(batch["x"]), NOISE, device=batch["x"].device))
        return {"off_circle": (made.norm(dim=1) - 1).abs().mean()}


if __name__ == "__main__":
    import pyarrow.parquet as pq

    place = Path(sys.argv[1])
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(points(16384), place)
