"""From Arrow rows to NumPy arrays that torch can take as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from headway.data.tensors import TensorType
from headway.errors import BadData

Array = np.ndarray[Any, Any]
REMEDY = "Turn it into numbers in the task's `transform`, or leave it out by listing the others in `data.columns`."


def arrays(table: pa.Table) -> dict[str, Array]:
    """Every column as a writable array of its own memory, so that torch.from_numpy takes it silently.

    Numbers and booleans become [rows], tensors [rows, *shape], fixed-size lists [rows, n]. Rows are copied once:
    Arrow's memory is read-only and may be shared with other batches.

    Raises:
        BadData: naming the column that is not numbers, or has nulls.
    """
    return {name: array_of(name, column) for name, column in zip(table.column_names, table.columns, strict=True)}


def array_of(name: str, column: pa.ChunkedArray) -> Array:
    """One column; see `arrays`."""
    kind = column.type
    if column.null_count:
        raise BadData(f"column {name!r} has {column.null_count} nulls", "a tensor cannot hold them", REMEDY)
    if isinstance(kind, pa.FixedShapeTensorType | TensorType):
        return _filled(column, tensor_dtype(kind), tuple(kind.shape), lambda chunk: chunk.to_numpy_ndarray())
    if pa.types.is_fixed_size_list(kind) and _is_number(kind.value_type):
        if any(chunk.flatten().null_count for chunk in column.chunks):
            raise BadData(f"column {name!r} has nulls in its lists", "a tensor cannot hold them", REMEDY)
        shape = (kind.list_size,)
        return _filled(column, numpy_dtype(kind.value_type), shape, lambda chunk: _list_rows(chunk, shape))
    if _is_number(kind):
        return _filled(column, numpy_dtype(kind), (), lambda chunk: chunk.to_numpy(zero_copy_only=False))
    raise BadData(f"column {name!r} is {kind}", "only numbers, booleans and tensors of one shape become arrays", REMEDY)


def _filled(column: pa.ChunkedArray, dtype: Any, shape: tuple[int, ...], rows_of: Any) -> Array:
    filled = np.empty((len(column), *shape), dtype)
    at = 0
    for chunk in column.chunks:
        filled[at : at + len(chunk)] = rows_of(chunk)
        at += len(chunk)
    return filled


def tensor_dtype(kind: Any) -> Any:
    """NumPy's dtype of a tensor column's elements."""
    return kind.dtype if isinstance(kind, TensorType) else numpy_dtype(kind.value_type)


def numpy_dtype(kind: pa.DataType) -> np.dtype[Any]:
    """NumPy's dtype of a type of numbers; Arrow's own way to it imports pandas, which takes a fifth of a second."""
    floats = {"halffloat": "float16", "float": "float32", "double": "float64"}
    return np.dtype(floats.get(str(kind), str(kind)))


def _list_rows(chunk: pa.Array, shape: tuple[int, ...]) -> Array:
    rows: Array = chunk.flatten().to_numpy(zero_copy_only=False)
    return rows.reshape(len(chunk), *shape)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
