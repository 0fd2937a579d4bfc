"""The job's datasets as walks, and what reads them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headway.carried import code, fitted
from headway.core.indices import Indices
from headway.core.keys import key
from headway.core.mixture import Mixture
from headway.core.order import Order
from headway.data.manifest import Manifest, load
from headway.data.own.ordering import train_walk, validation_walk
from headway.data.own.reader import RowReader
from headway.data.own.stream_reader import StreamReader
from headway.data.own.streams import Stream
from headway.data.own.taking import Own
from headway.data.read.direct import DirectReader
from headway.data.read.groups import PATIENCE_S, Groups
from headway.data.read.quarantine import Quarantine, report_nothing
from headway.data.read.ray_reader import RayReader
from headway.data.read.reader import Collate, OnQuarantine, Reader, Transform
from headway.data.sampling.weights import check_classes, sampling
from headway.data.store.cache import open_files
from headway.data.store.files import Files
from headway.errors import BadInput
from headway.job import Job
from headway.task import Task


def train_order(job: Job, sources: Sequence[Files]) -> Order | Mixture:
    """The walk over the training set: that of one dataset, or of the mixture of several.

    Args:
        job: to be followed.
        sources: files of each of `job.data.sources`; read only where a sampling needs a column.

    Raises:
        BadInput: the sampling or the mixture does not fit the data; names the key.
        BadData: a column that is needed has nulls or cannot be read.
    """
    data, asked = job.data, job.data.sampling
    if asked.bucket is not None and not data.shuffle:
        remedy = "Set data.shuffle to true, or leave the bucket out."
        raise BadInput(f"data.sampling.bucket={asked.bucket}", "rows in the order stored are not sorted", remedy)
    if asked.rows is not None and len(sources) > 1:
        remedy = "Say with data.mixture_epoch how many rows an epoch has."
        raise BadInput(f"data.sampling.rows={asked.rows}", "the training set is a mixture", remedy)
    check_classes(asked, sources)
    single = len(sources) == 1 and not isinstance(data.mixture_epoch, int)
    orders = []
    for number, files in enumerate(sources):
        seed = job.seed if single else key("source", job.seed, number)
        cut = (job.lanes, job.lane_batch, data.window, data.shuffle)
        orders.append(Order(files.manifest.groups, seed, *cut, sampling(asked, files)))
    return orders[0] if single else _mixture(job, tuple(orders))


def _mixture(job: Job, orders: tuple[Order, ...]) -> Mixture:
    for number, order in enumerate(orders):
        if order.rows < order.lanes:
            fact = f"data.train[{number}] has {order.rows} rows"
            reason = f"each of the {order.lanes} lanes takes some of every part of a mixture"
            raise BadInput(fact, reason, f"Set lanes to {order.rows} or fewer, or leave that part out.")
    weights = tuple(source.weight for source in job.data.sources)
    return Mixture(orders, weights, job.seed, job.data.mixture_epoch, job.data.shuffle)


def validation_order(job: Job, manifest: Manifest) -> Order:
    """The walk over the validation set: as stored, each lane a part."""
    batch = job.data.eval_batch or job.lane_batch
    return Order(manifest.groups, job.seed, job.lanes, batch, job.data.window, shuffle=False)


@dataclass(frozen=True)
class Elsewhere:
    """Makes the direct reader of a job's training set on another node.

    Args:
        job: its plain values.
        source: of the task, as workers get it.
        given: variables of the environment that the run was started from.
    """

    job: dict[str, Any]
    source: code.Source
    given: dict[str, str] = field(default_factory=dict, repr=False)

    def __call__(self, report: OnQuarantine) -> Reader:
        import torch

        os.environ.update(self.given)
        job = Job.model_validate(self.job)
        alone = job.model_copy(update={"data": job.data.model_copy(update={"validation": None})})
        reader, _ = open_readers(alone, report)
        torch.manual_seed(job.seed)  # as in the workers: a task may draw what its transform uses
        found = code.load(self.source)
        transform = transform_of(fitted.make(found, job, self.source)) if inspect.isclass(found) else None
        reader.use(transform)
        return reader


def collate_of(task: Any) -> Collate | None:
    """The task's own way of putting rows of the user's own datasets together, if it has one."""
    return task.collate if type(task).collate is not Task.collate else None


def transform_of(task: Any) -> Transform | None:
    """The task's own way of turning rows into arrays, if it has one."""
    return task.transform if type(task).transform is not Task.transform else None


def open_readers(
    job: Job,
    report: OnQuarantine | None = None,
    device: str = "cpu",
    patience_s: float = PATIENCE_S,
    elsewhere: Elsewhere | None = None,
    own: Mapping[str, Own] | None = None,
    beside: bool = True,
) -> tuple[Reader, Reader | None]:
    """Readers of the job's training set and, if it has one, validation set.

    Args:
        job: to be followed.
        report: is told of what is set aside.
        device: of the training.
        patience_s: for how long reading is tried again while it fails.
        elsewhere: makes what Ray Data reads with, where the job says so; None reads here all the same.
        own: the job's datasets that the user's code gives, see `headway.data.own.opening`.
        beside: their rows may be read in other processes, where that takes long.

    Raises:
        BadInput, BadData: as `train_order`, and for what cannot be opened.
    """
    data = job.data

    def quarantine(use: str, rows: int) -> Quarantine | None:
        if data.on_bad_data != "quarantine":
            return None
        return Quarantine(use, rows, data.quarantine_limit, report or report_nothing)

    def groups(use: str, path: str, version: int | None) -> Groups:
        files = open_files(path, load(path, version, data.store), data)
        aside = quarantine(use, files.manifest.rows)
        return Groups(files, data.columns, data.no_nulls, data.check_digests, aside, patience_s)

    def rows_of(use: str, given: Own, order: Indices, steps: int | None) -> Reader:
        if isinstance(given, Stream):
            return StreamReader(given, order, f"data.{use}", job.seed)
        return RowReader(
            given,
            order,
            f"data.{use}",
            seed=job.seed,
            training=steps is not None,
            processes=data.read_threads if beside else 0,
            prefetch=data.prefetch,
            steps=steps,
            pin=device != "cpu",
            quarantine=quarantine(f"data.{use}", len(given)),
        )

    def reader(groups: Sequence[Groups], order: Order | Mixture, steps: int | None) -> DirectReader:
        return DirectReader(
            groups,
            order,
            seed=job.seed,
            training=steps is not None,
            threads=data.read_threads,
            prefetch=data.prefetch,
            steps=steps,
            pin=device != "cpu",
        )

    own = own or {}
    train: Reader
    if "train" in own:
        mine = own["train"]
        stream = isinstance(mine, Stream)
        walk = train_walk(job, 0 if isinstance(mine, Stream) else len(mine), stream)
        train = rows_of("train", mine, walk, job.steps or (job.epochs or 0) * walk.steps_per_epoch)
    else:
        train = _stored(job, groups, reader, report, elsewhere)
    if "validation" in own:
        held = own["validation"]
        assert not isinstance(held, Stream)
        return train, rows_of("validation", held, validation_walk(job, len(held)), None)
    if data.validation is None:
        return train, None
    held_out = groups("data.validation", data.validation, data.validation_version)
    return train, reader([held_out], validation_order(job, held_out.files.manifest), None)


def _stored(
    job: Job,
    groups: Callable[[str, str, int | None], Groups],
    reader: Callable[[Sequence[Groups], Order | Mixture, int | None], DirectReader],
    report: OnQuarantine | None,
    elsewhere: Elsewhere | None,
) -> Reader:
    """A reader of a training set that lies in folders. groups and reader: open one, and read it."""
    data = job.data
    single = isinstance(data.train, str)
    uses = ["data.train"] if single else [f"data.train[{number}]" for number in range(len(data.sources))]
    sources = [groups(use, part.path, part.version) for use, part in zip(uses, data.sources, strict=True)]
    order = train_order(job, [part.files for part in sources])
    steps = job.steps or (job.epochs or 0) * order.steps_per_epoch
    here = reader(sources, order, steps)
    if data.reader == "ray" and elsewhere is not None:
        return RayReader(here, elsewhere, steps, data.prefetch, report or report_nothing)
    return here
