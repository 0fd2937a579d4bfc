"""Arrow columns as NumPy arrays, without a copy where Arrow's memory allows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from headway.errors import BadData

Array = np.ndarray[Any, Any]


def arrays(table: pa.Table) -> dict[str, Array]:
    """Every column of a table by name.

    Numbers and booleans give shape [rows], fixed-size lists [rows, n], fixed-shape tensors [rows, *shape], in the
    column's own dtype. The arrays may be read-only views of Arrow's memory.

    Raises:
        BadData: a column holds text, nested values or nulls.
    """
    return {name: array(table.column(name), name) for name in table.column_names}


def array(column: pa.ChunkedArray, name: str) -> Array:
    """One column as an array; see `arrays`."""
    if column.null_count:
        raise BadData(
            f"column {name!r} has {column.null_count} nulls in these rows",
            "an array has no place for them",
            "Fill or drop them when preparing the data, or write a `transform` in the task.",
        )
    kind = column.type
    chunk = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(chunk, pa.ChunkedArray):
        chunk = chunk.chunk(0)
    if isinstance(kind, pa.FixedShapeTensorType):
        return np.asarray(chunk.to_numpy_ndarray())
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        flat = chunk.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat.reshape(len(chunk), kind.list_size))
    if _is_number(kind):
        return np.asarray(chunk.to_numpy(zero_copy_only=False))
    raise BadData(
        f"column {name!r} is {kind}",
        "only numbers and fixed-size arrays of numbers become tensors by themselves",
        "List the columns to read in data.columns, or write a `transform` in the task.",
    )


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
