"""The few rows that a task is tried on, as the batches that workers would make of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from headway.core.mixture import Walk
from headway.core.order import Order
from headway.data.own.taking import Own
from headway.data.read.reader import Batch, Collate, Reader, Transform
from headway.data.read.streams import open_readers
from headway.job import Job, Sampling

ROWS = 4
"""Of a batch; two at least, for batch norm."""
PARTS = 8
"""Of a mixture, of which rows are looked at."""

Batches = tuple[list[Batch], Batch | None]
"""Those that are trained on, a lane each; and one of the validation set."""


def few(
    job: Job, transform: Transform | None, collate: Collate | None = None, own: Mapping[str, Own] | None = None
) -> Batches:
    """Batches of the first rows as they are stored: of every part of the training set, and of the validation set.

    Args:
        job: to be followed.
        transform: the task's.
        collate: the task's.
        own: the job's datasets that the user's code gives.

    Raises:
        BadData: naming the column that cannot become a tensor.
        Exception: of the transform.
    """
    found: list[Batch] = []
    held_out = None
    for number, part in enumerate(job.data.sources[:PARTS]):
        with ExitStack() as opened:
            small = _small(job, part.path, part.version, number == 0)
            train, validation = _opened(opened, small, transform, collate, own)
            steps = train.order.steps_per_epoch if len(job.data.sources) == 1 else 1
            found += [train.batch(0, step, 0) for step in range(min(steps, 2, job.lanes))]
            if validation is not None:
                held_out = validation.batch(0, 0, 0)
    found = [batch for batch in found if len(batch.ids)]  # rows may be set aside
    if len(found) > 1 and len(found[-1].ids) == 1 < job.lane_batch:
        found.pop()
    return found, held_out if held_out is not None and len(held_out.ids) else None


def first(
    job: Job, transform: Transform | None, collate: Collate | None = None, own: Mapping[str, Own] | None = None
) -> Batches:
    """The run's own first batches, of two lanes; as `few` otherwise."""
    with ExitStack() as opened:
        small = job.model_copy(update={"steps": 1, "epochs": None})
        train, validation = _opened(opened, small, transform, collate, own)
        found = _with_rows(train, 2)
        held_out = _with_rows(validation, 1) if validation is not None else []
    return found, held_out[0] if held_out else None


def _with_rows(reader: Reader, count: int) -> list[Batch]:
    lanes = [lane for lane, size in enumerate(reader.order.sizes(0)) if size]
    batches = (reader.batch(0, 0, lane) for lane in lanes)
    return [batch for batch in batches if len(batch.ids)][:count] if count > 1 else [next(batches)] if lanes else []


def _opened(
    opened: ExitStack,
    job: Job,
    transform: Transform | None,
    collate: Collate | None,
    own: Mapping[str, Own] | None,
) -> tuple[Reader, Reader | None]:
    train, validation = open_readers(job, own=own, beside=False)
    for reader in (train, validation):
        if reader is not None:
            opened.callback(reader.close)
            reader.use(transform, collate)
    return train, validation


def _small(job: Job, path: str, version: int | None, validated: bool) -> Job:
    rows = min(job.lane_batch, ROWS)
    data: dict[str, Any] = {"train": path, "version": version, "mixture_epoch": "largest", "sampling": Sampling()}
    data |= {"shuffle": False, "window": 1, "eval_batch": rows, "prefetch": 1, "read_threads": 1}
    if not validated:
        data["validation"] = None
    small = {"lanes": 1, "lane_batch": rows, "steps": 1, "epochs": None}
    return job.model_copy(update={**small, "data": job.data.model_copy(update=data)})


class Shown:
    """A `Reader` of batches that are there already: each is a lane's, at every step.

    Args:
        batches: of the lanes.
        seed: of the job.
    """

    def __init__(self, batches: Sequence[Batch], seed: int) -> None:
        self._batches = batches
        rows = max(len(batch.ids) for batch in batches)
        self.order: Walk = Order((rows * len(batches),), seed, len(batches), rows, window=1, shuffle=False)

    def use(self, transform: Transform | None, collate: Collate | None = None) -> None:
        pass

    def carry(self, lanes: Sequence[int], step: int) -> None:
        pass

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        found = self._batches[lane]
        return Batch(copy.deepcopy(found.arrays), found.ids, found.own)

    def close(self) -> None:
        pass
