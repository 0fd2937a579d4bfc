"""What of a job goes with datasets of the user's own, and the walk over one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headway.core.indices import Indices
from headway.core.sampling import Sampling
from headway.data.own import naming
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.job import Job


def train_walk(job: Job, rows: int, stream: bool = False) -> Indices:
    """The walk over the training set.

    Args:
        job: to be followed.
        rows: of it.
        stream: it has no number of rows.

    Raises:
        BadInput: more rows are drawn than there are.
    """
    if stream:
        return Indices((job.steps or 0) * job.global_batch, job.seed, job.lanes, job.lane_batch, shuffle=False)
    asked = job.data.sampling
    if asked.rows is not None and not asked.replacement and asked.rows > rows:
        raise BadInput(
            f"data.sampling.rows={asked.rows}",
            f"there are {rows} rows, and none is drawn twice",
            f"Set it to {rows} or fewer, or replacement to true.",
        )
    sampling = None if asked.rows is None else Sampling(rows=asked.rows, replacement=asked.replacement)
    return Indices(rows, job.seed, job.lanes, job.lane_batch, job.data.shuffle, sampling)


def validation_walk(job: Job, rows: int) -> Indices:
    """The walk over the validation set: as numbered, each lane a part."""
    batch = job.data.eval_batch or job.lane_batch
    return Indices(rows, job.seed, job.lanes, batch, shuffle=False)


def refuse(job: Job) -> None:
    """Raises BadInput: naming the keys of the job that say something which cannot be of such a dataset."""
    names = naming.named(job)
    for use, text in names.items():
        if "[" in use:
            raise BadInput(
                f"data.{use}={text.rpartition('/')[2]} is given by code",
                "a mixture is of folders",
                "Mix them in the dataset itself (torch.utils.data.ConcatDataset, say), or prepare them as folders.",
            )
    if "train" in names:
        found = list(_strange(job))
        if found:
            raise BadInput(
                f"{', '.join(found)}: data.train={names['train'].rpartition('/')[2]} is given by code",
                "these are of columns of Parquet, and such a dataset has none",
                "Do it in the dataset, or prepare the rows with `headway data prepare`, and name that folder.",
            )


def _strange(job: Job) -> Iterator[str]:
    data = job.data
    sampling = data.sampling
    if data.reader == "ray":
        yield "data.reader=ray"
    if sampling.by is not None:
        yield f"data.sampling.by={sampling.by}"
    if sampling.weights != "uniform":
        yield "data.sampling.weights"
    if sampling.stratify:
        yield "data.sampling.stratify"
    if sampling.bucket is not None:
        yield f"data.sampling.bucket={sampling.bucket}"
    if (data.columns is not None and "validation" in naming.named(job)) or (
        data.columns is not None and data.validation is None
    ):
        yield "data.columns"
    if data.no_nulls:
        yield "data.no_nulls"
    if data.version is not None and data.version:
        yield f"data.version={data.version}"
