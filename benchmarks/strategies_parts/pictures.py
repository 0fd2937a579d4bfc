"""Images into ten classes by a plain network: small enough that eight workers share two cores, of any size."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn import functional

import headway
from headway.data.arrays import arrays


def tensors(images: np.ndarray) -> np.ndarray:
    """Images, uint8 [rows, 28, 28], as the network takes them: float32 [rows, 784]."""
    return (images.reshape(len(images), -1).astype(np.float32) / 255.0 - 0.2860) / 0.3530


def network(widths: list[int]) -> nn.Module:
    """Layers of these widths between 784 and 10, drawn from torch's seed."""
    sizes = [784, *widths, 10]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Pictures(headway.Task):
    """The job's `arguments`: widths of the hidden layers, learning rate and momentum of SGD."""

    def __init__(self, widths: list[int] | None = None, rate: float = 0.05, momentum: float = 0.9) -> None:
        self.widths, self.rate, self.momentum = widths or [64], rate, momentum

    def model(self) -> nn.Module:
        return network(self.widths)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.rate, momentum=self.momentum)

    def transform(self, table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, np.ndarray]:
        columns = arrays(table.select(["image", "label"]))
        return {"image": tensors(columns["image"]), "label": columns["label"].astype(np.int64)}

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(model(batch["image"]), batch["label"])

    def metrics(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor | float]:
        scores = model(batch["image"])
        right = (scores.argmax(1) == batch["label"]).float().mean()
        return {"accuracy": right, "loss": functional.cross_entropy(scores, batch["label"])}
