"""Tables as they lie in Parquet files, and what all sources that are tables share: one schema for many files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headway.data import kinds
from headway.data.prepare.sources.listing import Piece, Plan, unreadable
from headway.data.tensors import TensorType
from headway.data.write.sizing import GROUP_BYTES, GROUP_ROWS
from headway.errors import BadData

PIECE_BYTES = 32 << 20
SAMPLED_FILES = 16


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors of Arrow and the file system, as errors that name the file."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException, EOFError) as error:
        raise unreadable(path, error) from None


def plan_parquet(files: list[Path]) -> Plan:
    """Pieces of a few row groups each; every file must have the same columns."""
    schemas, pieces = [], []
    for path in files:
        with naming(path), pq.ParquetFile(path) as file:
            schemas.append(file.schema_arrow)
            pieces += [{"path": str(path), **part} for part in _row_groups(file.metadata)]
    same_columns(files, schemas)
    schema = unified(files, schemas)
    notes = left(files, schemas) + list(dict.fromkeys(note for schema in schemas for note in _indexes(schema)))
    return Plan(schema, pieces, read_parquet, notes=notes)


def _indexes(schema: pa.Schema) -> Iterator[str]:
    """In words, what has become of the index of a pandas frame."""
    try:
        indexes = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        return
    for index in indexes:
        if isinstance(index, dict) and (index.get("name") or index.get("start") or index.get("step", 1) != 1):
            name = f" {index['name']!r}" if index.get("name") else ""
            yield f"the index{name} of a pandas frame is not kept: the files have it as a range, not as a column"
        elif isinstance(index, str) and index.startswith("__index_level_") and index in schema.names:
            yield f"column {index!r} is the index of a pandas frame, which had no name"


def _row_groups(meta: Any) -> Iterator[Piece]:
    """Pieces without their path; `counts` are the rows of each of their row groups."""
    groups: list[int] = []
    counts: list[int] = []
    size = rows = 0
    for index in range(meta.num_row_groups):
        group = meta.row_group(index)
        groups.append(index)
        counts.append(group.num_rows)
        size, rows = size + group.total_byte_size, rows + group.num_rows
        if size >= PIECE_BYTES or index == meta.num_row_groups - 1:
            batch = max(1, min(GROUP_ROWS, GROUP_BYTES * rows // max(1, size)))
            yield {"groups": groups, "counts": counts, "batch": batch}
            groups, counts, size, rows = [], [], 0, 0


def read_parquet(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of some row groups of a file."""
    with naming(piece["path"]), pq.ParquetFile(piece["path"]) as file:
        for batch in _batches(file, piece):
            yield conformed(pa.Table.from_batches([batch]), schema, piece["path"])


def _batches(file: pq.ParquetFile, piece: Piece) -> Iterator[pa.RecordBatch]:
    batches = file.iter_batches(batch_size=piece["batch"], row_groups=piece["groups"])
    try:
        first = next(batches, None)
    except pa.ArrowNotImplementedError:  # lists of dictionaries, of which Arrow reads no two row groups at once
        for group in piece["groups"]:
            yield from file.iter_batches(batch_size=piece["batch"], row_groups=[group])
        return
    if first is not None:
        yield first
        yield from batches


def same_columns(files: Sequence[Path], schemas: Sequence[pa.Schema]) -> None:
    """Refuse files of other columns than the first that has any; their order may differ.

    Raises:
        BadData: naming both files and the column.
    """
    known = [(path, schema) for path, schema in zip(files, schemas, strict=True) if len(schema)]
    for path, schema in known[1:]:
        first, expected = known[0]
        odd = sorted(set(schema.names) ^ set(expected.names))
        if odd:
            reason = f"column {odd[0]!r} is in only one of it and {first}"
            raise BadData(f"{path} has other columns", reason, "Give files of the same columns.")


def unified(files: Sequence[Path], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema for files of these, as it is kept. Numbers are widened; columns of which nothing is known are text.

    Raises:
        BadData: naming the column and the two files where it does not fit, or what cannot be kept.
    """
    apart: dict[bytes, tuple[pa.Schema, Path]] = {}  # types of others' may not be hashed
    for schema, path in zip(schemas, files, strict=True):
        apart.setdefault(schema.remove_metadata().serialize().to_pybytes(), (schema, path))
    for schema, path in apart.values():
        kinds.stored(schema, path)
    return kinds.stored(_whole(files, schemas), files[0])


def left(files: Sequence[Path], schemas: Sequence[pa.Schema]) -> list[str]:
    """In words, what `unified` does not keep of them."""
    fields = []
    for column in _whole(files, schemas):
        raw = [schema.field(column.name).type for schema in schemas if column.name in schema.names]
        fields.append(pa.field(column.name, next((kind for kind in raw if pa.types.is_dictionary(kind)), column.type)))
    return kinds.told(pa.schema(fields))


def _whole(files: Sequence[Path], schemas: Sequence[pa.Schema]) -> pa.Schema:
    fields = []
    for name in dict.fromkeys(name for schema in schemas for name in schema.names):
        having = [
            (p, schema.field(name).type) for p, schema in zip(files, schemas, strict=True) if name in schema.names
        ]
        first = having[0][1]
        fields.append(pa.field(name, first if all(kind == first for _, kind in having) else _widest(name, having)))
    return pa.schema(fields)


def _widest(name: str, having: Sequence[tuple[Path, pa.DataType]]) -> pa.DataType:
    """The type that holds the values of all of these files' column."""
    whole: tuple[Path, pa.DataType] | None = None
    for path, raw in having:
        kind = kinds.kept(raw, pa.null(), empty=True)
        if kind is None or pa.types.is_null(kind):
            continue
        try:
            both = kind if whole is None else kinds.joined(whole[1], kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            assert whole is not None
            reason = f"column {name!r} is {kind} there and {whole[1]} in {whole[0]}"
            raise BadData(f"{path} has another schema", reason, "Write both alike, or prepare them apart.") from None
        whole = (path if whole is None or both != whole[1] else whole[0], both)
    return pa.null() if whole is None else whole[1]


def conformed(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    """The table in the dataset's schema, tensors as plain binary, as Ray's blocks carry them.

    Raises:
        BadData: a column is missing, or cannot be cast without loss.
    """
    columns = []
    for column in table.schema:
        if column.name not in schema.names and kinds.kept_or_none(column.type) is not None:
            raise BadData(f"{path} has a column {column.name!r}", "the files before it have none", "Make them alike.")
    for column in schema:
        if column.name not in table.column_names:
            raise BadData(f"{path} has no column {column.name!r}", "the files before it have", "Make them alike.")
        try:
            found = kinds.recast(table[column.name], column.type)
        except pa.ArrowException as error:
            reason = f"column {column.name!r}: {str(error).splitlines()[0].rstrip('.')}"
            raise BadData(f"{path} does not fit the files before it", reason, "Make them alike.") from None
        if isinstance(column.type, TensorType):
            found = pa.chunked_array([chunk.storage for chunk in found.chunks], column.type.storage_type)
        columns.append(found)
    return pa.table(columns, names=schema.names)


def sampled(files: Sequence[Path], most: int = SAMPLED_FILES) -> list[Path]:
    """Up to so many of the files, from all over."""
    return list(files[:: max(1, -(-len(files) // most))])
