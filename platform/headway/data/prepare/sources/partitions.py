"""Columns whose values are in the names of folders, as Hive, Spark, Dask and pandas write them: `year=2024/part-0.csv`.

Names and values are decoded as URLs; `__HIVE_DEFAULT_PARTITION__` is null. A column whose values are all whole numbers
is of such, as pyarrow has it, else it is text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from headway.data.prepare.sources.listing import Piece, Plan
from headway.errors import BadData

NULL = "__HIVE_DEFAULT_PARTITION__"
Values = dict[str, str | None]


def values_of(root: Path, path: Path) -> Values:
    """What the names of the folders between a source and a file of it say.

    Raises:
        BadData: two of them say different things of one column.
    """
    found: Values = {}
    for part in path.relative_to(root).parts[:-1]:
        name, sign, value = part.partition("=")
        if name and sign:
            column, text = unquote(name), unquote(value)
            kept = None if text in (NULL, "") else text
            if found.setdefault(column, kept) != kept:
                reason = f"they say {found[column]!r} and {kept!r}"
                raise BadData(f"{path} lies in two folders {name}=...", reason, "Rename one of the folders.")
    return found


def with_partitions(plan: Plan, root: Path, files: Sequence[Path]) -> Plan:
    """The plan with a column for each that folders name, behind those of the files.

    Args:
        plan: of pieces that say their `path`.
        root: the source; names above it say nothing.
        files: of the plan, below the root.

    Raises:
        BadData: a file has such a column too, of another type.
    """
    if not root.is_dir():
        return plan
    by_file = {str(path): values_of(root, path) for path in files}
    names = list(dict.fromkeys(name for values in by_file.values() for name in values))
    if not names:
        return plan
    notes, fields, kinds = [], [], {}
    for name in names:
        texts = [values.get(name) for values in by_file.values()]
        kinds[name] = _kind(texts)
        if any(name not in values for values in by_file.values()):
            path = next(path for path, values in by_file.items() if name not in values)
            notes.append(f"column {name!r} is null where no folder names it, as for {path}")
        if (
            name not in plan.schema.names
            and kinds[name] != pa.string()
            and any(_leads_with_zero(text) for text in texts)
        ):
            notes.append(
                f"column {name!r} is kept as whole numbers: without the zeros that lead them in folders' names"
            )
        if name not in plan.schema.names:
            fields.append(pa.field(name, kinds[name]))
    pieces = [{**piece, "partition": by_file[piece["path"]]} for piece in plan.pieces]
    read = Partitioned(plan.read, tuple(plan.schema.names))
    schema = pa.schema([*plan.schema, *fields])
    return replace(plan, schema=schema, pieces=pieces, read=read, notes=[*plan.notes, *notes])


def _kind(texts: Sequence[str | None]) -> pa.DataType:
    if all(text is None for text in texts):
        return pa.string()
    for kind in (pa.int32(), pa.int64()):
        if all(text is None or _is_whole(text, kind.bit_width) for text in texts):
            return kind
    return pa.string()


def _is_whole(text: str, bits: int) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and -(2 ** (bits - 1)) <= int(text) < 2 ** (bits - 1)


def _leads_with_zero(text: str | None) -> bool:
    digits = (text or "").removeprefix("-")
    return digits.startswith("0") and digits != "0"


@dataclass(frozen=True)
class Partitioned:
    """Reads a piece, and adds the columns that its folders name.

    Args:
        read: of the file.
        names: of the columns that files have.
    """

    read: Any
    names: tuple[str, ...]

    def __call__(self, piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
        """The tables of one piece.

        Raises:
            BadData: the file has a column that a folder names, with other values, or the dataset that is appended to
                has it of another type.
        """
        values: Values = piece["partition"]
        inner = pa.schema([column for column in schema if column.name in self.names])
        for table in self.read(piece, inner):
            columns = []
            for column in schema:
                if column.name in self.names:
                    found = table[column.name]
                    if column.name in values:
                        self._agrees(piece["path"], column.name, found, values[column.name])
                    columns.append(found)
                else:
                    value = self._value(piece["path"], column, values.get(column.name))
                    columns.append(pa.chunked_array([pa.repeat(value, table.num_rows)]))
            yield pa.table(columns, names=schema.names)

    @staticmethod
    def _value(path: str, column: pa.Field, text: str | None) -> pa.Scalar:
        try:
            return pa.scalar(text, pa.string()).cast(column.type)
        except pa.ArrowException:
            fact, reason = f"{path} lies in a folder {column.name}={text}", f"the dataset has {column.type} there"
            raise BadData(fact, reason, "Rename the folder, or prepare a new dataset of all.") from None

    def _agrees(self, path: str, name: str, found: pa.ChunkedArray, text: str | None) -> None:
        try:
            value = pa.scalar(text, pa.string()).cast(found.type)
            same = (
                found.null_count == len(found) if text is None else pc.all(pc.equal(found, value), min_count=0).as_py()
            )
            same = same and (text is None or not found.null_count)
        except pa.ArrowException:
            same = False
        if not same:
            reason = f"the file has such a column too, with other values than {text}"
            raise BadData(f"{path} lies in a folder {name}=...", reason, "Rename the folders, or the column.")
