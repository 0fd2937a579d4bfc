"""Datasets of the user's own on a Ray: given from Python as they are, the same bits as in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headway

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("connected")]


def test_a_dataset_that_is_given_as_it_is_and_one_of_rays(tmp_path: Path) -> None:
    import ray.data

    class Noisy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, row: int) -> dict[str, Any]:
            return {"x": torch.rand(3) + row / 40, "y": row / 40}

    class Line(headway.Task):
        def model(self) -> torch.nn.Module:
            return torch.nn.Linear(3, 1)

        def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
            return ((model(batch["x"]).squeeze(1) - batch["y"].float()) ** 2).mean()

    job = {
        "name": "n",
        "lanes": 4,
        "lane_batch": 5,
        "epochs": 3,
        "reproducible": "bitwise",
        "optimizer": {"name": "sgd", "lr": 0.05},
        "workers": {"min": 2, "max": 2},
        "tracking": {"enabled": False},
    }
    held_out = ray.data.from_items(
        [{"x": np.full(3, row / 30, np.float32), "y": row / 30} for row in range(30)], override_num_blocks=3
    )
    data = {"train": Noisy(), "validation": held_out}
    runs = tmp_path / "runs"
    two = headway.train(job, task=Line, data=data, runs_folder=runs, name="two")
    assert (two.state, two.steps) == ("finished", 6)
    job["workers"] = {"min": 1, "max": 1}
    here = headway.train(job, task=Line, data=data, runs_folder=runs, name="here", address="in-process")
    assert (here.weights_sha256, here.samples_sha256) == (two.weights_sha256, two.samples_sha256)
    assert here.metrics == two.metrics
    (folder,) = (runs / "datasets").iterdir()
    assert (folder / "manifest.json").exists(), "the same rows are written once"
