"""A LightningModule, as it is, in Headway: the last four lines are all that is written for it.

    pip install headway[lightning]
    headway train trainers/lightning/job.yaml --local

Nothing is fetched: points of two spirals are told apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from headway.adapters.lightning import Lightning


class LitSpirals(LightningModule):
    """As people write it for a Trainer."""

    def __init__(self, width: int = 64, rate: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    def forward(self, points: Tensor) -> Tensor:
        return self.net(points)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        points, kinds = batch
        loss = functional.cross_entropy(self(points), kinds)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        points, kinds = batch
        scores = self(points)
        self.log("val_loss", functional.cross_entropy(scores, kinds), prog_bar=True)
        self.log("val_acc", (scores.argmax(1) == kinds).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)]


def spirals(rows: int, seed: int) -> TensorDataset:
    """Points, float32 [rows, 2], and which of the two spirals they lie on, int64 [rows]."""
    random = np.random.default_rng(seed)
    kinds, along = random.integers(0, 2, rows), random.random(rows)
    angle = 3 * np.pi * along + np.pi * kinds
    points = along[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(0, 0.02, (rows, 2))
    return TensorDataset(torch.tensor(points, dtype=torch.float32), torch.tensor(kinds))


def train_set() -> TensorDataset:
    return spirals(2048, 0)


def held_out() -> TensorDataset:
    return spirals(512, 1)


class Spirals(Lightning):
    """The job's `arguments` are those of the module."""

    module = LitSpirals
