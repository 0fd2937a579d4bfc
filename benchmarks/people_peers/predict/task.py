"""What is predicted with: a net over 16 numbers."""

import torch
from torch import nn
from torch.nn import functional

import headway

COLUMNS = [f"x{number}" for number in range(16)]


def net():
    return nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))


class Wide(headway.Task):
    def model(self):
        return net()

    def loss(self, model, batch):
        return functional.cross_entropy(model(rows_of(batch)), batch["label"])

    def predict(self, model, batch):
        return {"probability": model(rows_of(batch)).softmax(1)[:, 1]}


def rows_of(batch):
    return torch.stack([batch[name] for name in COLUMNS], 1)
