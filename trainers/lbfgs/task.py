"""A small regression by L-BFGS, which evaluates the loss again and again in a step: the optimiser alone says so.

python trainers/lbfgs/task.py data/waves.parquet    # makes the rows
headway data prepare data/waves.parquet data/waves
headway train trainers/lbfgs/job.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

import headway


def waves(rows: int, seed: int = 0) -> pa.Table:
    """Columns a and b, and z, which follows from them; float32."""
    random = np.random.default_rng(seed)
    a, b = random.uniform(-2, 2, (2, rows))
    z = np.sin(2 * a) * np.cos(b) + random.normal(0, 0.01, rows)
    return pa.table({"a": a.astype(np.float32), "b": b.astype(np.float32), "z": z.astype(np.float32)})


class Waves(headway.Task):
    def __init__(self, width: int = 32, iterations: int = 20) -> None:
        self.width, self.iterations = width, iterations

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, self.width), nn.Tanh(), nn.Linear(self.width, self.width), nn.Tanh(), nn.Linear(self.width, 1)
        )

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(
            model.parameters(), max_iter=self.iterations, history_size=20, line_search_fn="strong_wolfe"
        )

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        found = model(torch.stack([batch["a"], batch["b"]], 1)).squeeze(1)
        return nn.functional.mse_loss(found, batch["z"])


if __name__ == "__main__":
    import pyarrow.parquet as pq

    place = Path(sys.argv[1])
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(waves(8192), place)
