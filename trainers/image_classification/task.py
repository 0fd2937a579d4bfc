"""Fashion-MNIST with a small CNN: convolution, batch norm, dropout. 28 x 28 grey images, ten classes.

    headway data get fashion-mnist
    headway train trainers/image_classification/job.yaml

Any dataset with a `image` column (uint8 [28, 28]) and a `label` column trains with it, mnist-5k for one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

import headway
from headway.data.arrays import arrays


class ImageClassification(headway.Task):
    """The job's `arguments`: channels of the first convolution, dropout, learning rate, shift in pixels."""

    def __init__(self, channels: int = 16, dropout: float = 0.1, rate: float = 5e-3, shift: int = 0) -> None:
        self.channels, self.dropout, self.rate, self.shift = channels, dropout, rate, shift

    def model(self) -> nn.Module:
        width = self.channels
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(self.dropout),
            nn.Linear(2 * width * 7 * 7, 10),
        )

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=self.rate, weight_decay=0.01)

    def transform(self, table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, np.ndarray]:
        columns = arrays(table.select(["image", "label"]))
        images = columns["image"].astype(np.float32)[:, None] / 255.0
        if training and self.shift:
            down, right = random.integers(-self.shift, self.shift + 1, 2)
            images = np.roll(images, (down, right), (2, 3))
        return {"image": (images - 0.2860) / 0.3530, "label": columns["label"].astype(np.int64)}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(model(batch["image"]), batch["label"])

    def metrics(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | float]:
        scores = model(batch["image"])
        right = (scores.argmax(1) == batch["label"]).float().mean()
        return {"accuracy": right, "loss": functional.cross_entropy(scores, batch["label"])}
