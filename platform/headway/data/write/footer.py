"""Parquet footers taken apart and put together, so that row groups encoded side by side become one file.

A row group's bytes do not depend on where they lie; only the footer says where. So row groups can be encoded anywhere,
laid end to end, and a footer made with their offsets moved: the file is, byte for byte, what one writer would have
written. Footers are structs of Thrift's compact protocol (apache/thrift, doc/specs/thrift-compact-protocol.md), here
lists of (field id, type, value); parquet-format's parquet.thrift gives the ids.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

MAGIC = b"PAR1"
Struct = list[tuple[int, int, Any]]

TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
VARINTS = (4, 5, 6)  # i16, i32, i64
FILE_ROWS, FILE_GROUPS = 3, 4
GROUP_COLUMNS, GROUP_OFFSET, GROUP_ORDINAL = 1, 5, 7
CHUNK_OFFSET, CHUNK_META = 2, 3
META_OFFSETS = (9, 10, 11)  # of data, index and dictionary pages


def split(file: memoryview) -> tuple[bytes, list[bytes]]:
    """A Parquet file's footer, as that of no row groups, and its row groups' structs.

    Args:
        file: the whole of it, or its end from the first byte of the footer on.
    """
    size = int.from_bytes(bytes(file[-8:-4]), "little")
    tree = _Reader(file[-8 - size : -8]).struct()
    groups = next(value for name, _, value in tree if name == FILE_GROUPS)[1]
    empty = {FILE_ROWS: 0, FILE_GROUPS: (STRUCT, [])}
    frame = [(name, kind, empty.get(name, value)) for name, kind, value in tree]
    return serialized(frame), [serialized(group) for group in groups]


def moved(group: bytes, by: int, ordinal: int) -> bytes:
    """A row group's struct for a place `by` bytes further on, as number `ordinal` of its file."""

    def field(name: int, kind: int, value: Any) -> tuple[int, int, Any]:
        if name == GROUP_COLUMNS:
            return name, kind, (value[0], [_moved_chunk(chunk, by) for chunk in value[1]])
        if name == GROUP_OFFSET:
            return name, kind, value + by
        return name, kind, ordinal if name == GROUP_ORDINAL else value

    return serialized([field(*item) for item in _Reader(memoryview(group)).struct()])


def joined(frame: bytes, groups: Sequence[bytes], rows: int) -> bytes:
    """The end of a file: footer, its length, and the magic number.

    Args:
        frame: as `split` gives it.
        groups: structs of the row groups, moved to where they lie.
        rows: of all of them.
    """
    parsed = [_Reader(memoryview(group)).struct() for group in groups]
    full = {FILE_ROWS: rows, FILE_GROUPS: (STRUCT, parsed)}
    tree = [(name, kind, full.get(name, value)) for name, kind, value in _Reader(memoryview(frame)).struct()]
    footer = serialized(tree)
    return footer + len(footer).to_bytes(4, "little") + MAGIC


def _moved_chunk(chunk: Struct, by: int) -> Struct:
    fields: Struct = []
    for name, kind, value in chunk:
        if name == CHUNK_META:
            pages = [(n, k, v + by if n in META_OFFSETS else v) for n, k, v in value]
            fields.append((name, kind, pages))
        else:  # writers leave the chunk's own offset at zero: it is deprecated
            fields.append((name, kind, value + by if name == CHUNK_OFFSET and value else value))
    return fields


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data.cast("B"), 0  # views of Arrow buffers are of signed bytes

    def struct(self) -> Struct:
        fields: Struct = []
        name = 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            name = name + step if step else self._signed()
            fields.append((name, kind, kind == TRUE if kind in (TRUE, FALSE) else self._value(kind)))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in VARINTS:
            return self._signed()
        if kind in (TRUE, FALSE, BYTE):  # a boolean that is a field has its value in its type instead
            return self._byte()
        if kind == DOUBLE:
            return struct.unpack("<d", self._take(8))[0]
        if kind == BINARY:
            return bytes(self._take(self._unsigned()))
        if kind in (LIST, SET):
            head = self._byte()
            size = head >> 4
            size = self._unsigned() if size == 15 else size
            return head & 15, [self._value(head & 15) for _ in range(size)]
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"Thrift type {kind} does not occur in Parquet footers")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, size: int) -> memoryview:
        self._at += size
        return self._data[self._at - size : self._at]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)


def serialized(tree: Struct) -> bytes:
    """A struct in the compact protocol."""
    out = bytearray()
    _write_struct(out, tree)
    return bytes(out)


def _write_struct(out: bytearray, tree: Struct) -> None:
    before = 0
    for name, kind, value in tree:
        if 0 < name - before < 16:
            out.append((name - before) << 4 | kind)
        else:
            out.append(kind)
            _write_signed(out, name)
        before = name
        if kind not in (TRUE, FALSE):
            _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in VARINTS:
        _write_signed(out, value)
    elif kind in (TRUE, FALSE, BYTE):
        out.append(value)
    elif kind == DOUBLE:
        out += struct.pack("<d", value)
    elif kind == BINARY:
        _write_unsigned(out, len(value))
        out += value
    elif kind in (LIST, SET):
        of, items = value
        out.append(min(len(items), 15) << 4 | of)
        if len(items) >= 15:
            _write_unsigned(out, len(items))
        for item in items:
            _write_value(out, of, item)
    else:
        _write_struct(out, value)


def _write_unsigned(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _write_signed(out: bytearray, value: int) -> None:
    _write_unsigned(out, value << 1 if value >= 0 else (-value << 1) - 1)
