"""The columns that a model was trained on, and rows that come with others."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from headway import plan
from headway.data import manifest as manifests
from headway.data.tensors import TensorType, column
from headway.errors import BadInput
from headway.job import Job
from headway.runs import RunFolder
from headway.storage.protocol import OutOfReach

_DECIMAL = re.compile(r"decimal128\((\d+), (-?\d+)\)")
_TENSOR = re.compile(r"tensor<(\w+)>(\[.*\])")


@dataclass(frozen=True)
class Columns:
    """What training saw.

    Args:
        types: by column, as Arrow names them, in order.
        label: the column that was predicted, if the dataset named one.
        value: one that it has; None where not known.
        categories: names behind integer codes, by column.
    """

    types: dict[str, str] = field(default_factory=dict)
    label: str | None = None
    value: str | None = None
    categories: dict[str, list[str]] = field(default_factory=dict)

    @property
    def arrow(self) -> dict[str, pa.DataType]:
        """The types, of columns whose type can be told by its name."""
        found = {name: arrow_type(kind) for name, kind in self.types.items()}
        return {name: kind for name, kind in found.items() if kind is not None}


def of_run(run: RunFolder, job: Job) -> Columns:
    """The columns of a run's training set: as the run has noted them, else as its dataset says, if that is there."""
    facts = run.read().get("columns")
    if facts:
        return Columns(**facts)
    source = job.data.sources[0]
    with suppress(BadInput, OutOfReach, OSError):
        return Columns(**plan.seen(job, manifests.load(source.path, source.version, job.data.store)))
    return Columns()


def arrow_type(name: str) -> pa.DataType | None:
    """The Arrow type of that name; None where it cannot be told by it."""
    tensor = _TENSOR.fullmatch(name)
    if tensor:
        return TensorType(tensor[1], tuple(json.loads(tensor[2])))
    decimal = _DECIMAL.fullmatch(name)
    if decimal:
        return pa.decimal128(int(decimal[1]), int(decimal[2]))
    try:
        return pa.type_for_alias(name)
    except ValueError:
        return None


def fitted(table: pa.Table, trained: Columns, whence: str, label: bool = True) -> pa.Table:
    """The columns that training saw, in its order and types; a label that is not there is made up.

    (Those that are missing are found out by the task: it may do without.)

    Args:
        table: rows as they come.
        trained: what training saw; where that is not known the table stays as it is.
        whence: it came, for errors.
        label: whether one may be made up.

    Raises:
        BadInput: a column's type differs, and its values cannot be taken for the other without loss.
    """
    if not trained.types:
        return table
    made, known = {}, trained.arrow
    for name in trained.types:
        if name in table.column_names:
            made[name] = _cast(table[name], known.get(name), name, whence)
        elif name == trained.label and label and name in known:
            made[name] = _placeholder(known[name], trained.value, table.num_rows)
    return pa.table(made) if made else table


def missing(names: Collection[str], trained: Columns, labelled: bool = False) -> list[str]:
    """Columns that training saw, and that are not among these; labelled: the label counts too."""
    return [name for name in trained.types if name not in names and (labelled or name != trained.label)]


def _cast(found: pa.ChunkedArray, kind: pa.DataType | None, name: str, whence: str) -> pa.ChunkedArray:
    if kind is None or found.type == kind:
        return found
    try:
        return found.cast(kind)
    except (pa.ArrowException, TypeError) as error:
        reason = f"it was {kind} in training ({str(error).splitlines()[0].rstrip('.')})"
        raise BadInput(f"column {name!r} of {whence} is {found.type}", reason, "Write it as it was there.") from None


def _placeholder(kind: pa.DataType, value: str | None, rows: int) -> Any:
    """A column of one value that the label has: transforms look it up."""
    if isinstance(kind, TensorType):
        return column(np.zeros((rows, *kind.shape), kind.dtype))
    return pa.repeat(_one(kind, value), rows)


@lru_cache(maxsize=16)
def _one(kind: pa.DataType, value: str | None) -> pa.Scalar:
    try:
        return pa.scalar(value or "0").cast(kind)
    except pa.ArrowException:
        return pa.scalar("0").cast(kind) if not pa.types.is_temporal(kind) else pa.scalar(0).cast(kind)


def shown(types: Mapping[str, str]) -> str:
    """Columns in a line."""
    return ", ".join(f"{name} {kind}" for name, kind in types.items())
