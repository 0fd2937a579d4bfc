"""CSV: a header and rows, separated by commas, semicolons, tabs or bars, in any encoding.

Types come from the beginnings of the files, as pandas finds them: whole numbers, numbers, true and false; and beyond
pandas dates, times and timestamps in ISO 8601. What does not fit all values of a column is text. Nothing is changed
on the way: what a number could not hold (more digits, hexadecimal) stays text.
"""

from __future__ import annotations

import csv as plain_csv
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from headway.data.prepare.sources.encodings import misencoded, opened
from headway.data.prepare.sources.listing import Piece, Plan, Reading
from headway.data.prepare.sources.tables import conformed, left, naming, same_columns, sampled, unified
from headway.errors import BadData

SAMPLED_FILES = 2048
SAMPLE_BYTES, LEAST_SAMPLE_BYTES, MOST_SAMPLE_BYTES = 64 << 20, 64 << 10, 16 << 20
BLOCK_BYTES, LARGEST_BLOCK_BYTES = 4 << 20, 1 << 30
LOOKED_BYTES, HEADER_BYTES = 64 << 10, 8 << 20
SEPARATORS = (";", "\t", "|")
NAMES = {";": "semicolons", "\t": "tabs", "|": "bars"}
TRUE, FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
TOLD = re.compile(r"sep=(.)\r?\n")
EXACT = 2.0**53
WHOLE, ZEROS, LONG = r"^\s*[+-]?[0-9]+\s*$", r"^\s*[+-]?0[0-9]", r"[0-9]{16}"
ROUNDED = "column {!r} is kept as numbers of double precision: some of its whole ones have more digits"
MISFIT = re.compile(
    r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\S+?): (?:invalid value '(.*)')?", re.S
)


@dataclass(frozen=True)
class Layout:
    """How a file is laid out.

    Args:
        names: of its columns.
        separator: between fields.
        skip: rows before the first of values: the header, and blank lines above it.
        notes: what was changed in names, and an uncommon separator.
    """

    names: list[str]
    separator: str
    skip: int
    notes: tuple[str, ...] = ()


def plan_csv(files: list[Path], reading: Reading = Reading()) -> Plan:
    """A piece per file. Types are found in the beginnings of up to 2,048 files; the headers of all must be alike.

    Raises:
        BadData: naming the file that cannot be read, is not of the encoding, or does not fit the others.
    """
    layouts = [layout(path, reading) for path in files]
    headers = [
        pa.schema([(name, pa.string()) for name in found.names]) if found else pa.schema([]) for found in layouts
    ]
    same_columns(files, headers)
    some = sampled(files, SAMPLED_FILES)
    block = min(MOST_SAMPLE_BYTES, max(LEAST_SAMPLE_BYTES, SAMPLE_BYTES // max(1, len(some))))
    schemas, notes = [], [note for found in layouts if found for note in found.notes]
    long: set[str] = set()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Arrow reads without the interpreter's lock
        for schema, told in pool.map(lambda path: _typed(path, reading, block, long), some):
            schemas.append(schema)
            notes += told
    pieces = [{"path": str(path)} for path in files]
    notes += left(some, schemas)
    schema = unified(some, schemas)
    rounded = [column.name for column in schema if column.type == pa.float64() and column.name in long]
    notes += map(ROUNDED.format, rounded)
    read = partial(read_csv, reading=reading, rounded=frozenset(rounded))
    return Plan(schema, pieces, read, notes=list(dict.fromkeys(notes)))


def read_csv(
    piece: Piece,
    schema: pa.Schema,
    reading: Reading = Reading(),
    rounded: frozenset[str] = frozenset(),
) -> Iterator[pa.Table]:
    """The rows of a CSV file.

    Args:
        piece: says which.
        schema: of the dataset.
        reading: how.
        rounded: columns whose whole numbers may be rounded to doubles, as was said; in others they are refused.
    """
    path = piece["path"]
    found = layout(path, reading)
    if found is None:
        return
    types = {c.name: c.type if _is_parsed(c.type) else pa.string() for c in schema}
    sure = set(rounded)
    with _reading(path, reading, found):
        for batch in grown(partial(_open, path, reading, found, types), BLOCK_BYTES):
            doubtful = [c.name for c in batch.schema if c.name not in sure and may_be_rounded(batch[c.name])]
            if doubtful:
                _check_exact(path, reading, found, doubtful)
                sure.update(doubtful)
            yield conformed(pa.Table.from_batches([batch]), schema, path)


def may_be_rounded(column: pa.Array) -> bool:
    """Whether there are doubles in it so large that they may be whole numbers of more digits."""
    return bool(column.type == pa.float64() and pc.any(pc.greater_equal(pc.abs(column), EXACT)).as_py())


def _check_exact(path: str | Path, reading: Reading, found: Layout, names: Sequence[str]) -> None:
    """Refuse whole numbers of a file that have more digits than a double.

    Raises:
        BadData: naming the first of a column.
    """
    at = 2
    for batch in grown(partial(_open, path, reading, found, dict.fromkeys(names, pa.string()), names), BLOCK_BYTES):
        for name, texts in zip(batch.schema.names, batch.columns, strict=True):
            long = pc.and_(pc.match_substring_regex(texts, WHOLE), pc.match_substring_regex(texts, LONG))
            for row in np.flatnonzero(pc.fill_null(long, False).to_numpy(zero_copy_only=False)):
                text = texts[int(row)].as_py().strip()
                if int(text) != int(float(text)):
                    raise BadData(
                        f"{path} cannot be read: row {at + row:,} has {text} in column {name!r}",
                        "other rows, or the dataset appended to, say that it is double, which cannot hold its digits",
                        f"Write it with a fraction ({text}.0): then it is rounded, as such numbers are.",
                    )
        at += batch.num_rows


def layout(path: str | Path, reading: Reading) -> Layout | None:
    """How a file is laid out; None where it holds nothing.

    Raises:
        BadData: it is not of the encoding, or has no header.
    """
    with naming(path):
        if Path(path).stat().st_size == 0:
            return None
        with opened(path, reading.encoding) as stream:
            try:
                data = stream.read(LOOKED_BYTES)
                if data.count(b"\n") + data.count(b"\r") < 2:
                    data += stream.read(HEADER_BYTES)
                begin = data.decode("utf-8-sig", errors="ignore")
            except UnicodeDecodeError:
                raise misencoded(path, reading.encoding) from None
    skip, told = 0, TOLD.match(begin)
    if told is not None:  # by Excel
        begin, skip = begin[told.end() :], 1
    for row in _rows(begin, ","):
        if row:
            break
        skip += 1
    else:
        return None
    is_tabbed = str(path).lower().partition(".tsv")[1] == ".tsv"
    separator = "\t" if is_tabbed else "," if len(row) > 1 else _separator(begin)
    separator = separator if told is None else told.group(1)
    if separator != ",":
        row = next(found for found in _rows(begin, separator) if found)
    notes = []
    if separator != "," and not is_tabbed and told is None:
        notes.append(f"{Path(path).name} is separated by {NAMES[separator]}, as its first rows are")
    names = [name or f"Unnamed: {at}" for at, name in enumerate(row)]
    if names != row:
        notes.append(f"a column has no name in the header, and is called {names[row.index('')]!r}, as by pandas")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise BadData(f"{path} has two columns named {repeated!r}", "names must differ", "Rename one.")
    return Layout(names, separator, skip + 1, tuple(notes))


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    reader = plain_csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    while True:
        try:
            yield next(reader)
        except (StopIteration, plain_csv.Error):
            return


def _separator(begin: str) -> str:
    """What separates the fields of a file that has no comma in its header: what gives all first rows one width."""
    for separator in SEPARATORS:
        rows = [row for row, _ in zip(_rows(begin, separator), range(20), strict=False) if row]
        if len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows[:-1] or rows):
            return separator
    return ","


def _typed(path: Path, reading: Reading, block: int, long: set[str]) -> tuple[pa.Schema, list[str]]:
    """The types of a file's first block, and what is to be said of them.

    `long` gets columns of whole numbers that no double holds, which they must not become in silence for other files.
    """
    found = layout(path, reading)
    if found is None:
        return pa.schema([]), []
    with _reading(path, reading, found):
        batch = next(grown(partial(_open, path, reading, found, {}), block), None)
        if batch is None:
            return pa.schema([(name, pa.null()) for name in found.names]), []
        if any(pa.types.is_binary(kind) for kind in batch.schema.types):
            raise misencoded(path, reading.encoding)
        numbers = [name for name, column in zip(batch.schema.names, batch.columns, strict=True) if _is_doubtful(column)]
        as_text = dict.fromkeys(numbers, pa.string())
        texts = next(grown(partial(_open, path, reading, found, as_text, numbers), block)) if numbers else None
    fields, notes = [], []
    for column in batch.schema:
        kind, note = column.type, None
        if texts is not None and column.name in numbers:
            kind, note = _number(column, texts[column.name].drop_null())
        fields.append(pa.field(column.name, kind))
        if note == ROUNDED.format(column.name) or (pa.types.is_integer(kind) and _is_long(batch[column.name], kind)):
            long.add(column.name)
        notes += [note] if note else []
    return pa.schema(fields), notes


def _is_long(column: pa.Array, kind: pa.DataType) -> bool:
    """Whether it has whole numbers beyond those that a double holds."""
    return kind == pa.uint64() or any(abs(end.as_py() or 0) > EXACT for end in pc.min_max(column).values())


def _is_doubtful(column: pa.Array) -> bool:
    """Whether how a column is written may say that it is of other numbers than Arrow sees, or of none."""
    if column.type != pa.float64():
        return bool(column.type == pa.int64())
    known = column.drop_null()
    odd = pc.or_(pc.greater_equal(pc.abs(known), EXACT), pc.is_nan(known))
    return bool(pc.any(odd).as_py() or pc.all(pc.equal(known, pc.floor(known))).as_py())


def _number(column: pa.Field, texts: pa.Array) -> tuple[pa.DataType, str | None]:
    """The type for a column in which Arrow sees numbers, by how they are written; and what is to be said."""
    name, kind = column.name, column.type
    if kind == pa.int64():
        if pc.any(pc.match_substring(texts, "x", ignore_case=True)).as_py():
            return pa.string(), None  # hexadecimal, which Arrow reads and pandas leaves
        led = texts.filter(
            pc.or_(pc.less(texts, "1"), pc.starts_with(texts, "-0"))
        )  # few, as the first character is it
        if pc.any(pc.match_substring_regex(led, ZEROS)).as_py():
            return kind, f"column {name!r} is kept as whole numbers, as by pandas: without the zeros that lead them"
        return kind, None
    whole = pc.match_substring_regex(texts, WHOLE)
    if pc.all(whole).as_py():
        try:
            pc.cast(pc.utf8_trim_whitespace(texts), pa.uint64())
            return pa.uint64(), None
        except pa.ArrowInvalid:
            return pa.string() if pc.any(pc.match_substring_regex(texts, LONG)).as_py() else kind, None
    if pc.any(pc.match_substring_regex(texts.filter(whole), LONG)).as_py():
        return kind, ROUNDED.format(name)
    if pc.any(pc.equal(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), "nan")).as_py():
        return kind, f"column {name!r} is kept as numbers: nan is one of them"
    return kind, None


def _open(
    path: str | Path,
    reading: Reading,
    found: Layout,
    types: dict[str, pa.DataType],
    only: Sequence[str] = (),
    *,
    block: int = BLOCK_BYTES,
) -> Any:
    return csv.open_csv(
        opened(path, reading.encoding),
        read_options=csv.ReadOptions(
            block_size=block, use_threads=False, column_names=found.names, skip_rows_after_names=found.skip
        ),
        parse_options=csv.ParseOptions(delimiter=found.separator, newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=types,
            include_columns=list(only),
            null_values=list(reading.null_values),
            strings_can_be_null=reading.text_has_nulls,
            quoted_strings_can_be_null=True,
            true_values=TRUE,
            false_values=FALSE,
        ),
    )


def grown(opened_with: Callable[..., Any], block: int) -> Iterator[pa.RecordBatch]:
    """The batches of a reader that must hold each row in one block: with larger ones where a row is larger."""
    done = 0
    while True:
        skip = done
        try:
            with opened_with(block=block) as reader:
                for batch in reader:
                    rest = batch.slice(min(skip, batch.num_rows))
                    skip -= batch.num_rows - rest.num_rows
                    done += rest.num_rows
                    if rest.num_rows:
                        yield rest
            return
        except pa.ArrowInvalid as error:
            if ("straddl" not in str(error) and "out of sync" not in str(error)) or block >= LARGEST_BLOCK_BYTES:
                raise
            block *= 4


@contextmanager
def _reading(path: str | Path, reading: Reading, found: Layout) -> Iterator[None]:
    """Errors of Arrow as errors that name file, row and column."""
    try:
        yield
    except UnicodeDecodeError:
        raise misencoded(path, reading.encoding) from None
    except pa.ArrowInvalid as error:
        text = str(error)
        if "invalid UTF8" in text:
            raise misencoded(path, reading.encoding) from None
        misfit = MISFIT.match(text)
        if misfit is None:
            with naming(path):
                raise
        column, row, kind, value = misfit.groups()
        where = f"row {int(row):,} has " if row else ""
        raise BadData(
            f"{path} cannot be read: {where}{value!r} in column {found.names[int(column)]!r}",
            f"the first rows of the files say that it is {kind}, or the dataset that is appended to",
            "Mend it, or prepare a new dataset with a row like it at the top: then all of the column is read so.",
        ) from None
    except (OSError, ValueError, EOFError, pa.ArrowException):
        with naming(path):
            raise


def _is_parsed(kind: pa.DataType) -> bool:
    """Whether Arrow's reader makes such values by itself."""
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    time = pa.types.is_date32(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind)
    return bool((number and kind != pa.float16()) or time or pa.types.is_decimal(kind))
