"""Hashes of rows by value: equal values hash alike in whatever integer width, chunk, file or release they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_128_digest

from headway.core.parts import Words, mixed
from headway.data import kinds

STEP = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))
NULL = np.uint64(0x6A09E667F3BCC909)


def hashes(table: pa.Table, columns: Sequence[str]) -> Words:
    """128-bit hashes of the rows' values in some columns; uint64, shape [rows, 2]. Not against malice."""
    state = np.tile(np.array(STEP), (table.num_rows, 1))
    for name in columns:
        values = _of(table[name])
        for word in (0, 1):
            state[:, word] = mixed(state[:, word] * STEP[1 - word] + values[:, word])
    return state


def _of(column: pa.ChunkedArray) -> Words:
    """Hashes of one column's values; shape [rows, 2]."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        storages = [chunk.storage for chunk in column.chunks]
        return _of(pa.chunked_array(storages, kind.storage_type))
    if pa.types.is_dictionary(kind):
        return _of(column.cast(kind.value_type))
    if pa.types.is_temporal(kind):
        return _of(column.cast(pa.int64() if kind.bit_width == 64 else pa.int32()))
    found = _of_numbers(column) if _is_number(kind) else _of_bytes(column)
    if column.null_count:
        found[column.is_null().to_numpy()] = NULL
    return found


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _of_numbers(column: pa.ChunkedArray) -> Words:
    kind = column.type
    wide = pa.float64() if pa.types.is_floating(kind) else pa.uint64() if kind == pa.uint64() else pa.int64()
    values = column.cast(pa.int8()) if pa.types.is_boolean(kind) else column
    flat = pc.fill_null(values, 0).cast(wide).to_numpy()
    if wide == pa.float64():
        flat = np.where(np.isnan(flat), np.nan, flat + 0.0)  # one NaN, one zero
    words = flat.view(np.uint64)
    return np.stack([mixed(words + STEP[0]), mixed(words + STEP[1])], axis=1)


def _of_bytes(column: pa.ChunkedArray) -> Words:
    if pa.types.is_nested(column.type):
        texts = [json.dumps(kinds.value_of(value), sort_keys=True, default=str).encode() for value in column]
        return _digests(texts)
    coded = column.combine_chunks().dictionary_encode()
    values = coded.dictionary
    if not (pa.types.is_fixed_size_binary(values.type) or _is_text(values.type)):
        values = values.cast(pa.string())
    known = _digests([_bytes(value) for value in values.to_pylist()])
    if not len(known):
        return np.zeros((len(column), 2), np.uint64)
    found: Words = known[pc.fill_null(coded.indices, 0).to_numpy()]
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_binary(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _digests(values: list[bytes]) -> Words:
    joined = b"".join(map(xxh3_128_digest, values))
    return np.frombuffer(joined, ">u8").reshape(-1, 2).astype(np.uint64)
