"""Rows of several row groups, put into the order of the walk by one copy, straight into the memory of the batches."""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from functools import cached_property
from itertools import pairwise
from sys import getrefcount
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.order import Rows
from headway.data.arrays import Array, array_of, numpy_dtype, tensor_dtype
from headway.data.read.aligned import ALIGNMENT, aligned_at
from headway.data.read.lay import Lay
from headway.data.tensors import TensorType

LEAST_BYTES = 1 << 20  # smaller arrays are best left to malloc
SPARE = 2  # arrays kept though nobody holds them

Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Memory:
    """Gives memory for rows, and gives it again once nobody has an array of it any more.

    Fresh memory must be zeroed by the system page by page, which costs more than filling it with rows.
    """

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self._lock = threading.Lock()

    def take(self, size: int, lead: int = 0) -> Array:
        """An array of so many bytes, uint8, of which byte `lead` is at an aligned address.

        All arrays that share its memory hold on to it, as NumPy's do.
        """
        if size < LEAST_BYTES:
            return aligned_at(np.empty(size + ALIGNMENT, np.uint8), size, lead)
        room = size + ALIGNMENT
        with self._lock:
            free = [at for at, holders in enumerate(_holders(self._arrays)) if holders <= NOBODY]
            fit = min((at for at in free if room <= self._arrays[at].nbytes <= 2 * room), default=None)
            if fit is None:
                taken = np.empty(room + size // 8, np.uint8)  # the next one may be a little larger
            else:
                taken = self._arrays[fit]
                free.remove(fit)
            dropped = {*free[SPARE:], fit}
            self._arrays = [array for at, array in enumerate(self._arrays) if at not in dropped] + [taken]
            return aligned_at(taken, size, lead)

    def clear(self) -> None:
        """Keep nothing that is not in use."""
        with self._lock:
            self._arrays = []


def _holders(arrays: list[Array]) -> list[int]:
    return [getrefcount(array) for array in arrays]


NOBODY = _holders([np.empty(1)])[0]


class Gathering:
    """Pieces come one by one, from any threads, and each row goes to its place at once; nothing of them is kept.

    Only of columns that are not plain spans of bytes (text, booleans, nulls) the pieces are kept until the end.

    Args:
        schema: of the pieces.
        sizes: rows of each piece.
        order: which rows are taken, numbered as the pieces lie, in this order; some maybe not at all, or repeatedly.
        memory: to put them into.
        with_nulls: columns that have nulls in some piece.
        lay: where batches begin, each of which is to be at an aligned address, if memory for that may be taken.
    """

    def __init__(
        self,
        schema: pa.Schema,
        sizes: Sequence[int],
        order: Rows,
        memory: Memory,
        with_nulls: Container[str] = (),
        lay: Lay | None = None,
    ) -> None:
        self.schema, self._sizes, self._rows, self._order = schema, sizes, len(order), order
        widths = [_width(field.type) or 1 for field in schema]
        self.lay = lay if lay is not None and lay.fits(widths) else None
        self._pads = [self.lay.pad(width) if self.lay else 0 for width in widths]
        plain = _places(sizes, order)
        self._places = {pad: [(self._laid(to, pad), of) for to, of in plain] for pad in set(self._pads)}
        self._plain: dict[int, Array] = {}
        self._chunks: dict[int, list[pa.Array | None]] = {}
        for at, field in enumerate(schema):
            width = _width(field.type)
            if width is None or field.name in with_nulls:
                self._chunks[at] = [None] * len(sizes)
            else:
                lead = self.lay.first * width if self.lay else 0
                self._plain[at] = memory.take(self._room(at) * width, lead).view(_item(width))

    def put(self, number: int, piece: pa.Table) -> str | None:
        """Take a piece in. Returned is a column that has nulls and was not said to: then all was in vain."""
        for at, rows in self._plain.items():
            view = _flat(_one(piece.column(at)))
            if view is None:
                return str(self.schema.field(at).name)
            to, of = self._places[self._pads[at]][number]
            rows[to] = view if of is None else view[of]
        for at, chunks in self._chunks.items():
            chunks[number] = _one(piece.column(at))
        return None

    def _laid(self, rows: Rows, pad: int) -> Rows:
        return rows if self.lay is None else self.lay.places(rows, pad)

    def _room(self, at: int) -> int:
        """Rows of a column's memory, those left free among them."""
        return self.lay.place(self._rows - 1, self._pads[at]) + 1 if self.lay is not None and self._rows else self._rows

    @property
    def pads(self) -> dict[str, int]:
        """Rows that are left free behind each batch, by column; empty where none are."""
        return dict(zip(self.schema.names, self._pads, strict=True)) if any(self._pads) else {}

    def arrays(self, kept: Mask | None = None) -> dict[str, Array]:
        """The rows as writable arrays as `headway.data.arrays.arrays` gives them; with `kept`, only these.

        Where there is a lay and all are kept they lie as it says, with free rows between the batches.

        Raises:
            BadData: naming the column that is not numbers, or has nulls.
        """
        found = {}
        for at, field in enumerate(self.schema):
            form = _form(field.type) if at in self._plain else None
            if form is None:
                column = self._column(at)
                column = column if kept is None else column.filter(pa.array(kept))
                array = array_of(field.name, pa.chunked_array([column], field.type))
                found[field.name] = array if self.lay is None or kept is not None else self._spread(at, array)
            else:
                dtype, shape = form
                array = self._plain[at].view(dtype).reshape(self._room(at), *shape)
                found[field.name] = array if kept is None else array[self._laid(np.flatnonzero(kept), self._pads[at])]
        return found

    def _spread(self, at: int, array: Array) -> Array:
        """An array's rows as the lay says."""
        assert self.lay is not None
        row = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
        memory = Memory().take(self._room(at) * row, self.lay.first * row)
        spread = memory.view(array.dtype).reshape(self._room(at), *array.shape[1:])
        spread[self._laid(np.arange(self._rows), self._pads[at])] = array
        return spread

    def table(self, kept: Mask | None = None) -> pa.Table:
        """The rows as an Arrow table, one chunk a column; with `kept`, only these. Not with a lay."""
        table = pa.Table.from_arrays([self._column(at) for at in range(len(self.schema))], schema=self.schema)
        return table if kept is None else table.filter(pa.array(kept)).combine_chunks()

    @cached_property
    def bytes(self) -> int:
        """About as many as the rows take."""
        chunks = [chunk for of in self._chunks.values() for chunk in of if chunk is not None]
        return int(sum(rows.nbytes for rows in self._plain.values()) + sum(chunk.nbytes for chunk in chunks))

    def _column(self, at: int) -> pa.Array:
        kind = self.schema.field(at).type
        if at in self._plain:
            rows = self._plain[at].view()
            rows.flags.writeable = False  # what the user's transform gets is nobody's to change
            return _array(kind, pa.py_buffer(rows), self._rows)
        pairs = zip(self._chunks[at], self._sizes, strict=True)
        chunks = [pa.nulls(size, kind) if chunk is None else chunk for chunk, size in pairs]
        return _one(pa.chunked_array(chunks, kind).unify_dictionaries().take(pa.array(self._order)))


def gathered_table(pieces: Sequence[pa.Table], order: Rows) -> pa.Table:
    """All rows of the pieces, numbered as they lie, in this order; one chunk a column. At least one piece."""
    schema = pieces[0].schema
    with_nulls = {name for piece in pieces for name in schema.names if _flat(_one(piece[name])) is None}
    gathering = Gathering(schema, [piece.num_rows for piece in pieces], order, Memory(), with_nulls)
    for number, piece in enumerate(pieces):
        gathering.put(number, piece)
    return gathering.table()


def _places(sizes: Sequence[int], order: Rows) -> list[tuple[Rows, Rows | None]]:
    """For each piece, the places that its rows go to, and which of its rows go there (None: all, in their order)."""
    ends = np.cumsum(sizes, dtype=np.int64)
    where = np.full(int(ends[-1]), -1, np.int64)
    where[order] = np.arange(len(order))
    if len(order) == len(where) and bool((where >= 0).all()):
        return [(where[end - size : end], None) for size, end in zip(sizes, ends, strict=True)]
    by_row = np.argsort(order, kind="stable")
    cuts = np.searchsorted(order[by_row], [0, *ends])
    parts = [by_row[low:high] for low, high in pairwise(cuts)]
    return [(to, order[to] - (end - size)) for to, size, end in zip(parts, sizes, ends, strict=True)]


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _flat(chunk: pa.Array) -> Array | None:
    """An array's memory as one item a row, shape [rows]; None where it is not that simple (nulls, text, bits)."""
    width = _width(chunk.type)
    data = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
    if width is None or data.null_count:
        return None
    at = data.offset * width
    if pa.types.is_fixed_size_list(data.type):
        data = data.values
        if data.null_count:
            return None
        at += data.offset * data.type.byte_width
    item = _item(width)
    return np.frombuffer(data.buffers()[1], item, len(chunk), at) if len(chunk) else np.empty(0, item)


def _item(width: int) -> np.dtype[Any]:
    return np.dtype(f"u{width}") if width in (1, 2, 4, 8) else np.dtype(f"V{width}")


def _width(kind: pa.DataType) -> int | None:
    """Bytes of a row; None where rows are not plain spans of bytes."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size * kind.value_type.byte_width if _is_plain(kind.value_type) else 0
    else:
        width = kind.byte_width if _is_plain(kind) or pa.types.is_fixed_size_binary(kind) else 0
    return int(width) or None


def _is_plain(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _form(kind: pa.DataType) -> tuple[Any, tuple[int, ...]] | None:
    """A row's dtype and shape as an array; None where it is no array of numbers."""
    if isinstance(kind, pa.FixedShapeTensorType | TensorType):
        return tensor_dtype(kind), tuple(kind.shape)
    if pa.types.is_fixed_size_list(kind) and _is_plain(kind.value_type):
        return numpy_dtype(kind.value_type), (kind.list_size,)
    return (numpy_dtype(kind), ()) if _is_plain(kind) else None


def _array(kind: pa.DataType, data: pa.Buffer, rows: int) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _array(kind.storage_type, data, rows))
    if pa.types.is_fixed_size_list(kind):
        inner = pa.Array.from_buffers(kind.value_type, rows * kind.list_size, [None, data])
        return pa.FixedSizeListArray.from_arrays(inner, type=kind)
    return pa.Array.from_buffers(kind, rows, [None, data])
