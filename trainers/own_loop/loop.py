"""Fashion-MNIST in a loop of one's own on a Headway session: trainers/plain_pytorch.py with a handful of lines changed.

headway data get fashion-mnist
headway train trainers/own_loop/job.yaml
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import headway


def build_model(channels: int = 16, dropout: float = 0.1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels * 7 * 7, 10),
    )


def scaled(images: torch.Tensor) -> torch.Tensor:
    return (images[:, None].float() / 255 - 0.2860) / 0.3530


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def accuracy(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"accuracy": (model(scaled(batch["image"])).argmax(1) == batch["label"]).float().mean()}


def train(rate: float) -> None:
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    with headway.session(model, optimizer, cosine) as session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(functional.cross_entropy(model(scaled(batch["image"])), batch["label"]))
            if step.last_of_epoch:
                session.evaluate(accuracy)
