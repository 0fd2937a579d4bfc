"""Fashion-MNIST in plain PyTorch: one process, one file, no Headway. trainers/own_loop is this loop on a session.

headway data get fashion-mnist
python trainers/plain_pytorch.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


def read(folder: Path) -> TensorDataset:
    """Images, uint8 [rows, 28, 28], and labels, int64 [rows], of all Parquet files in a folder."""
    table = pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))
    pixels = np.frombuffer(bytearray().join(table["image"].to_pylist()), np.uint8)
    return TensorDataset(torch.from_numpy(pixels.reshape(-1, 28, 28)), torch.tensor(table["label"].to_numpy()))


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


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    right = 0.0
    for images, labels in loader:
        right += (model(scaled(images)).argmax(1) == labels).float().sum().item()
    model.train()
    return right / len(loader.dataset)


def train(data: Path, epochs: int, batch: int, rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    loader = DataLoader(read(data / "train"), batch, shuffle=True)
    validation = DataLoader(read(data / "test"), 1000)
    schedule = cosine(optimizer, epochs * len(loader))
    for epoch in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(scaled(images)), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}: loss {loss.item():.4f}, accuracy {evaluate(model, validation):.4f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/fashion-mnist"), help="folder of train and test")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256, help="images per step")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    train(given.data, given.epochs, given.batch, given.rate, given.seed)
