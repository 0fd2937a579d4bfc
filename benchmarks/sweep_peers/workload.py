"""What everybody trains: the image recipe, as a sweep of ours has it and in plain PyTorch for the peers.

The peers keep the whole set in memory, normalised once, which is the fastest that can be had for it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from torch.nn import functional

from headway.data.arrays import arrays

ROOT = Path(__file__).parents[2]
SETS = ROOT / "data" / "fashion-mnist"
RECIPE = ROOT / "trainers" / "image_classification"
WORKERS = 2
SPACE: dict[str, Any] = {
    "arguments.rate": {"loguniform": [1e-4, 1e-1]},
    "arguments.dropout": {"uniform": [0.0, 0.5]},
    "arguments.channels": {"choice": [8, 16]},
}


@dataclass(frozen=True)
class Size:
    """A sweep of the recipe.

    Args:
        steps: of a whole trial.
        first: step of the first rung; the next ones come at `factor` times as many.
        lane_batch: rows of each of eight lanes.
        validation: rows that each evaluation takes, every `first` steps.
        trials, factor, seed: of the sweep.
    """

    steps: int
    first: int
    lane_batch: int
    validation: int
    trials: int = 16
    factor: int = 4
    seed: int = 0

    @property
    def batch(self) -> int:
        return 8 * self.lane_batch


SIZES = {"short": Size(128, 8, 16, 1000), "long": Size(720, 45, 32, 2000), "tiny": Size(16, 4, 4, 200, trials=4)}
"""Some 8 s of compute of a whole trial on one core of 2026's; some 62 s; and one to try things with."""


def write(folder: Path, size: Size, **changes: Any) -> Path:
    """Our sweep's file, with its job inline and its validation set beside it."""
    import yaml

    validation(folder / "validation", size.validation)
    job = yaml.safe_load((RECIPE / "job.yaml").read_text())
    job |= {
        "task": f"{RECIPE / 'task.py'}:ImageClassification",
        "data": {"train": str(SETS / "train"), "validation": str(folder / "validation"), "eval_batch": 250},
        "lane_batch": size.lane_batch,
        "steps": size.steps,
        "evaluate_every_steps": size.first,
        "schedule": {"name": "cosine", "warmup_steps": 10},
        "checkpoint": {"every_steps": None, "keep_last": 1},
        "tracking": {"enabled": False},
    }
    tree = {
        "name": "images",
        "job": job,
        "metric": "accuracy",
        "mode": "max",
        "trials": size.trials,
        "space": SPACE,
        "search": {"name": "random", "seed": size.seed},
        "scheduler": {"name": "asha", "first": size.first, "factor": size.factor},
        "workers": {"min": 1, "max": WORKERS},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree | changes, sort_keys=False))
    return folder / "sweep.yaml"


def validation(folder: Path, rows: int) -> None:
    """The first rows of the test set, as a dataset of its own."""
    from headway.data.write.writer import write_dataset

    table = pa.concat_tables([pq.read_table(path) for path in sorted((SETS / "test").glob("*.parquet"))])
    write_dataset(folder, [table.slice(0, rows)], name="validation", source="made by a benchmark", label="label")


def configurations(size: Size) -> list[dict[str, Any]]:
    """The same for all: those that our sweep's search suggests, one after the other."""
    from headway.sweeps import search
    from headway.sweeps.file import load

    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        sweep = load(write(Path(folder), size))
    searcher = search.create(sweep)
    found = [searcher.suggest(number) or {} for number in range(1, size.trials + 1)]
    return [{key.removeprefix("arguments."): value for key, value in config.items()} for config in found]


def saved(size: Size, **rest: Any) -> str:
    """For a peer's command line."""
    return json.dumps({"size": asdict(size), "configurations": configurations(size), **rest})


def given(index: int = 1) -> tuple[Size, list[dict[str, Any]], dict[str, Any]]:
    """What `saved` gave, from this process's command line."""
    tree = json.loads(sys.argv[index])
    return Size(**tree.pop("size")), tree.pop("configurations"), tree


def model(channels: int, dropout: float) -> nn.Module:
    """As the recipe's."""
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


@cache
def rows(use: str, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Images, normalised, and labels."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted((SETS / use).glob("*.parquet"))])
    table = table.slice(0, most) if most else table
    columns = arrays(table.select(["image", "label"]))
    shaped = torch.from_numpy(columns["image"].astype(np.float32))[:, None]
    return (shaped / 255.0 - 0.2860) / 0.3530, torch.from_numpy(columns["label"].astype(np.int64))


class Trial:
    """A trial in plain PyTorch: `advance` trains to the next evaluation."""

    def __init__(self, config: dict[str, Any], size: Size) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(7)
        self.size, self.step = size, 0
        self.images, self.labels = rows("train")
        self.held_out = rows("test", size.validation)
        self.model: nn.Module = model(config["channels"], config["dropout"])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config["rate"], weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _factor(size.steps))
        self.order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(7))

    def wrap(self, how: Callable[[nn.Module], nn.Module]) -> None:
        """In what makes it a distributed one."""
        self.model = how(self.model)

    def advance(self) -> dict[str, float]:
        """Up to the next evaluation; its metrics."""
        self.model.train()
        for _ in range(self.size.first):
            first = self.step * self.size.batch % (len(self.order) - self.size.batch)
            chosen = self.order[first : first + self.size.batch]
            self.optimizer.zero_grad()
            functional.cross_entropy(self.model(self.images[chosen]), self.labels[chosen]).backward()
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
        return {"step": self.step, **self.evaluate()}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        self.model.eval()
        images, labels = self.held_out
        scores = torch.cat([self.model(part) for part in images.split(250)])
        right = (scores.argmax(1) == labels).float().mean()
        return {"accuracy": float(right), "loss": float(functional.cross_entropy(scores, labels))}

    def evaluations(self) -> Iterator[dict[str, float]]:
        """All the way."""
        while self.step < self.size.steps:
            yield self.advance()

    def state(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return {"step": self.step, **{name: part.state_dict() for name, part in parts.items()}}

    def load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])


def _factor(steps: int, warmup: int = 10) -> Callable[[int], float]:
    """Cosine after a warm-up."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup))))

    return factor
