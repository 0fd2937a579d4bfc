"""What is in a dataset: values of each column, sizes of its files, its versions. Reads a row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.core.parts import Words
from headway.data import kinds
from headway.data.manifest import Manifest, load
from headway.data.read.groups import Groups
from headway.data.rowhash import hashes
from headway.data.store.cache import open_files
from headway.data.tensors import TensorType
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.job import Store

REGISTERS = 4096  # of HyperLogLog: a standard error of 1.6 %
SHOWN = 32
COUNTED = 10_000  # different values that are counted one by one; of more, an estimate


def described(folder: str | Path, values: bool = True, options: Store | None = None) -> dict[str, Any]:
    """All there is to say of a dataset, as plain values.

    Args:
        folder: of the dataset, or its URL in an object store.
        values: read the rows and describe each column.
        options: how object stores are spoken to.

    Raises:
        BadData: it is no dataset, or a shard cannot be read.
    """
    manifest = load(folder, options=options)
    groups = [group for shard in manifest.shards for group in shard.row_groups]
    found = {
        "folder": str(folder),
        "name": manifest.name,
        "source": manifest.source,
        "version": manifest.version,
        "digest": manifest.digest,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "label": manifest.label,
        "label_counts": manifest.label_counts,
        "categories": manifest.categories,
        "shards": {"count": len(manifest.shards), **_spread("bytes", [s.bytes for s in manifest.shards])},
        "row_groups": {
            "count": len(groups),
            **_spread("rows", [group.rows for group in groups]),
            **_spread("bytes", [group.bytes for group in groups]),
        },
        "versions": manifest.made,
    }
    if values:
        columns = {name: Column() for name, _ in manifest.schema}
        for table in row_groups(folder, manifest, None, options):
            for name, column in columns.items():
                column.add(name, table)
        types = dict(manifest.schema)
        found["columns"] = {name: {"type": types[name], **column.result()} for name, column in columns.items()}
    return found


def first_rows(
    folder: str | Path, count: int, columns: list[str] | None = None, options: Store | None = None
) -> list[dict[str, Any]]:
    """The first rows of a dataset as plain values; a tensor as its type and its first numbers.

    Raises:
        BadData: it is no dataset, or a shard cannot be read.
        BadInput: there is no such column.
    """
    manifest = load(folder, options=options)
    known = [name for name, _ in manifest.schema]
    odd = next((name for name in columns or () if name not in known), None)
    if odd is not None:
        raise BadInput(f"--columns {odd}", "there is no such column", f"Columns: {', '.join(known)}.")
    rows: list[dict[str, Any]] = []
    for table in row_groups(folder, manifest, columns, options):
        part = table.slice(0, count - len(rows))
        shown = {name: _plain(part[name]) for name in columns or known}
        rows += [{name: values[i] for name, values in shown.items()} for i in range(part.num_rows)]
        if len(rows) == count:
            break
    return rows


def row_groups(
    folder: str | Path, manifest: Manifest, columns: list[str] | None, options: Store | None
) -> Iterator[pa.Table]:
    """The row groups of all shards, one after the other."""
    from headway.job import Data
    from headway.job import Store as Options

    data = Data(train=str(folder), store=options or Options())
    with closing(open_files(folder, manifest, data)) as files:
        files.expect(range(len(manifest.groups)))
        groups = Groups(files, columns)
        for number in range(len(manifest.groups)):
            yield groups.load(number).table


@dataclass
class Column:
    """Values of one column, gathered table by table: nulls, least and greatest, mean, how many differ."""

    rows: int = 0
    nulls: int = 0
    least: Any = None
    greatest: Any = None
    total: float = 0.0
    numbers: int = 0
    registers: np.ndarray[Any, np.dtype[np.uint8]] = field(default_factory=lambda: np.zeros(REGISTERS, np.uint8))
    known: Words | None = field(default_factory=lambda: np.empty(0, np.uint64))
    """Hashes of the values so far; None for more than are counted."""

    def add(self, name: str, table: pa.Table) -> None:
        """The next rows."""
        column = table[name]
        self.rows += len(column)
        self.nulls += column.null_count
        kind = column.type
        if isinstance(kind, TensorType):
            values = pa.chunked_array([pa.array(chunk.to_numpy_ndarray().reshape(-1)) for chunk in column.chunks])
        else:
            values = column.cast(pa.float32()) if kind == pa.float16() else column
        if not (pa.types.is_nested(kind) or pa.types.is_null(kind)):
            try:
                both = pc.min_max(values)
                self.least = _extreme(pc.min, self.least, both["min"])
                self.greatest = _extreme(pc.max, self.greatest, both["max"])
            except pa.ArrowNotImplementedError:
                pass  # there is no order
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type):
            self.numbers += len(values) - values.null_count
            numbers = values if pa.types.is_boolean(values.type) else values.cast(pa.float64(), safe=False)
            self.total += pc.sum(numbers).as_py() or 0
        valid = table.filter(column.is_valid()) if column.null_count else table
        words = hashes(valid, [name])[:, 0]
        _count_in(self.registers, words)
        if self.known is not None:
            known = np.union1d(self.known, words)
            self.known = known if len(known) <= COUNTED else None

    def result(self) -> dict[str, Any]:
        """As plain values; `estimated` names those that are no counts."""
        mean = self.total / self.numbers if self.numbers else None
        return {
            "nulls": self.nulls,
            "min": kinds.value_of(self.least) if self.least is not None else None,
            "max": kinds.value_of(self.greatest) if self.greatest is not None else None,
            "mean": mean,
            "distinct": min(self.rows - self.nulls, distinct(self.registers))
            if self.known is None
            else len(self.known),
            "estimated": ["distinct"] if self.known is None else [],
        }


def _extreme(choose: Callable[..., Any], one: pa.Scalar | None, other: pa.Scalar) -> pa.Scalar:
    return other if one is None else choose(pa.concat_arrays([pa.repeat(value, 1) for value in (one, other)]))


def _count_in(registers: np.ndarray[Any, np.dtype[np.uint8]], words: Words) -> None:
    """Each register keeps the longest run of leading zeros among the hashes that fall to it."""
    which = (words >> np.uint64(52)).astype(np.int64)
    rest = (words & np.uint64((1 << 52) - 1)).astype(np.float64)
    ranks = np.where(rest > 0, 52 - np.floor(np.log2(np.maximum(rest, 1))), 53).astype(np.uint8)
    np.maximum.at(registers, which, ranks)


def distinct(registers: np.ndarray[Any, np.dtype[np.uint8]]) -> int:
    """HyperLogLog's estimate (Flajolet et al. 2007), with linear counting where few registers are filled."""
    size = len(registers)
    estimate = 0.7213 / (1 + 1.079 / size) * size * size / float(np.sum(np.exp2(-registers.astype(np.float64))))
    empty = int(np.count_nonzero(registers == 0))
    if estimate <= 2.5 * size and empty:
        estimate = size * float(np.log(size / empty))
    return round(estimate)


def _spread(name: str, values: list[int]) -> dict[str, float]:
    return {f"{name}_min": min(values), f"{name}_mean": round(sum(values) / len(values)), f"{name}_max": max(values)}


def _plain(column: pa.ChunkedArray) -> list[Any]:
    if not isinstance(column.type, TensorType):
        return [_short(kinds.value_of(value)) for value in column]
    kind = column.type
    rows = [row for chunk in column.chunks for row in chunk.to_numpy_ndarray()]
    return [
        f"{kind} {' '.join(map(str, row.reshape(-1)[:8].tolist()))}{' ...' if row.size > 8 else ''}" for row in rows
    ]


def _short(value: Any) -> Any:
    return f"{len(value)} bytes: {value[:SHOWN].hex(' ')}" if isinstance(value, bytes) else value
