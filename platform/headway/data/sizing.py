"""How many rows a row group and a shard hold.

A row group is what a lane reads at once and what is permuted as a whole. Too few of them and shuffling is coarse, too
small and reading is slow. So: at least 16 row groups where there are 4,096 rows or more; at most about 4 MiB (images)
or 8,192 rows (narrow tables) each; shards of about 256 MiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

GROUP_BYTES = 4 << 20
GROUP_ROWS = 8192
LEAST_ROWS = 256
FEW_GROUPS = 16
SHARD_BYTES = 256 << 20
SAMPLE_ROWS = 64


@dataclass(frozen=True)
class Sizes:
    """Rows per row group and per shard; None = by the rules above."""

    row_group_rows: int | None = None
    shard_rows: int | None = None


def gathered(tables: Iterable[pa.Table], sizes: Sizes) -> Iterator[tuple[pa.Table, int]]:
    """Cut a stream of tables into row groups: pairs of (row group, rows of a full shard).

    The number of rows is known only at the end, so the first 16 full-sized row groups are held back: a stream that ends
    before is cut into 16 smaller ones. Whatever the sizes of the incoming tables, the same rows give the same groups.
    """
    held = _Rows()
    largest = shard_rows = 0
    streaming = False
    for table in tables:
        if table.num_rows == 0:
            continue
        held.add(table)
        if not largest and held.count < SAMPLE_ROWS:
            continue
        if not largest:
            largest, shard_rows = _chosen(held.first(SAMPLE_ROWS), sizes)
        streaming = streaming or sizes.row_group_rows is not None or held.count >= FEW_GROUPS * largest
        while streaming and held.count >= largest:
            yield held.take(largest), shard_rows
    if held.count and not largest:
        largest, shard_rows = _chosen(held.first(SAMPLE_ROWS), sizes)
    even = max(LEAST_ROWS, -(-held.count // FEW_GROUPS))
    rows = largest if streaming or sizes.row_group_rows else min(largest, even)
    while held.count:
        yield held.take(min(rows, held.count)), shard_rows


def _chosen(sample: pa.Table, sizes: Sizes) -> tuple[int, int]:
    """Rows per row group and per shard, always judged by the same first rows, however they arrived."""
    width = max(1.0, sample.nbytes / sample.num_rows)
    largest = sizes.row_group_rows or min(GROUP_ROWS, max(1, int(GROUP_BYTES // width)))
    shard_rows = sizes.shard_rows or max(1, int(SHARD_BYTES // width) // largest) * largest
    return largest, shard_rows


class _Rows:
    """A queue of rows."""

    def __init__(self) -> None:
        self.tables: deque[pa.Table] = deque()
        self.count = 0

    def add(self, table: pa.Table) -> None:
        self.tables.append(table)
        self.count += table.num_rows

    def first(self, rows: int) -> pa.Table:
        """At most so many of the first rows, which stay in the queue."""
        return pa.concat_tables(self.tables).slice(0, rows).combine_chunks()

    def take(self, rows: int) -> pa.Table:
        """The first rows, as one contiguous table: how they arrived must not show in the file."""
        parts, missing = [], rows
        while missing:
            table = self.tables.popleft()
            if table.num_rows > missing:
                self.tables.appendleft(table.slice(missing))
                table = table.slice(0, missing)
            parts.append(table)
            missing -= table.num_rows
        self.count -= rows
        return pa.concat_tables(parts).combine_chunks()
