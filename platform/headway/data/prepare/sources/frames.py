"""Tables that are in memory: pandas and Polars frames, Arrow tables, whatever gives an Arrow stream.

They are written into a Parquet file beside the destination, which is read like any other and removed in the end. So
workers on other machines must see the destination's folder.
"""

from __future__ import annotations

import datetime
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headway.data import kinds
from headway.data.write.sizing import GROUP_ROWS
from headway.errors import BadInput

GROUP_BYTES = 8 << 20


@dataclass(frozen=True)
class Frame:
    """A frame as Arrow has it.

    Args:
        table: its rows, in the types that are kept.
        name: what it was, for people.
        notes: what is not kept or was changed, in words.
    """

    table: pa.Table
    name: str
    notes: list[str]


def framed(source: Any) -> Frame:
    """What a frame or table holds.

    Raises:
        BadInput: it is neither, or has a column that no dataset can hold; names the column.
    """
    if _is_pandas(source):
        name = "a pandas frame"
        table, notes = _of_pandas(source)
    elif isinstance(source, pa.Table | pa.RecordBatch):
        table, notes = pa.table(source) if isinstance(source, pa.Table) else pa.Table.from_batches([source]), []
        name = "an Arrow table"
    elif hasattr(source, "__arrow_c_stream__"):
        name = f"a {type(source).__module__.partition('.')[0]} {type(source).__name__}"
        _check_polars(source)
        try:
            table, notes = pa.RecordBatchReader.from_stream(source).read_all(), []
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise BadInput(f"{name} is no table", reason, "Give a frame or an Arrow table.") from None
    else:
        what = f"{type(source).__module__}.{type(source).__qualname__}"
        remedy = "Give a path, a pandas or Polars frame, or an Arrow table"
        lazy = "; `.collect()` makes a frame of a lazy one." if "Lazy" in what else "."
        raise BadInput(f"prepare was given a {what}", "that is neither a path nor a table", remedy + lazy)
    return Frame(kinds.plain(table, name), name, notes + kinds.told(table.schema))


@contextmanager
def written(frame: Frame, destination: Path) -> Iterator[Path]:
    """A Parquet file of the frame in a hidden folder beside the destination, for as long as the block lasts.

    Raises:
        OSError: as the file system says.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    rows, size = frame.table.num_rows, frame.table.nbytes
    each = max(1, min(8 * GROUP_ROWS, GROUP_BYTES * rows // max(1, size)))
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", suffix=".frame", dir=destination.parent) as folder:
        path = Path(folder) / "frame.parquet"
        pq.write_table(frame.table, path, compression="zstd", row_group_size=each)
        yield path


def _is_pandas(source: object) -> bool:
    """Whether it is a pandas frame; imports no pandas."""
    names = [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(source).__mro__]
    return ("pandas", "DataFrame") in names


def _check_polars(source: Any) -> None:
    """Polars hands out its objects as addresses, and its widest integers in a way of its own."""
    if type(source).__module__.partition(".")[0] == "polars" and hasattr(source, "schema"):
        for name, kind in source.schema.items():
            if str(kind) in ("Object", "Int128", "UInt128"):
                fact = f"column {name!r} of a polars frame is {kind}, which no dataset can hold"
                raise BadInput(fact, "Arrow has no such type", "Cast it to numbers, decimals or text.")


def _mixed(column: Any) -> tuple[str, str] | None:
    """What Arrow would make one of in silence: cut times off, take times for those of a zone, text for bytes."""
    found = {(type(value), getattr(value, "tzinfo", None) is None) for value in column.dropna()}
    times = {naive for kind, naive in found if issubclass(kind, datetime.datetime)}
    kinds = {kind for kind, _ in found}
    if times and datetime.date in kinds:
        return "dates", "times of dates"
    if len(times) == 2:
        return "times with a zone", "times without one"
    if {str, bytes} <= kinds:
        return "text", "bytes"
    return ("durations", "numbers") if int in kinds and any(issubclass(k, datetime.timedelta) for k in kinds) else None


def _of_pandas(frame: Any) -> tuple[pa.Table, list[str]]:
    """As Arrow has it: NaN of plain pandas columns is null, as pandas means it."""
    import pandas as pd

    notes = []
    if frame.columns.nlevels > 1:
        reason = f"its columns have {frame.columns.nlevels} levels"
        raise BadInput("a pandas frame cannot be prepared", reason, "Give them names of one level each.")
    names = [str(name) for name in frame.columns]
    odd = next((name for name in frame.columns if not isinstance(name, str)), None)
    if odd is not None:
        notes.append(f"names of columns are kept as text, such as {odd!r}")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise BadInput(f"a pandas frame has two columns named {repeated!r}", "names must differ", "Rename one.")
    if not isinstance(frame.index, pd.RangeIndex):
        named = ", ".join(repr(name) for name in frame.index.names if name is not None)
        notes.append(f"the index{f' {named}' if named else ''} is not kept; `reset_index()` makes columns of it")
    columns = []
    for number, name in enumerate(names):
        column = frame.iloc[:, number]
        if isinstance(column.dtype, pd.SparseDtype):
            column = column.sparse.to_dense()
        mixed = _mixed(column) if column.dtype == object else None
        if mixed is not None:
            fact, reason = f"column {name!r} of a pandas frame is mixed", f"it holds {mixed[0]} and {mixed[1]}"
            raise BadInput(fact, reason, "Make its values of one type.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pandas warns of how pyarrow asks it for times of a zone
                found = pa.Array.from_pandas(column)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            reason = str(error.args[0] if error.args else error).splitlines()[0].rstrip(".")
            fact = f"column {name!r} of a pandas frame is {column.dtype}, which no dataset can hold"
            raise BadInput(fact, reason, "Make its values of one type: numbers, text, dates, lists of such.") from None
        columns.append(found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found]))
    return pa.table(columns, names=names), notes
