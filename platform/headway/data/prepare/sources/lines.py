"""JSON lines: one object per line, or one array of objects, in any encoding; fields may come and go.

Arrow reads what is regular. What it refuses, and whole numbers that it would round, is read again line by line by
Python's own reader, which is slower, and says which line is at fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as arrow_json

from headway.data import kinds
from headway.data.prepare.sources.delimited import EXACT, ROUNDED, grown, may_be_rounded
from headway.data.prepare.sources.encodings import misencoded, opened
from headway.data.prepare.sources.listing import Piece, Plan, Reading
from headway.data.prepare.sources.tables import conformed, left, naming, sampled, unified
from headway.errors import BadData

BLOCK_BYTES = 16 << 20
SAMPLED_FILES = 2048
SAMPLE_BYTES, LEAST_SAMPLE_BYTES = 64 << 20, 64 << 10
BATCH_ROWS, BATCH_CHARS = 4096, 4 << 20
COUNT = pa.uint32()
"""Stands for whole numbers that an int64 and a uint64 can hold."""
WHOLE = ((COUNT, 0, 2**63), (pa.int64(), -(2**63), 0), (pa.uint64(), 2**63, 2**64))
LONGEST_LINE_SHOWN = 60

Row = dict[str, Any]
Place = tuple[str, ...]
"""Of a value in a row: names of a column and of fields within it, [] for items of lists."""


def plan_jsonl(files: list[Path], reading: Reading = Reading()) -> Plan:
    """A piece per file. Types are found in the beginnings of up to 2,048 files; a field that is missing is null.

    Raises:
        BadData: naming the file, and the line, that cannot be read or does not fit the others.
    """
    some = sampled(files, SAMPLED_FILES)
    block = min(BLOCK_BYTES, max(LEAST_SAMPLE_BYTES, SAMPLE_BYTES // max(1, len(some))))
    schemas, notes = [], []
    long: set[Place] = set()
    for path in some:
        schema, told = _typed(path, reading, block, long)
        schemas.append(schema)
        notes += told
    empty = _empty([column for schema in schemas for column in schema])
    pieces = [{"path": str(path)} for path in files]
    schema = unified(some, schemas)
    rounded = [place for place in _doubles(schema) if place in long]
    read = partial(read_jsonl, reading=reading, empty=empty, rounded=frozenset(place[0] for place in rounded))
    notes += left(some, schemas)
    notes += [ROUNDED.format(".".join(place).replace(".[]", "[]")) for place in rounded]
    return Plan(schema, pieces, read, notes=list(dict.fromkeys(notes)))


def read_jsonl(
    piece: Piece,
    schema: pa.Schema,
    reading: Reading = Reading(),
    empty: dict[str, Any] | None = None,
    rounded: frozenset[str] = frozenset(),
) -> Iterator[pa.Table]:
    """The rows of a file of JSON objects.

    Args:
        piece: says which.
        schema: of the dataset.
        reading: how.
        empty: fields that are known to hold nothing, by name: None, or those within it.
        rounded: columns whose whole numbers may be rounded to doubles, as was said; in others they are refused.
    """
    path, done = piece["path"], 0
    if _begins(path, reading) == b"{":
        explicit = pa.schema([pa.field(c.name, _with_empty(c.type, (empty or {}).get(c.name))) for c in schema])
        for name, within in (empty or {}).items():
            if name not in schema.names and within is None:
                explicit = explicit.append(pa.field(name, pa.struct([])))
        try:
            for batch in grown(partial(_open, path, reading, explicit), BLOCK_BYTES):
                batch.validate(full=True)
                if any(_is_rounded(batch[name]) for name in batch.schema.names if name not in rounded):
                    break
                yield conformed(pa.Table.from_batches([batch]), schema, path)
                done += batch.num_rows
            else:
                return
        except (pa.ArrowException, ValueError, RecursionError):
            pass  # what is wrong, and where, is found below
    objects = islice(_objects(path, reading), done, None)
    while rows := _some(objects):
        columns = [_column(path, rows, column, column.name in rounded) for column in schema]
        _no_others(path, rows, schema.names)
        yield conformed(pa.table(columns, schema=schema), schema, path)


def _open(path: str | Path, reading: Reading, schema: pa.Schema | None, *, block: int) -> Any:
    parse = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error") if schema else None
    return arrow_json.open_json(
        opened(path, reading.encoding),
        read_options=arrow_json.ReadOptions(block_size=block, use_threads=False),
        parse_options=parse,
    )


def _begins(path: str | Path, reading: Reading) -> bytes:
    """The first byte of a file's text; empty where there is none."""
    with naming(path):
        if Path(path).stat().st_size == 0:
            return b""
        with opened(path, reading.encoding) as stream:
            try:
                begin: bytes = stream.read(1 << 16)
            except UnicodeDecodeError:
                raise misencoded(path, reading.encoding) from None
    return begin.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _typed(path: Path, reading: Reading, block: int, long: set[Place]) -> tuple[pa.Schema, list[str]]:
    """The types of a file's first block, and what is to be said of them; `long` gets places of `_too_long`."""
    first = _begins(path, reading)
    if first == b"{":
        try:
            batch = next(grown(partial(_open, path, reading, None), block), None)
            if batch is not None:
                batch.validate(full=True)
                if not any(_is_rounded(column) for column in batch.columns):
                    for name, column in zip(batch.schema.names, batch.columns, strict=True):
                        long.update(_too_long_in(column, (name,)))
                    return pa.schema([pa.field(c.name, _as_text(c.type)) for c in batch.schema]), []
        except (pa.ArrowException, ValueError, RecursionError):
            pass  # what is wrong, and where, is found below
    found: pa.DataType = pa.null()
    said: list[str] = []
    size = 0
    for number, row, length in _objects(path, reading):
        try:
            found = _joined(found, _kind(row), said)
            long.update(_too_long(row))
        except RecursionError:
            fact = f"{path} cannot be read: line {number:,} is nested too deeply"
            raise BadData(fact, "", "Keep what is in it as text.") from None
        except TypeError as error:
            reason = f"it is {_signed(error.args[2])} there and {_signed(error.args[1])} in lines before"
            remedy = "Write it alike in all lines, or prepare them apart."
            raise BadData(f"{path}, line {number:,}: {error.args[0]!r} is of two kinds", reason, remedy) from None
        size += length
        if size > block:
            break
    fields = list(_signed(found)) if pa.types.is_struct(found) else []
    return pa.schema(fields), list(dict.fromkeys(said))


def _signed(kind: pa.DataType) -> pa.DataType:
    """A type without COUNT in it."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _signed(field.type)) for field in kind])
    return pa.list_(_signed(kind.value_type)) if pa.types.is_list(kind) else pa.int64() if kind == COUNT else kind


def _as_text(kind: pa.DataType) -> pa.DataType:
    """JSON knows no times: what Arrow would make of some texts is text."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _as_text(field.type)) for field in kind])
    return pa.list_(_as_text(kind.value_type)) if pa.types.is_list(kind) else kind


def _is_rounded(column: pa.Array) -> bool:
    """Whether there may be whole numbers in it that have been rounded."""
    if pa.types.is_struct(column.type):
        return any(_is_rounded(column.field(index)) for index in range(column.type.num_fields))
    if pa.types.is_list(column.type):
        return _is_rounded(column.flatten())
    return may_be_rounded(column)


def _too_long_in(column: pa.Array, place: Place) -> Iterator[Place]:
    """As `_too_long`, of what Arrow has read."""
    if pa.types.is_struct(column.type):
        for index, field in enumerate(column.type):
            yield from _too_long_in(column.field(index), (*place, field.name))
    elif pa.types.is_list(column.type):
        yield from _too_long_in(column.flatten(), (*place, "[]"))
    elif column.type == pa.int64():
        found = pc.min_max(column)
        if any(abs(end.as_py() or 0) > EXACT for end in found.values()):
            yield place


def _too_long(value: Any, place: Place = ()) -> Iterator[Place]:
    """The places of whole numbers in it that no double holds."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _too_long(inner, (*place, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _too_long(inner, (*place, "[]"))
    elif isinstance(value, int) and not _is_exact(value):
        yield place


def _is_exact(value: int) -> bool:
    """Whether a double holds it."""
    return abs(value) <= EXACT or (abs(value) < 2**64 and int(float(value)) == value)


def _doubles(kind: Iterable[pa.Field], place: Place = ()) -> Iterator[Place]:
    """The places of doubles in columns, or in the fields of a struct."""
    for field in kind:
        inner, here = field.type, (*place, field.name)
        while pa.types.is_list(inner):
            inner, here = inner.value_type, (*here, "[]")
        if pa.types.is_struct(inner):
            yield from _doubles(inner, here)
        elif inner == pa.float64():
            yield here


def _kind(value: Any) -> pa.DataType:
    match value:
        case None:
            return pa.null()
        case bool():
            return pa.bool_()
        case int():
            return next((kind for kind, low, high in WHOLE if low <= value < high), pa.string())
        case float():
            return pa.float64()
        case dict():
            return pa.struct([(name, _kind(inner)) for name, inner in value.items()])
        case list():
            found: pa.DataType = pa.null()
            for inner in value:
                found = _joined(found, _kind(inner), [], "an item of a list")
            return pa.list_(found)
    return pa.string()


def _joined(one: pa.DataType, other: pa.DataType, said: list[str], where: str = "") -> pa.DataType:
    """The type of values of both; single values of different kinds are text, of which a note is made.

    Raises:
        TypeError: of the field, and the two types that have nothing in common.
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {field.name: field.type for field in one}
        for field in other:
            before = fields.get(field.name)
            inner = f"{where}.{field.name}" if where else field.name
            fields[field.name] = field.type if before is None else _joined(before, field.type, said, inner)
        return pa.struct(list(fields.items()))
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_joined(one.value_type, other.value_type, said, f"{where}[]"))
    if pa.types.is_nested(one) or pa.types.is_nested(other):
        raise TypeError(where, one, other)
    both = {one, other}
    if both <= {COUNT, pa.int64(), pa.uint64(), pa.float64()} and both != {pa.int64(), pa.uint64()}:
        return pa.float64() if pa.float64() in both else next(iter(both - {COUNT}))
    names = " and ".join(str(_signed(kind)) for kind in (one, other))
    said.append(f"{where!r} holds values of different kinds ({names}), and is kept as text")
    return pa.string()


def _objects(path: str | Path, reading: Reading) -> Iterator[tuple[int, Row, int]]:
    """The objects of a file: pairs of (line, object, characters). Blank lines are none.

    Raises:
        BadData: a line is no object, or not of the encoding.
    """
    if _begins(path, reading) == b"[":
        yield from _of_array(path, reading)
        return
    with naming(path), opened(path, reading.encoding) as stream:
        lines = _lines(path, stream, reading)
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text:
                row = _parsed(path, number, text)
                if not isinstance(row, dict):
                    shown = text if len(text) <= LONGEST_LINE_SHOWN else f"{text[:LONGEST_LINE_SHOWN]}..."
                    fact = f"{path} cannot be read: line {number:,} is no object"
                    raise BadData(fact, f"it is {shown}", "Write one object a line, or one array of objects.")
                yield number, row, len(text)


def _of_array(path: str | Path, reading: Reading) -> Iterator[tuple[int, Row, int]]:
    with naming(path), opened(path, reading.encoding) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise misencoded(path, reading.encoding) from None
    for number, row in enumerate(_parsed(path, 1, text), 1):
        if not isinstance(row, dict):
            raise BadData(f"{path} cannot be read: item {number:,} is no object", "", "Write an array of objects.")
        yield number, row, len(text)


def _lines(path: str | Path, stream: Any, reading: Reading) -> Iterator[str]:
    rest, first = b"", True
    try:
        while block := stream.read(1 << 20):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line.decode("utf-8-sig" if first else "utf-8")
                first = False
        yield rest.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError:
        raise misencoded(path, reading.encoding) from None


def _parsed(path: str | Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        shown = text if len(text) <= LONGEST_LINE_SHOWN else f"{text[:LONGEST_LINE_SHOWN]}..."
        fact = f"{path} cannot be read: line {number:,} is no JSON"
        raise BadData(fact, f"{error}: {shown}", "Mend or remove it.") from None


def _some(objects: Iterator[tuple[int, Row, int]]) -> list[tuple[int, Row]]:
    """The next objects, with their lines."""
    found: list[tuple[int, Row]] = []
    size = 0
    for number, row, length in objects:
        found.append((number, row))
        size += length
        if len(found) == BATCH_ROWS or size > BATCH_CHARS:
            break
    return found


def _column(path: str, rows: Sequence[tuple[int, Row]], column: pa.Field, rounded: bool) -> pa.Array:
    name, values = column.name, []
    for number, row in rows:
        try:
            values.append(_valued(row.get(name), column.type, rounded))
        except OverflowError as error:
            raise BadData(
                f"{path} cannot be read: line {number:,} has {error} in column {name!r}",
                "other lines, or the dataset appended to, say that it is double, which cannot hold all of its digits",
                f"Write it with a fraction ({error}.0): then it is rounded, as such numbers are.",
            ) from None
        except (TypeError, ValueError, pa.ArrowException) as error:
            raise BadData(
                f"{path} cannot be read: line {number:,} does not fit in column {name!r}",
                f"{error}, and the first lines of the files say that it is {column.type}, or the dataset that is "
                "appended to",
                "Mend it, or prepare a new dataset with a line like it at the top: then all of the column is read so.",
            ) from None
    try:
        return pa.array(values, column.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        first, last = rows[0][0], rows[-1][0]
        fact = f"{path} cannot be read: column {name!r} of lines {first:,} to {last:,} is not {column.type}"
        raise BadData(fact, str(error).splitlines()[0].rstrip("."), "Mend it.") from None


def _valued(value: Any, kind: pa.DataType, rounded: bool) -> Any:
    """A value as one of a type; numbers are text as JSON writes them. `rounded`: whole ones may be rounded to doubles.

    Raises:
        TypeError: it is none.
        OverflowError: of a whole number that would be rounded.
    """
    if value is None:
        return None
    if pa.types.is_struct(kind) and isinstance(value, dict):
        names = {field.name for field in kind}
        odd = next((name for name, inner in value.items() if name not in names and not _is_nothing(inner)), None)
        if odd is not None:
            raise TypeError(f"it has a field {odd!r}, which is new")
        return {field.name: _valued(value.get(field.name), field.type, rounded) for field in kind}
    if (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)) and isinstance(value, list):
        return [_valued(inner, kind.value_type, rounded) for inner in value]
    if pa.types.is_string(kind) and not isinstance(value, dict | list):
        text = value if isinstance(value, str) else json.dumps(value)
        text.encode()  # half of a surrogate pair is no text
        return text
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    fits = (
        (pa.types.is_boolean(kind) and isinstance(value, bool))
        or (pa.types.is_integer(kind) and is_whole)
        or (pa.types.is_floating(kind) and (is_whole or isinstance(value, float)))
    )
    if fits:
        if pa.types.is_floating(kind) and is_whole and not rounded and not _is_exact(value):
            raise OverflowError(value)
        return float(value) if pa.types.is_floating(kind) else value
    if (isinstance(value, str) and not pa.types.is_primitive(kind)) or pa.types.is_temporal(kind):
        return pa.scalar(value).cast(kind).as_py()
    raise TypeError(f"it has {json.dumps(value)[:LONGEST_LINE_SHOWN]}")


def _is_nothing(value: Any) -> bool:
    """Whether there is nothing to keep in it."""
    return value is None or (isinstance(value, dict) and all(map(_is_nothing, value.values())))


def _no_others(path: str, rows: Sequence[tuple[int, Row]], names: Sequence[str]) -> None:
    known = set(names)
    for number, row in rows:
        odd = next((name for name in row if name not in known and not _is_empty(row[name])), None)
        if odd is not None:
            fact = f"{path} cannot be read: line {number:,} has a field {odd!r}"
            reason = "the first lines of the files have none"
            raise BadData(fact, reason, "Put a line that has it at the top, or leave it out.")


def _is_empty(value: Any) -> bool:
    """Whether a field of it was left out: it holds nothing, or lists of nothing."""
    return _is_nothing(value) or (isinstance(value, list) and all(map(_is_empty, value)))


def _empty(columns: Sequence[pa.Field]) -> dict[str, Any]:
    """By name, the columns and the fields within them that hold nothing."""
    found: dict[str, Any] = {}
    for column in columns:
        if kinds.kept(column.type) is None:
            found.setdefault(column.name, None)
        elif pa.types.is_struct(column.type) and (within := _empty(list(column.type))):
            found[column.name] = within
    return found


def _with_empty(kind: pa.DataType, empty: dict[str, Any] | None) -> pa.DataType:
    """A type as it is in the file, with what holds nothing."""
    if not empty or not pa.types.is_struct(kind):
        return kind
    fields = [pa.field(field.name, _with_empty(field.type, empty.get(field.name))) for field in kind]
    names = {field.name for field in fields}
    return pa.struct([*fields, *[pa.field(name, pa.struct([])) for name in empty if name not in names]])
