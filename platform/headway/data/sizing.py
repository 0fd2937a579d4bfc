"""How many rows a row group and a shard hold.

A row group is what a lane reads at once and what is permuted as a whole. Too few of them and shuffling is coarse, too
small and reading is slow. So: at least 16 row groups where there are 4,096 rows or more; at most about 4 MiB (images) or
8,192 rows (narrow tables) each; shards of about 256 MiB.
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
        largest = largest or sizes.row_group_rows or _fitting(table, GROUP_BYTES, GROUP_ROWS)
        shard_rows = shard_rows or sizes.shard_rows or _whole(_fitting(table, SHARD_BYTES), largest)
        held.add(table)
        streaming = streaming or sizes.row_group_rows is not None or held.count >= FEW_GROUPS * largest
        while streaming and held.count >= largest:
            yield held.take(largest), shard_rows
    rows = largest if streaming else min(largest, max(LEAST_ROWS, -(-held.count // FEW_GROUPS)))
    while held.count:
        yield held.take(min(rows, held.count)), shard_rows


class _Rows:
    """A queue of rows."""

    def __init__(self) -> None:
        self.tables: deque[pa.Table] = deque()
        self.count = 0

    def add(self, table: pa.Table) -> None:
        self.tables.append(table)
        self.count += table.num_rows

    def take(self, rows: int) -> pa.Table:
        """The first rows, as one contiguous table."""
        parts, missing = [], rows
        while missing:
            table = self.tables.popleft()
            if table.num_rows > missing:
                self.tables.appendleft(table.slice(missing))
                table = table.slice(0, missing)
            parts.append(table)
            missing -= table.num_rows
        self.count -= rows
        return pa.concat_tables(parts)


def _fitting(table: pa.Table, max_bytes: int, max_rows: int | None = None) -> int:
    """Rows that fit into so many bytes, by the first table's width. Buffer sizes, so that a slice counts its own rows."""
    rows = max(1, int(max_bytes // max(1.0, table.nbytes / table.num_rows)))
    return rows if max_rows is None else min(rows, max_rows)


def _whole(rows: int, group: int) -> int:
    return max(1, rows // group) * group
