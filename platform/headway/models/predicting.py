"""From rows to predictions: the task's transform, its model, its `predict`, and what that gives as columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from headway.core.keys import key
from headway.data.arrays import arrays
from headway.data.read.reader import generator
from headway.data.read.streams import transform_of
from headway.elastic.worker import batches, update
from headway.errors import BadInput, HeadwayError, UserCodeFailed
from headway.faults import blame
from headway.job import Job
from headway.models.calling import called
from headway.models.columns import Columns, fitted, missing
from headway.task import Task

BATCH_BYTES = 1 << 20
_WIDENED = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
"""What NumPy has not becomes float32."""
MOST_ROWS = 1024


@dataclass(frozen=True)
class Predictor:
    """A model that is used on rows.

    Args:
        model: in evaluation mode, on its device.
        task: that it was trained by.
        job: of the run.
        columns: that training saw.
        whence: the rows come, for errors.
        rows: in a batch.
        labelled: the rows are to have their label; else one is made up where they have none.
    """

    model: nn.Module
    task: Task
    job: Job
    columns: Columns
    whence: str
    rows: int
    labelled: bool = False

    def __call__(self, table: pa.Table, start: int = 0) -> pa.Table:
        """Predictions of a batch: a column for each entry of what `predict` gave.

        Args:
            table: its rows, as they come.
            start: number of the first, which a transform's random numbers follow.

        Raises:
            BadInput: the columns are not those of training, or `predict` gave something else than an entry per row.
            UserCodeFailed: the task raised.
        """
        return self.predicted(table, self.batch(table, start))

    def predicted(self, table: pa.Table, batch: dict[str, torch.Tensor]) -> pa.Table:
        """The same of a batch that was made of these rows."""
        with self.used(table):
            found = self.task.predict(self.model, batch)
        return columns_of(found, table.num_rows, type(self.task).__name__)

    @contextmanager
    def used(self, table: pa.Table) -> Iterator[None]:
        """While this lasts the task's code uses the model on these rows."""
        with self._asked(table), torch.inference_mode(), update.autocast(self.job.precision, self.device):
            yield

    def batch(self, table: pa.Table, start: int = 0) -> dict[str, torch.Tensor]:
        """The tensors that the model takes. Arguments and errors as above."""
        name = type(self.task).__name__
        given = fitted(table, self.columns, self.whence, not self.labelled)
        transform = transform_of(self.task)
        random = generator(self.job.seed, 0, start, 0, training=False)
        with self._asked(table):
            made: Any = arrays(given) if transform is None else transform(given, random, False)
        rows = table.num_rows
        if isinstance(made, dict) and any(len(each) != rows for each in made.values() if hasattr(each, "__len__")):
            sizes = ", ".join(f"{n}: {len(each)}" for n, each in made.items() if hasattr(each, "__len__"))
            raise BadInput(f"{name}.transform() gave {sizes} for {rows} rows", "a batch has an entry per row", "")
        return batches.tensors(made, rows, self.device)

    @property
    def device(self) -> torch.device:
        return next((p.device for p in (*self.model.parameters(), *self.model.buffers())), torch.device("cpu"))

    def _asked(self, table: pa.Table) -> _Asked:
        return _Asked(self, table)

    def over(self, tables: Iterable[pa.Table], start: int = 0) -> Iterator[tuple[pa.Table, int]]:
        """The tables cut into batches, each with the number of its first row."""
        left: pa.Table | None = None
        for table in tables:
            left = table if left is None or not left.num_rows else pa.concat_tables([left, table])
            at = 0
            while left.num_rows - at >= self.rows:
                yield left.slice(at, self.rows), start
                at, start = at + self.rows, start + self.rows
            left = left.slice(at)
        if left is not None and left.num_rows:
            yield left, start


class _Asked:
    """While this lasts the task's code runs; what it raises for want of a column is told so."""

    def __init__(self, predictor: Predictor, table: pa.Table) -> None:
        self._predictor, self._table = predictor, table
        self._called = called(f"{type(predictor.task).__name__}, as it was used on {predictor.whence}")

    def __enter__(self) -> None:
        self._called.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._called.__exit__(kind, error, trace)
        except UserCodeFailed as failed:
            raise self._lacking(failed) from error
        if isinstance(error, HeadwayError) and not isinstance(error, UserCodeFailed):
            found = self._lacking(error)
            if found is not error:
                raise found from None

    def _lacking(self, error: HeadwayError) -> HeadwayError:
        there = self._table.column_names
        lacking = missing(there, self._predictor.columns, self._predictor.labelled)
        if not lacking:
            return error
        names = ", ".join(map(repr, lacking))
        bad = BadInput(
            f"{self._predictor.whence} has no column {names}",
            f"the model was trained on it, and the task cannot do without: {blame.in_a_line(_said(error))}",
            f"It has: {', '.join(there)}.",
        )
        bad.traceback = error.traceback
        return bad


def _said(error: HeadwayError) -> str:
    return str(error.args[1]) if isinstance(error, UserCodeFailed) else str(error)


def batch_rows(job: Job, schema: pa.Schema, asked: int | None = None) -> int:
    """Rows of a batch: as asked for, else the job's, more of small rows."""
    if asked is not None:
        return asked
    width = sum(_width(kind) for kind in schema.types)
    return job.data.eval_batch or max(job.lane_batch, min(MOST_ROWS, BATCH_BYTES // max(1, width)))


def _width(kind: pa.DataType) -> int:
    """Bytes of a value, about."""
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    try:
        return max(1, int(storage.bit_width) // 8)
    except ValueError:
        return 64


def columns_of(found: Any, rows: int, task: str) -> pa.Table:
    """What `predict` gave, as columns.

    Raises:
        BadInput: it is no dict of names, or has not an entry per row.
    """
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        given = f"a {type(found).__name__}" if not isinstance(found, dict) else "no names" if not found else "odd names"
        raise BadInput(f"{task}.predict() returned {given}", "predictions have names", "Return a dict by name.")
    return pa.table({name: _column(name, value, rows, task) for name, value in found.items()})


def demand_alike(task: str, before: pa.Schema | None, found: pa.Schema) -> None:
    """Raises BadInput: a batch was given other names or types than one before it."""
    if before is None or found == before:
        return
    had, has = (", ".join(f"{entry.name} {entry.type}" for entry in schema) for schema in (before, found))
    raise BadInput(
        f"{task}.predict() gives {has} for one batch",
        f"it gave {had} for another",
        "Give the same names for all rows, and values of one type: floats where some are, tensors of one shape.",
    )


def _column(name: str, value: Any, rows: int, task: str) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu")
        value = (value.float() if value.dtype in _WIDENED else value).numpy()
    size = value.shape[0] if isinstance(value, np.ndarray) and value.ndim else None
    if size is None and isinstance(value, list | tuple):
        size = len(value)
    if size != rows:
        shape = f"shape {tuple(value.shape)}" if hasattr(value, "shape") else f"{size} entries" if size else "one value"
        raise BadInput(
            f"{task}.predict() returned {name!r} with {shape} for {rows} rows",
            "each prediction has one entry per row",
            "Return tensors whose first dimension is the row.",
        )
    try:
        return _arrow(value)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"{task}.predict() returned {name!r} of {type(value).__name__}", reason, "Return tensors or text."
        ) from None


def _arrow(value: Any) -> Any:
    """A column of an array, whose further dimensions become lists of fixed size."""
    if not isinstance(value, np.ndarray) or value.ndim == 1:
        made = pa.array(value)
        return made.cast(pa.string()) if pa.types.is_null(made.type) else made  # a batch whose texts are all missing
    made = pa.array(np.ascontiguousarray(value).reshape(-1))
    for size in reversed(value.shape[1:]):
        made = pa.FixedSizeListArray.from_arrays(made, int(size))
    return made


def seeded(job: Job, piece: int) -> None:
    """Set torch's generator as for the first row of a piece: a model that draws in evaluation too gives the same
    again."""
    torch.manual_seed(key("predict", job.seed, piece))
