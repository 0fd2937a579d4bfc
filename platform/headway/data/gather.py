"""Rows of several row groups, put into the order of the walk by one copy, straight into the memory of the batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.order import Rows
from headway.data.arrays import Array, array_of, tensor_dtype
from headway.data.tensors import TensorType


@dataclass(frozen=True)
class Places:
    """Where rows of pieces go: from pieces laid end to end into the order in which they are taken.

    Args:
        rows: that are taken.
        to: for each piece, the places that its rows go to.
        of: for each piece, which of its rows go there; None: all of them, in their order.
        order: the same as one list: indices into the pieces laid end to end, shape [rows].
    """

    rows: int
    to: tuple[Rows, ...]
    of: tuple[Rows | None, ...]
    order: Rows


def places(sizes: Sequence[int], order: Rows) -> Places:
    """Where the rows go.

    Args:
        sizes: rows of each piece.
        order: which rows are taken, numbered as the pieces lie, in this order; some maybe not at all, or repeatedly.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    where = np.full(total, -1, np.int64)
    where[order] = np.arange(len(order))
    each_once = len(order) == total and bool((where >= 0).all())
    to: list[Rows] = []
    of: list[Rows | None] = []
    for first, end in zip(ends - sizes, ends, strict=True):
        if each_once:
            to.append(where[first:end])
            of.append(None)
        else:
            mine = np.flatnonzero((order >= first) & (order < end))
            to.append(mine)
            of.append(order[mine] - first)
    return Places(len(order), tuple(to), tuple(of), order)


def gathered_table(pieces: Sequence[pa.Table], where: Places) -> pa.Table:
    """The rows as an Arrow table, one chunk a column. At least one piece."""
    schema = pieces[0].schema
    columns = []
    for at, field in enumerate(schema):
        chunks = [_one(piece.column(at)) for piece in pieces]
        flat = [_flat(chunk) for chunk in chunks]
        if any(view is None for view in flat):
            columns.append(_taken(chunks, where))
        else:
            data = _scattered(flat, where)  # type: ignore[arg-type]
            data.flags.writeable = False  # Arrow's memory is nobody's to change
            columns.append(_column(field.type, pa.py_buffer(data), where.rows))
    return pa.Table.from_arrays(columns, schema=schema)


def gathered_arrays(pieces: Sequence[pa.Table], where: Places) -> dict[str, Array]:
    """The rows as writable arrays as `headway.data.arrays.arrays` gives them. At least one piece.

    Raises:
        BadData: naming the column that is not numbers, or has nulls.
    """
    found = {}
    for at, field in enumerate(pieces[0].schema):
        chunks = [_one(piece.column(at)) for piece in pieces]
        flat = [_flat(chunk) for chunk in chunks]
        form = _form(field.type)
        if form is None or any(view is None for view in flat):
            found[field.name] = array_of(field.name, pa.chunked_array([_taken(chunks, where)], field.type))
        else:
            dtype, shape = form
            data = _scattered(flat, where)  # type: ignore[arg-type]
            found[field.name] = data.view(dtype).reshape(where.rows, *shape)
    return found


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _taken(chunks: list[pa.Array], where: Places) -> pa.Array:
    return _one(pa.chunked_array(chunks).unify_dictionaries().take(pa.array(where.order)))


def _scattered(views: list[Array], where: Places) -> Array:
    """One copy of every row; uint8, shape [rows * width]. The memory is Arrow's pool's, which keeps what is freed."""
    item = views[0].dtype
    data = np.frombuffer(pa.allocate_buffer(where.rows * item.itemsize), np.uint8)
    rows = data.view(item)
    for view, to, of in zip(views, where.to, where.of, strict=True):
        rows[to] = view if of is None else view[of]
    return data


def _flat(chunk: pa.Array) -> Array | None:
    """An array's memory as one item a row, shape [rows]; None where it is not that simple (nulls, text, bits)."""
    kind, data = _storage(chunk)
    if kind is None:
        return None
    width = kind.byte_width if not pa.types.is_fixed_size_list(kind) else kind.list_size * kind.value_type.byte_width
    first = data.offset
    if pa.types.is_fixed_size_list(kind):
        data = data.values
        first = first * kind.list_size + data.offset
        at = first * kind.value_type.byte_width
    else:
        at = first * width
    item = np.dtype(f"u{width}") if width in (1, 2, 4, 8) else np.dtype(f"V{width}")
    buffer = data.buffers()[1]
    return np.frombuffer(buffer, item, len(chunk), at) if len(chunk) else np.empty(0, item)


def _storage(chunk: pa.Array) -> tuple[Any, pa.Array]:
    """The plain array of a chunk and its type; (None, chunk) where rows are not plain spans of bytes."""
    if isinstance(chunk, pa.ExtensionArray):
        chunk = chunk.storage
    kind = chunk.type
    if chunk.null_count:
        return None, chunk
    if pa.types.is_fixed_size_list(kind):
        inner = chunk.values
        simple = _is_plain(kind.value_type) and kind.list_size > 0 and inner.null_count == 0
        return (kind, chunk) if simple else (None, chunk)
    if _is_plain(kind) or (pa.types.is_fixed_size_binary(kind) and kind.byte_width > 0):
        return kind, chunk
    return None, chunk


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _form(kind: pa.DataType) -> tuple[Any, tuple[int, ...]] | None:
    """A row's dtype and shape as an array; None where it is no array of numbers."""
    if isinstance(kind, pa.FixedShapeTensorType | TensorType):
        return tensor_dtype(kind), tuple(kind.shape)
    if pa.types.is_fixed_size_list(kind) and _is_plain(kind.value_type):
        return kind.value_type.to_pandas_dtype(), (kind.list_size,)
    return (kind.to_pandas_dtype(), ()) if _is_plain(kind) else None


def _column(kind: pa.DataType, data: pa.Buffer, rows: int) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _column(kind.storage_type, data, rows))
    if pa.types.is_fixed_size_list(kind):
        inner = pa.Array.from_buffers(kind.value_type, rows * kind.list_size, [None, data])
        return pa.FixedSizeListArray.from_arrays(inner, type=kind)
    return pa.Array.from_buffers(kind, rows, [None, data])
