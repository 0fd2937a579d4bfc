"""Sources that are tables already: Parquet, CSV (with a header), JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.json as json
import pyarrow.parquet as pq

from headway.data.arrays import numpy_dtype
from headway.data.prepare.sources.listing import Piece, Plan, unreadable
from headway.data.tensors import TensorType
from headway.data.write.sizing import GROUP_BYTES, GROUP_ROWS
from headway.errors import BadData

PIECE_BYTES = 32 << 20
SAMPLE_BYTES = 16 << 20
SAMPLED_FILES = 16
BLOCK_BYTES = 4 << 20
JSON_BLOCK_BYTES = 16 << 20


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Errors of Arrow and the file system, as errors that name the file."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def plan_parquet(files: list[Path]) -> Plan:
    """Pieces of a few row groups each; every file must have the same columns."""
    schemas, pieces = [], []
    for path in files:
        with _naming(path), pq.ParquetFile(path) as file:
            schemas.append(_kept(file.schema_arrow))
            pieces += [{"path": str(path), **part} for part in _row_groups(file.metadata)]
    _same_columns(files, schemas)
    return Plan(unified(files, schemas), pieces, read_parquet)


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
    with _naming(piece["path"]), pq.ParquetFile(piece["path"]) as file:
        for batch in file.iter_batches(batch_size=piece["batch"], row_groups=piece["groups"]):
            yield conformed(pa.Table.from_batches([batch]), schema, piece["path"])


def plan_csv(files: list[Path]) -> Plan:
    """A piece per file. Types are inferred from the beginnings of up to 16 files; headers must be alike."""
    schemas = [_first_schema(path, _open_csv) for path in sampled(files)]
    _same_columns(sampled(files), schemas)
    return Plan(unified(sampled(files), schemas), [{"path": str(path)} for path in files], read_csv)


def read_csv(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a CSV file."""
    yield from _streamed(piece["path"], schema, _open_csv)


def plan_jsonl(files: list[Path]) -> Plan:
    """A piece per file. Types are inferred from the beginnings of up to 16 files; a field that is missing is null."""
    schemas = [_first_schema(path, _open_json) for path in sampled(files)]
    return Plan(unified(sampled(files), schemas), [{"path": str(path)} for path in files], read_jsonl)


def read_jsonl(piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a file of one JSON object per line."""
    yield from _streamed(piece["path"], schema, _open_json)


def _open_csv(path: str | Path, schema: pa.Schema | None) -> Any:
    types = {column.name: column.type for column in schema or ()}
    return csv.open_csv(
        path,
        read_options=csv.ReadOptions(block_size=BLOCK_BYTES if schema else SAMPLE_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


def _open_json(path: str | Path, schema: pa.Schema | None) -> Any:
    parse = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error") if schema else None
    return json.open_json(
        pa.input_stream(str(path)),  # unlike open_csv, open_json unpacks nothing by itself
        read_options=json.ReadOptions(block_size=JSON_BLOCK_BYTES, use_threads=False),
        parse_options=parse,
    )


def _streamed(path: str, schema: pa.Schema, opened: Callable[[str, pa.Schema], Any]) -> Iterator[pa.Table]:
    if _is_blank(path):
        return
    with _naming(path), opened(path, schema) as reader:
        for batch in reader:
            yield conformed(pa.Table.from_batches([batch]), schema, path)


def _first_schema(path: Path, opened: Callable[[Path, None], Any]) -> pa.Schema:
    if _is_blank(path):
        return pa.schema([])
    with _naming(path), opened(path, None) as reader:
        return reader.schema


def _is_blank(path: str | Path) -> bool:
    """Whether a file holds nothing; Arrow calls that an error, and it is only zero rows."""
    with _naming(path):
        return Path(path).stat().st_size == 0


def sampled(files: list[Path]) -> list[Path]:
    """Up to 16 of the files, from all over."""
    step = max(1, len(files) // SAMPLED_FILES)
    return files[::step][:SAMPLED_FILES]


def _same_columns(files: list[Path], schemas: list[pa.Schema]) -> None:
    known = [(path, schema) for path, schema in zip(files, schemas, strict=True) if len(schema)]
    for path, schema in known[1:]:
        first, expected = known[0]
        odd = sorted(set(schema.names) ^ set(expected.names))
        if odd:
            reason = f"column {odd[0]!r} is in only one of it and {first}"
            raise BadData(f"{path} has other columns", reason, "Give files of the same columns.")


def unified(files: list[Path], schemas: list[pa.Schema]) -> pa.Schema:
    """One schema for the files of these; columns of which nothing is known are text.

    Raises:
        BadData: naming the file that does not fit those before it.
    """
    whole = schemas[0]
    for path, schema in zip(files[1:], schemas[1:], strict=True):
        try:
            whole = pa.unify_schemas([whole, schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise BadData(f"{path} has another schema than the files before it", reason, "Make them alike.") from None
    repeated = next((name for name in whole.names if whole.names.count(name) > 1), None)
    if repeated is not None:
        raise BadData(f"{files[0]} has two columns named {repeated!r}", "names must differ", "Rename one.")
    return pa.schema([pa.field(c.name, _as_parquet_has(c.type)) for c in whole])


def _as_parquet_has(kind: pa.DataType) -> pa.DataType:
    """The type in which Parquet gives a column back: what is appended later is read as that."""
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return pa.time32("ms") if kind == pa.time32("s") else pa.date32() if kind == pa.date64() else kind


def _kept(schema: pa.Schema) -> pa.Schema:
    """The types in which columns are stored: Arrow's tensors become ours, which are read faster."""
    return pa.schema([pa.field(column.name, _kept_type(column.type)) for column in schema])


def _kept_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.FixedShapeTensorType) and not pa.types.is_boolean(kind.value_type):
        return TensorType(numpy_dtype(kind.value_type).name, tuple(kind.shape))
    return kind


def conformed(table: pa.Table, schema: pa.Schema, path: str) -> pa.Table:
    """The table in the dataset's schema, tensors as plain binary, as Ray's blocks carry them.

    Raises:
        BadData: a column is missing, or cannot be cast without loss.
    """
    columns = []
    extra = next((name for name in table.column_names if name not in schema.names), None)
    if extra is not None:
        raise BadData(f"{path} has a column {extra!r}", "the files before it have none", "Make them alike.")
    for column in schema:
        if column.name not in table.column_names:
            raise BadData(f"{path} has no column {column.name!r}", "the files before it have", "Make them alike.")
        try:
            columns.append(_stored(table[column.name], column.type))
        except pa.ArrowException as error:
            reason = f"column {column.name!r}: {str(error).splitlines()[0].rstrip('.')}"
            raise BadData(f"{path} does not fit the files before it", reason, "Make them alike.") from None
    return pa.table(columns, names=schema.names)


def _stored(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if not isinstance(kind, TensorType):
        return column.cast(kind)
    if isinstance(column.type, TensorType):
        if column.type != kind:
            raise pa.ArrowInvalid(f"it is {column.type}, not {kind}")
        return pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    if column.null_count:
        raise pa.ArrowInvalid(f"{column.null_count} nulls among tensors")
    if numpy_dtype(column.type.value_type) != kind.dtype or tuple(column.type.shape) != kind.shape:
        raise pa.ArrowInvalid(f"it is {column.type}, not {kind}")
    chunks = [_bytes_of(chunk, kind) for chunk in column.chunks]
    return pa.chunked_array(chunks, kind.storage_type)


def _bytes_of(chunk: Any, kind: TensorType) -> pa.Array:
    from headway.data.tensors import column

    rows = chunk.to_numpy_ndarray()
    return column(rows.astype(kind.dtype, copy=False)).storage
