"""The job's datasets as lane streams."""

from __future__ import annotations

from pathlib import Path

from headway.core.order import Order
from headway.data.manifest import Manifest, load
from headway.data.stream import Streams
from headway.job import Job


def train_order(job: Job, manifest: Manifest) -> Order:
    """The walk over the training set."""
    return Order(manifest.groups, job.seed, job.lanes, job.lane_batch, job.data.window, job.data.shuffle)


def validation_order(job: Job, manifest: Manifest) -> Order:
    """The walk over the validation set: as stored, each lane a part."""
    batch = job.data.eval_batch or job.lane_batch
    return Order(manifest.groups, job.seed, job.lanes, batch, job.data.window, shuffle=False)


def open_streams(job: Job) -> tuple[Streams, Streams | None]:
    """Streams over the job's training set and, if it has one, validation set."""
    folder = Path(job.data.train)
    manifest = load(folder)
    train = Streams(folder, manifest, train_order(job, manifest), job.data.columns)
    if job.data.validation is None:
        return train, None
    folder = Path(job.data.validation)
    manifest = load(folder)
    return train, Streams(folder, manifest, validation_order(job, manifest), job.data.columns)
