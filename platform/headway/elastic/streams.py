"""The job's datasets as walks, and as lane streams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headway.core.keys import key
from headway.core.mixture import Mixture, Walk
from headway.core.order import Order
from headway.data.files import Files, LocalFiles
from headway.data.manifest import Manifest, load
from headway.data.mixed import MixedStreams
from headway.data.stream import Streams
from headway.data.weights import check_classes, sampling
from headway.errors import BadInput
from headway.job import Job


def train_order(job: Job, sources: Sequence[Files]) -> Walk:
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


def open_streams(job: Job) -> tuple[Streams | MixedStreams, Streams | None]:
    """Streams over the job's training set and, if it has one, validation set."""
    data = job.data
    manifests = [load(Path(source.path), source.version) for source in data.sources]
    folders = [Path(source.path) for source in data.sources]
    sources = [LocalFiles(folder, manifest) for folder, manifest in zip(folders, manifests, strict=True)]
    walk = train_order(job, sources)
    orders = walk.orders if isinstance(walk, Mixture) else (walk,)
    parts = [Streams(*part, data.columns) for part in zip(folders, manifests, orders, strict=True)]
    train = MixedStreams(walk, parts) if isinstance(walk, Mixture) else parts[0]
    if data.validation is None:
        return train, None
    folder = Path(data.validation)
    manifest = load(folder, data.validation_version)
    return train, Streams(folder, manifest, validation_order(job, manifest), data.columns)
