"""Runs that were trained in this process, without Ray and without a driver: a folder with all that a run has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headway import plan, runs
from headway.carried import code
from headway.checkpoint.store import Store
from headway.data.read.streams import open_readers
from headway.data.write.writer import write_dataset
from headway.elastic.worker import context as contexts
from headway.elastic.worker import main as worker
from headway.elastic.worker.context import Context
from headway.elastic.worker.journal import Journal
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.job import Job, parse
from headway.runs import RunFolder

TASK = """
import headway, headway.metrics, numpy as np, torch
from torch import nn


class Points(headway.Task):
    def __init__(self, width=8):
        self.width = width

    def transform(self, table, random, training):
        x = np.stack([table["a"].to_numpy(), table["b"].to_numpy()], 1).astype(np.float32)
        return {"x": x, "y": table["y"].to_numpy().astype(np.int64)}

    def model(self):
        return nn.Sequential(nn.Linear(2, self.width), nn.BatchNorm1d(self.width), nn.ReLU(), nn.Linear(self.width, 2))

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def metrics(self, model, batch):
        scores = model(batch["x"])
        return {"loss": self.loss(model, batch), "accuracy": (scores.argmax(1) == batch["y"]).float().mean()}

    def predict(self, model, batch):
        scores = model(batch["x"]).softmax(1)
        return {"class": scores.argmax(1), "scores": scores}
"""


def points(folder: Path) -> Path:
    """Datasets `train` and `val` for it: whether two numbers add up to more than nothing."""
    chance = np.random.default_rng(0)
    for name, rows in (("train", 64), ("val", 24)):
        x = chance.normal(size=(rows, 2))
        columns = {"a": x[:, 0], "b": x[:, 1], "y": (x.sum(1) > 0).astype(np.int64)}
        write_dataset(folder / name, [pa.table(columns)], name=name, source="made", label="y")
    return folder


class _Unheard(Journal):
    """Nobody hears of it."""

    def _begin(self) -> None:
        pass

    def settle(self, patience_s: float | None = None) -> bool:
        return True

    def allows(self, step: int) -> bool:
        return True


def trained(folder: Path, task: str, data: Path, name: str = "r", validation: bool = True, **fields: Any) -> RunFolder:
    """A run that has come to its end.

    Args:
        folder: to work in; the run is in its `runs`.
        task: text of the task's file, with a class `Points`.
        data: has datasets `train` and `val`.
        fields: of the job, beside the usual ones.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "points.py").write_text(task)
    sets = {"train": str(data / "train"), **({"validation": str(data / "val")} if validation else {})}
    checkpoint = {"every_steps": 2, "keep_last": 100}
    tree = {"name": name, "task": f"{home}/points.py:Points", "data": sets, "lanes": 4, "lane_batch": 4, "steps": 8}
    tree |= {"checkpoint": checkpoint, "evaluate_every_steps": 2, "seed": 3, "tracking": {"enabled": False}}
    job = parse({**tree, **fields})
    run = runs.create(folder / "runs", name, job)
    checked = plan.check(job)
    code.carry(checked.source, run.code, checked.cargo)
    train(run, job, checked)
    return run


def train(run: RunFolder, job: Job, checked: plan.Plan) -> None:
    """Train it as one worker alone would."""
    reader, validation = open_readers(job)
    journal = _Unheard(None, "alone")
    store = Store(run.checkpoint_root, checked.digest, job.checkpoint)
    saver, members = Saver(store, job.checkpoint, journal), Alone(job.lanes)
    context = Context(job, "cpu", reader, validation, saver, journal, run.name, members)
    context.save_at = frozenset(range(0, 1000, job.checkpoint.every_steps or 1000))  # none is left out for another
    contexts.enter(context)
    try:
        worker.run(job, code.load(code.kept(job.task, run.code)))
        context.saver.finish()
    finally:
        contexts.enter(None)
        context.saver.close()
        context.close()
