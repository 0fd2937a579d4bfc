"""What a model is used on: a dataset, files as `headway data prepare` reads them, or a table in memory.

A source is cut into pieces, in the order of its rows. A piece is read by itself, by whatever process, and gives the
same rows each time; its predictions are one part of the output.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from headway.data import manifest as manifests
from headway.data.prepare.options import Options
from headway.data.prepare.sources import frames
from headway.data.prepare.sources.planned import planned
from headway.data.prepare.steps.recipe import Recipe
from headway.data.read.groups import Groups
from headway.data.store.cache import open_files
from headway.data.tensors import TensorType
from headway.errors import BadData
from headway.job import Data
from headway.storage.opener import is_url, local_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PART_ROWS = 65_536
"""Of a dataset's piece, or one row group where that has more."""
PART_BYTES = 64 << 20
IN_MEMORY = "a table in memory"


@dataclass(frozen=True)
class Piece:
    """Rows that are read together.

    Args:
        what: plain values that the source's `read` understands.
        rows: how many; None where that is not known before they are read.
    """

    what: Any
    rows: int | None = None


@dataclass(frozen=True)
class Source:
    """See the module.

    Args:
        said: as it was given, for people.
        digest: another one where the rows may be others.
        schema: of the tables.
        pieces: in the order of rows.
        read: gives the tables of a piece; can be pickled.
        label: the column that is predicted, where the source says so.
        categories: names behind integer codes, by column.
        notes: for people: what is not kept, or was changed.
        bytes: as stored.
    """

    said: str
    digest: str
    schema: pa.Schema
    pieces: tuple[Piece, ...]
    read: Callable[[Any], Iterator[pa.Table]] = field(repr=False)
    label: str | None = None
    categories: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    bytes: int = 0

    @property
    def rows(self) -> int | None:
        """Of all pieces; None where that is not known before they are read."""
        known = [piece.rows for piece in self.pieces if piece.rows is not None]
        return sum(known) if len(known) == len(self.pieces) else None

    def counted(self) -> Source:
        """The same with the rows of every piece known; those of which they are not are read."""
        if self.rows is not None:
            return self
        found = (
            piece if piece.rows is not None else replace(piece, rows=sum(t.num_rows for t in self.read(piece.what)))
            for piece in self.pieces
        )
        return replace(self, pieces=tuple(found))

    @property
    def starts(self) -> tuple[int, ...]:
        """Number of each piece's first row, of a source that is counted."""
        return tuple(accumulate((piece.rows or 0 for piece in self.pieces[:-1]), initial=0))


def opened(data: Any, types: Mapping[str, pa.DataType] | None = None) -> Source:
    """The source that was given.

    Args:
        data: a dataset (a folder or a URL), files (one, or a folder of Parquet, CSV, JSON lines, images by class ...),
            or a table in memory (pandas, Polars, Arrow).
        types: of columns as the model was trained on them: text files are read so.

    Raises:
        BadData: it is missing, unreadable, or has no rows; names the file.
        BadInput: it is none of these.
    """
    if not isinstance(data, str | Path):
        return _of_table(data)
    if is_url(data) or (local_folder(data) / manifests.FILE).is_file():
        return _of_dataset(str(data))
    return _of_files(Path(local_folder(data)), dict(types or {}))


def _of_dataset(place: str) -> Source:
    manifest = manifests.load(place)
    pieces: list[Piece] = []
    numbers: list[int] = []
    rows = 0
    size = manifest.bytes / manifest.rows
    most = max(1, min(PART_ROWS, int(PART_BYTES / max(1.0, size))))
    for number, count in enumerate(manifest.groups):
        if numbers and rows + count > most:
            pieces.append(Piece(numbers, rows))
            numbers, rows = [], 0
        numbers, rows = [*numbers, number], rows + count
    pieces.append(Piece(numbers, rows))
    schema = _schema_of(place, manifest)
    read = partial(_groups, place, manifest.version)
    return Source(
        place, manifest.digest, schema, tuple(pieces), read, manifest.label, manifest.categories, (), manifest.bytes
    )


def _schema_of(place: str, manifest: manifests.Manifest) -> pa.Schema:
    from headway.data.store.opener import open_store

    shard = manifest.shards[0]
    with closing(open_store(place)) as store:
        footer = store.read(shard.path, shard.footer_offset, shard.bytes - shard.footer_offset)
        with pq.ParquetFile(pa.BufferReader(footer)) as file:
            return file.schema_arrow


def _groups(place: str, version: int, numbers: list[int]) -> Iterator[pa.Table]:
    """Row groups of a dataset, compared with their digests."""
    files = open_files(place, manifests.load(place, version), Data(train=place))
    with closing(files):
        groups = Groups(files)
        for number in numbers:
            table = groups.load(number).table
            assert table is not None
            yield table


def _of_files(place: Path, types: dict[str, pa.DataType]) -> Source:
    plan = planned(place, Path(os.devnull), Options(), Recipe(), {})
    typed = any("groups" in piece for piece in plan.pieces)  # Parquet has types of its own, and images are not guessed
    if not typed and not plan.categories:
        fields = [pa.field(each.name, _as_trained(each, types)) for each in plan.schema]
        plan = replace(plan, schema=pa.schema(fields))
    pieces = tuple(
        Piece(each, sum(each["counts"]) if "counts" in each else len(each["rows"]) if "rows" in each else None)
        for each in plan.pieces
    )
    read = partial(_of_plan, plan.read, plan.schema)
    pieces = tuple(piece for piece in pieces if piece.rows or (piece.rows is None and _has_rows(read(piece.what))))
    if not pieces:
        raise BadData(f"{place} has no rows", "there is nothing to predict", "Give files that have some.")
    seen = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in plan.files]
    digest = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
    read = partial(_of_plan, plan.read, plan.schema)
    return Source(
        str(place),
        digest,
        plan.schema,
        pieces,
        read,
        plan.label,
        plan.categories,
        tuple(plan.notes),
        sum(size for _, size, _ in seen),
    )


def _as_trained(found: pa.Field, types: dict[str, pa.DataType]) -> pa.DataType:
    known = types.get(found.name, found.type)
    return found.type if isinstance(found.type, TensorType) or isinstance(known, TensorType) else known


def _has_rows(tables: Iterator[pa.Table]) -> bool:
    return any(table.num_rows for table in tables)


def _of_plan(read: Any, schema: pa.Schema, what: Any) -> Iterator[pa.Table]:
    from headway.data.prepare.steps.recipe import typed

    return (typed(table, schema) for table in read(what, schema))


def _of_table(data: Any) -> Source:
    frame = frames.framed(data)
    table = frame.table
    if not table.num_rows:
        raise BadData(f"{frame.name} has no rows", "there is nothing to predict", "Give one that has some.")
    return Source(
        frame.name,
        IN_MEMORY,
        table.schema,
        (Piece(None, table.num_rows),),
        partial(_as_it_is, table),
        notes=tuple(frame.notes),
        bytes=table.nbytes,
    )


def _as_it_is(table: pa.Table, _: Any) -> Iterator[pa.Table]:
    yield table
