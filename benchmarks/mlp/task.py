"""A plain network of any size over Fashion-MNIST: what the step time is measured with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

import headway
from headway.data.arrays import arrays


class Mlp(headway.Task):
    """The job's `arguments`: width and number of the hidden layers."""

    def __init__(self, width: int = 1075, hidden: int = 2) -> None:
        self.width, self.hidden = width, hidden

    def model(self) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(784, self.width), nn.ReLU()]
        for _ in range(self.hidden - 1):
            layers += [nn.Linear(self.width, self.width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(self.width, 10))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def transform(self, table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, np.ndarray]:
        columns = arrays(table.select(["image", "label"]))
        images = columns["image"].astype(np.float32)[:, None] / 255.0
        return {"image": (images - 0.2860) / 0.3530, "label": columns["label"].astype(np.int64)}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(model(batch["image"]), batch["label"])
