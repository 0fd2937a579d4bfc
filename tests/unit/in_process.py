"""A task, its data and the job, for runs in the calling process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import headway
from headway.driver.in_process import ADDRESS
from headway.report import Report

Tree = dict[str, Any]
STEPS = 20
TASK = """
import headway, os, sys, torch
from torch import nn

{top}

class Small(headway.Task):
    def __init__(self):
        self.calls = 0

    def model(self):
        {model}

    def loss(self, model, batch):
        self.calls += 1
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        {then}
        return loss

    def metrics(self, model, batch):
        return {{"accuracy": (model(batch["x"]).argmax(1) == batch["y"]).double().mean()}}

def loop(hidden=8):
    model = nn.Sequential(nn.Linear(4, hidden), nn.Dropout(0.2), nn.Linear(hidden, 2))
    with headway.session(model, torch.optim.SGD(model.parameters(), lr=0.05)) as session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(nn.functional.cross_entropy(model(batch["x"]), batch["y"]))
"""
MODEL = "return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2))"


class Ground:
    """Where a job and its runs are."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data, self.runs = folder, data, folder / "runs"

    def job(
        self, then: str = "", model: str = MODEL, top: str = "", name: str = "Small", **more: Any
    ) -> dict[str, Any]:
        (self.folder / "task.py").write_text(TASK.format(then=then or "pass", model=model, top=top))
        workers = {"min": 1, "max": 3, **more.pop("workers", {})}
        return {
            "name": "small",
            "task": f"{self.folder / 'task.py'}:{name}",
            "data": {"train": str(self.data / "train"), "validation": str(self.data / "val")},
            "lanes": 4,
            "lane_batch": 4,
            "steps": STEPS,
            "optimizer": {"name": "adam", "lr": 0.01},
            "reproducible": "bitwise",
            "evaluate_every_steps": 10,
            "checkpoint": {"every_steps": 5, "keep_last": 20},
            "tracking": {"enabled": False},
            "workers": workers,
            **more,
        }

    def train(self, job: dict[str, Any], **more: Any) -> Report:
        return headway.train(job, runs_folder=self.runs, address=ADDRESS, **more)

    def resume(self, name: str, **more: Any) -> Report:
        return headway.resume(name, runs_folder=self.runs, address=ADDRESS, **more)

    def file(self, job: dict[str, Any]) -> Path:
        path = self.folder / "job.yaml"
        path.write_text(json.dumps(job))
        return path


def command(*words: str) -> list[str]:
    """The command line, in this Python."""
    return [sys.executable, "-c", "from headway.cli.app import main; main()", *words]
