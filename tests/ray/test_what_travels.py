"""One run, whole: what was checked is what the workers get, with the files beside the task, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import yaml
from tests.ray.conftest import Command, make_dataset

from headway.job import load

pytestmark = pytest.mark.ray

TASK = """
import datetime
import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import headway
from data.classes import CLASSES
from net import head

SCALING = json.loads((Path(__file__).parent / "scaling.json").read_text())


class Rare(headway.Task):
    def __init__(self, weights, since, labels):
        labels.append("more")
        self.weights, self.since, self.labels = weights, since, labels

    def model(self):
        return nn.Sequential(nn.Flatten(), head(len(CLASSES)))

    def transform(self, table, random, training):
        with open("offset.txt") as file:  # from where the user stands
            offset = float(file.read())
        return {name: values + offset * 0 for name, values in super().transform(table, random, training).items()}

    def loss(self, model, batch):
        weights = torch.tensor([float(self.weights[label]) for label in range(4)])
        scores = model(batch["image"].float() / SCALING["high"])
        return functional.cross_entropy(scores, batch["label"].long(), weight=weights)

    def metrics(self, model, batch):
        found = {"weight_of_1": self.weights[1], "weight_of_text": self.weights["1"], "labels": len(self.labels)}
        return {**found, "year": self.since.year if type(self.since) is datetime.date else 0}
"""


def test_what_was_checked_is_what_runs(tmp_path: Path, headway: Callable[..., Command]) -> None:
    make_dataset(tmp_path / "sets" / "train", 64, 1)
    files = {
        "task.py": TASK,
        "scaling.json": '{"high": 255.0}',
        "offset.txt": "0",
        "data/classes.py": "CLASSES = 'abcd'",
        "elsewhere/net.py": "from torch import nn\ndef head(classes): return nn.Linear(64, classes)",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "net.py").symlink_to("elsewhere/net.py")
    arguments = {"weights": {0: 1.0, 1: 9.0, 2: 1.0, 3: 1.0, "1": 5.0}, "since": date(2024, 1, 31), "labels": ["a"]}
    tree = {
        "name": "rare",
        "task": "task.py:Rare",
        "arguments": arguments,
        "data": {"train": "sets/train", "validation": "sets/train"},
        "lanes": 2,
        "lane_batch": 16,
        "steps": 2,
        "tracking": {"enabled": False},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(tree))
    report = headway("train", "job.yaml", "--name", "r", "--json", "--set", 'arguments.weights."1"=6').report()
    assert report["metrics"] == {"weight_of_1": 9.0, "weight_of_text": 6.0, "labels": 2.0, "year": 2024.0}
    kept = load(tmp_path / "runs/r/job.yaml")
    assert kept.arguments == {**arguments, "weights": {**arguments["weights"], "1": 6}}  # type: ignore[dict-item]
    carried = {str(path.relative_to(tmp_path / "runs/r/code")) for path in (tmp_path / "runs/r/code").rglob("*.*")}
    assert {"task.py", "net.py", "scaling.json", "offset.txt", "data/classes.py"} <= carried
