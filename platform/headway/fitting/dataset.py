"""The training set as a task's `fit` sees it. Its questions are named as Ray Data's, where that has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.core import moments
from headway.core.moments import Moments
from headway.data.arrays import array_of
from headway.data.tensors import TensorType
from headway.errors import BadData, BadInput, nearest

BATCH_ROWS = 256
"""As Ray Data has it."""
DAY_US = 86_400e6
Of = TypeVar("Of")
Batch = dict[str, np.ndarray[Any, Any]]


class Pieces(Protocol):
    """Rows, cut into pieces; picklable. The cuts are part of the data: what is counted is put together along them."""

    @property
    def rows(self) -> int:
        """Of all pieces; some may be set aside as bad when they are read."""

    @property
    def schema(self) -> pa.Schema:
        """Of every piece."""

    def __len__(self) -> int: ...

    def table(self, number: int, columns: Sequence[str] | None) -> pa.Table:
        """A piece's rows in order; columns: of these names alone."""


Question = Callable[[pa.Table], Of]
Ask = Callable[[Pieces, "Sequence[str] | None", Question[Any]], Iterator[Any]]
"""Asks every piece something, of some columns or all; answers in the pieces' order."""


def here(pieces: Pieces, columns: Sequence[str] | None, question: Question[Of]) -> Iterator[Of]:
    """Ask piece after piece, in this process."""
    for number in range(len(pieces)):
        yield question(pieces.table(number, columns))


class Dataset:
    """The training set: all of its rows in the order stored, whatever the job samples or shuffles; of a mixture, part
    after part. Nulls and NaN count nowhere but in `iter_batches` and `count`. For one thread.

    What is asked gives the same bits in one process and as a Ray Data job on any cluster: each row group is counted by
    itself, and these are put together in their order.

    Args:
        pieces: the rows.
        ask: how they are asked.
    """

    def __init__(self, pieces: Pieces, ask: Ask = here) -> None:
        self._pieces, self._ask = pieces, ask
        self._numbers: dict[str, Moments] = {}
        self._ends: dict[str, tuple[Any, Any]] = {}
        self._counts: dict[str, dict[Any, int]] = {}

    def __repr__(self) -> str:
        return f"Dataset({self._pieces.rows:,} rows: {', '.join(self.columns())})"

    def count(self) -> int:
        """Rows."""
        return self._pieces.rows

    def columns(self) -> list[str]:
        """Their names."""
        return list(self._pieces.schema.names)

    def schema(self) -> pa.Schema:
        """Their names and types."""
        return self._pieces.schema

    def mean(self, column: str) -> float | None:
        """Of a column of numbers or booleans, or of dates in days since 1970; None where it has none.

        Raises:
            BadInput: of another column.
        """
        found = self._moments(column)
        return found.mean if found.count else None

    def std(self, column: str, ddof: int = 1) -> float | None:
        """The standard deviation, of too few None; else as `mean`. ddof: what is taken from the count of the rows."""
        return self._moments(column).std(ddof)

    def min(self, column: str) -> Any:
        """The least value of a column of numbers, dates or text; None where it has none."""
        return self._extremes(column)[0]

    def max(self, column: str) -> Any:
        """The greatest, as `min`."""
        return self._extremes(column)[1]

    def unique(self, column: str) -> list[Any]:
        """The values of a column of text, numbers or dates that occur, in their own order (Ray Data's: in none)."""
        return sorted(self.value_counts(column))

    def value_counts(self, column: str) -> dict[Any, int]:
        """How often each value occurs, the most frequent first, equally frequent ones in their own order."""
        if column not in self._counts:
            kind = self._kind(column)
            if _is_nested(kind):
                raise _refused("value_counts", column, kind, "Count what you need of it in iter_batches().")
            found: Counter[Any] = Counter()
            for counts in self._ask(self._pieces, [column], partial(_counts, column)):
                found.update(counts)
            self._counts[column] = dict(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))
        return dict(self._counts[column])

    def iter_batches(
        self,
        *,
        batch_size: int | None = BATCH_ROWS,
        batch_format: Literal["numpy", "pyarrow", "pandas"] = "numpy",
        columns: Sequence[str] | None = None,
    ) -> Iterator[Any]:
        """All rows in their order, as dicts of NumPy arrays by column, Arrow tables or pandas frames.

        Args:
            batch_size: rows of each but the last; None: row groups as they are stored.
            columns: to read; all when not given.
        """
        for column in columns or ():
            self._kind(column)
        if batch_format not in _FORMATS:
            remedy = nearest(str(batch_format), list(_FORMATS))
            raise BadInput(f"iter_batches(batch_format={batch_format!r})", "there is no such format", remedy)
        if batch_size is not None and batch_size < 1:
            raise BadInput(f"iter_batches(batch_size={batch_size})", "a batch has a row or more", "Give 1 or more.")
        tables = self._ask(self._pieces, columns, _itself)
        for table in tables if batch_size is None else _cut(tables, batch_size):
            if table.num_rows:
                yield _FORMATS[batch_format](table)

    def _kind(self, column: str) -> pa.DataType:
        schema = self._pieces.schema
        if column not in schema.names:
            reason = "the training set has no such column"
            raise BadInput(f"fit() asks for column {column!r}", reason, nearest(str(column), list(schema.names)))
        return schema.field(column).type

    def _moments(self, column: str) -> Moments:
        if column not in self._numbers:
            kind = self._kind(column)
            if not _has_mean(kind):
                raise _refused(
                    "mean and std", column, kind, "They are of numbers; see value_counts() and iter_batches()."
                )
            # Reading is the dear part: who asks for one column's mean asks for the next one's soon.
            alike = [field.name for field in self._pieces.schema if _has_mean(field.type)]
            answers = list(self._ask(self._pieces, alike, partial(_moments, alike)))
            for number, name in enumerate(alike):
                self._numbers[name] = moments.merged(answer[number] for answer in answers)
        return self._numbers[column]

    def _extremes(self, column: str) -> tuple[Any, Any]:
        if column not in self._ends:
            kind = self._kind(column)
            if _is_nested(kind):
                raise _refused("min and max", column, kind, "They are of numbers, dates and text.")
            found = list(self._ask(self._pieces, [column], partial(_extremes, column)))
            least = [low for low, _ in found if low is not None]
            most = [high for _, high in found if high is not None]
            self._ends[column] = (min(least, default=None), max(most, default=None))
        return self._ends[column]


def _refused(what: str, column: str, kind: pa.DataType, remedy: str) -> BadInput:
    return BadInput(f"fit() asks for {what} of column {column!r}", f"it is {kind}", remedy)


def _has_mean(kind: pa.DataType) -> bool:
    types = pa.types
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
    return bool(number or types.is_date(kind) or types.is_timestamp(kind))


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind)) or isinstance(kind, TensorType | pa.BaseExtensionType)


def _there(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without nulls and NaN."""
    column = column.drop_null()
    if pa.types.is_floating(column.type):
        column = column.filter(pc.invert(pc.is_nan(column)))
    return column


# Asked where the pieces are read; picklable by name


def _itself(table: pa.Table) -> pa.Table:
    return table


def _moments(columns: Sequence[str], table: pa.Table) -> list[Moments]:
    found = []
    for name in columns:
        numbers = _there(table[name])
        found.append(moments.of(_floats(numbers)))
    return found


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        found: np.ndarray[Any, Any] = pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64()).to_numpy()
        return found / DAY_US
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.uint8())
    return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), np.float64)


def _extremes(column: str, table: pa.Table) -> tuple[Any, Any]:
    found = pc.min_max(_there(table[column]))
    return found["min"].as_py(), found["max"].as_py()


def _counts(column: str, table: pa.Table) -> dict[Any, int]:
    found = pc.value_counts(_there(table[column]))
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


# Batches


def _cut(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Tables of so many rows, the last one with what is left."""
    waiting: list[pa.Table] = []
    there = 0
    for table in tables:
        waiting.append(table)
        there += table.num_rows
        if there < rows:
            continue
        whole = pa.concat_tables(waiting)
        for at in range(0, there - rows + 1, rows):
            yield whole.slice(at, rows)
        there %= rows
        waiting = [whole.slice(whole.num_rows - there)] if there else []
    if there:
        yield pa.concat_tables(waiting)


def _numpy(table: pa.Table) -> Batch:
    """Numbers without nulls, lists of one length and tensors as in training; else as Arrow gives them, text and dates
    as objects."""
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            found[name] = array_of(name, column)
        except BadData:
            found[name] = column.to_numpy()
    return found


_FORMATS: dict[str, Callable[[pa.Table], Any]] = {
    "numpy": _numpy,
    "pyarrow": _itself,
    "pandas": lambda table: table.to_pandas(),
}
