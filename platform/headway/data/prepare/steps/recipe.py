"""What is done to rows between source and dataset, in order: transform, filter, drop duplicates, split, mask, pack.

A recipe travels to the tasks that read the source. All of it is a function of the rows and their place in the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headway.core.parts import Parts, Words
from headway.data import kinds
from headway.data.prepare.steps.blocks import Pack, Packer
from headway.data.prepare.steps.filters import Filter
from headway.data.prepare.steps.masks import Mask
from headway.data.prepare.steps.transform import Transform
from headway.data.rowhash import hashes
from headway.data.tensors import TensorType
from headway.errors import BadData, BadInput

Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Recipe:
    """The steps that a user asked for.

    Args:
        transform: the user's function.
        filter: which rows stay.
        dedup: columns of which equal values make a row a duplicate; the first in the source stays.
        parts: of a split; None makes one dataset.
        split_by: columns whose values decide on a row's part; all when empty.
        seed: of split and shuffle.
        masks: of columns.
        pack: documents into blocks.
        shuffle: rows are written in a random order.
    """

    transform: Transform | None = None
    filter: Filter | None = None
    dedup: tuple[str, ...] = ()
    parts: Parts | None = None
    split_by: tuple[str, ...] = ()
    seed: int = 0
    masks: tuple[Mask, ...] = ()
    pack: Pack | None = None
    shuffle: bool = False

    @property
    def num_parts(self) -> int:
        return len(self.parts.names) if self.parts else 1

    @property
    def keeps_all(self) -> bool:
        """Whether every row of the source is stored, as one row and in its place."""
        return not (self.transform or self.filter or self.dedup or self.parts or self.pack or self.shuffle)

    def schema(self, sample: pa.Table) -> pa.Schema:
        """The columns of the dataset, found from rows of the source; without a transform they may be none.

        Raises:
            BadInput: a step does not fit the columns.
        """
        table = self._changed(sample)
        for option, names in (("--dedup", self.dedup), ("--split-by", self.split_by)):
            odd = next((name for name in names if name not in table.column_names), None)
            if odd is not None:
                columns = ", ".join(table.column_names)
                raise BadInput(f"{option} {odd}", "there is no such column", f"Columns: {columns}.")
        names = table.column_names
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise BadInput(f"two columns are named {repeated!r}", "names must differ", "Rename one in the transform.")
        masked = self._masked(table)
        if self.pack is not None:
            packed = Packer(self.pack)
            masked = next(iter([*packed.add(_one_document(masked, self.pack)), *packed.rest()]))
        return pa.schema([pa.field(c.name, pa.string() if pa.types.is_null(c.type) else c.type) for c in masked.schema])

    def changed(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Rows after the transform and the filter, whose numbers within a piece are what duplicates are known by."""
        for table in tables:
            if table.num_rows:
                yield self._changed(table)

    def keys(self, table: pa.Table) -> Words:
        """What duplicates have in common; uint64, shape [rows, 2]."""
        return hashes(table, self.dedup)

    def parted(self, tables: Iterable[pa.Table], dropped: Flags | None) -> Iterator[tuple[int, pa.Table]]:
        """The rows of one piece as they are stored: pairs of (part, rows), the parts of one table in their order.

        Args:
            tables: of the piece, from the source.
            dropped: rows of the piece that are duplicates, by number after the filter; shape [rows].

        Raises:
            BadInput: a step does not fit the rows.
            BadData: the transform did not give the rows that it gave before.
        """
        packers = [Packer(self.pack) for _ in range(self.num_parts)] if self.pack else None
        at = 0
        for table in self.changed(tables):
            first, at = at, at + table.num_rows
            if dropped is not None:
                if at > len(dropped):
                    break
                table = table.filter(pa.array(~dropped[first:at]))
            for part, rows in self._split(table):
                masked = self._masked(rows)
                yield from ((part, made) for made in (packers[part].add(masked) if packers else [masked]))
        if dropped is not None and at != len(dropped):
            reason = "files changed, or the transform does not give the same for the same batch"
            raise BadData(
                "the source was read twice and gave other rows", reason, "Try again with a source that rests."
            )
        for part, packer in enumerate(packers or ()):
            yield from ((part, made) for made in packer.rest())

    def _changed(self, table: pa.Table) -> pa.Table:
        if self.transform is not None:
            table = kinds.plain(self.transform(table), f"what --transform {self.transform.text} gave")
        return self.filter.kept(table) if self.filter is not None else table

    def _split(self, table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        if self.parts is None or not table.num_rows:
            yield 0, table
            return
        part = self.parts.of(hashes(table, self.split_by or table.column_names)[:, 0], self.seed)
        for number in range(self.num_parts):
            rows = np.flatnonzero(part == number)
            if len(rows):
                yield number, table.take(pa.array(rows))

    def _masked(self, table: pa.Table) -> pa.Table:
        for mask in self.masks:
            table = mask.applied(table)
        return table


def _one_document(table: pa.Table, pack: Pack) -> pa.Table:
    """A document of a few tokens in the table's columns, so that a packer shows what it makes of them."""
    name = pack.named(table.schema)
    kind = table.schema.field(name).type
    value: Any = "ab" if not hasattr(kind, "value_type") else [1] * getattr(kind, "list_size", 2)
    return pa.table({name: pa.array([value], kind)})


def fitted(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """The rows in the dataset's schema, tensors as plain binary, as Ray's blocks carry them.

    Args:
        table: as a recipe gives it.
        schema: of the dataset.
        what: for errors.

    Raises:
        BadInput: a column is missing or extra, or of a type that is not the dataset's.
    """
    if set(table.column_names) != set(schema.names):
        odd = sorted(set(table.column_names) ^ set(schema.names))[0]
        raise BadInput(f"{what} gave other columns", f"{odd!r} is not in all of its batches", "Give the same for each.")
    columns = []
    for column in schema:
        found = table[column.name]
        if found.type != column.type and not _widens(found.type, column.type):
            reason = f"column {column.name!r} is {found.type}, in the first batch it was {column.type}"
            raise BadInput(f"{what} gave another type", reason, "Cast it to one type in the transform.")
        try:
            columns.append(_plain(found.cast(column.type)) if found.type != column.type else _plain(found))
        except pa.ArrowException as error:
            reason = f"column {column.name!r}: {str(error).splitlines()[0].rstrip('.')}"
            raise BadInput(f"{what} gave another type", reason, "Cast it to one type in the transform.") from None
    return pa.table(columns, names=schema.names)


def _widens(found: pa.DataType, to: pa.DataType) -> bool:
    numbers = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (found, to))
    return numbers or pa.types.is_null(found)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not isinstance(column.type, TensorType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns, plain binary as the tensors that it is; no copy."""
    columns = []
    for column in schema:
        found = table[column.name]
        if isinstance(column.type, TensorType):
            chunks = [pa.ExtensionArray.from_storage(column.type, chunk) for chunk in found.chunks]
            found = pa.chunked_array(chunks, column.type)
        columns.append(found)
    return pa.table(columns, schema=schema)
