"""Row groups as Parquet bytes: what a task on the cluster makes, and the writer lays into a shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128_hexdigest

from headway.data import kinds
from headway.data.manifest import span
from headway.data.tensors import TensorType
from headway.data.write import footer

MAX_LABELS = 10_000


@dataclass(frozen=True)
class EncodedGroup:
    """One row group.

    Args:
        rows: in it.
        start: of its bytes in the data.
        size: in bytes.
        xxh3: XXH3-128 of them in hex.
        struct: its part of the footer, for a file whose first row group begins where the data does.
        labels: rows by value of the label; None where they cannot be counted.
    """

    rows: int
    start: int
    size: int
    xxh3: str
    struct: bytes
    labels: dict[str, int] | None


@dataclass(frozen=True)
class Encoded:
    """Row groups laid end to end.

    Args:
        groups: in their order.
        data: their bytes.
        frame: the footer of a file of their schema and no row groups.
    """

    groups: tuple[EncodedGroup, ...]
    data: Any
    frame: bytes


def encoded(groups: Sequence[pa.Table], label: str | None = None) -> Encoded:
    """Tables of one schema as one row group each. The same tables give the same bytes.

    Args:
        groups: at least one; none is empty.
        label: the column whose values are counted.

    Raises:
        OSError: as Arrow says.
    """
    schema = groups[0].schema
    flat = [c.name for c in schema if not isinstance(c.type, TensorType)]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=flat, write_statistics=flat) as file:
        for group in groups:
            file.write_table(group, row_group_size=group.num_rows)
    written = sink.getvalue()
    view, meta = memoryview(written), pq.read_metadata(pa.BufferReader(written))
    frame, structs = footer.split(view)
    first, stop = len(footer.MAGIC), 0
    found = []
    for index, (group, struct) in enumerate(zip(groups, structs, strict=True)):
        start, stop = span(meta.row_group(index))
        digest = xxh3_128_hexdigest(view[start:stop])
        found.append(EncodedGroup(group.num_rows, start - first, stop - start, digest, struct, _counts(group, label)))
    return Encoded(tuple(found), written.slice(first, stop - first), frame)


def _counts(table: pa.Table, label: str | None) -> dict[str, int] | None:
    """Rows by value; None for what is not counted, and for more values than are worth listing."""
    if label is None or not is_counted(table[label].type):
        return None
    values = table[label].value_counts()
    if len(values) > MAX_LABELS:
        return None
    counts: dict[str, int] = {}
    for pair in values:  # null and the text None have one name
        name = str(kinds.value_of(pair["values"]))
        counts[name] = counts.get(name, 0) + pair["counts"].as_py()
    return counts


def is_counted(kind: pa.DataType) -> bool:
    """Whether values of a label of this type are counted: not those of measures, nor of lists, structs and tensors."""
    return not (pa.types.is_floating(kind) or pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType))


def left_uncounted(schema: pa.Schema, label: str | None) -> list[str]:
    """In words, that a label's values are not counted, where one would expect it."""
    kind = None if label is None else schema.field(label).type
    if kind is None or is_counted(kind) or pa.types.is_floating(kind):
        return []
    return [f"label {label!r} is {kind}, of which values are not counted"]


class Labels:
    """Rows by value of the label over all row groups; given up where one of them could not be counted."""

    def __init__(self) -> None:
        self._counts: dict[str, int] | None = {}

    def add(self, counts: dict[str, int] | None) -> None:
        if counts is None or self._counts is None:
            self._counts = None
            return
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        if len(self._counts) > MAX_LABELS:
            self._counts = None

    def result(self) -> dict[str, int] | None:
        """Sorted, numbers by value."""
        if self._counts is None:
            return None
        return dict(sorted(self._counts.items(), key=lambda item: (len(item[0]), item[0])))
