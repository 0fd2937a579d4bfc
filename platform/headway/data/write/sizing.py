"""How many rows a row group and a shard hold.

A row group is what a lane reads at once and what is permuted as a whole. Too few of them and shuffling is coarse, too
small and reading is slow. So: at least 16 row groups where there are 4,096 rows or more; at most about 2 MiB (images)
or 8,192 rows (narrow tables) each; shards of about 256 MiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

GROUP_BYTES = 2 << 20
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


class Cutter:
    """Decides where a stream of rows is cut into row groups; knows rows by their number alone.

    The number of rows is known only at the end, so the first 16 full-sized row groups are held back: a stream that ends
    before is cut into 16 smaller ones. However the rows arrive, the same rows give the same groups.

    Args:
        sizes: as the user asks.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self.held = self.largest = self.shard_rows = 0
        self.streaming = False

    def measure(self, width: float) -> None:
        """Say how many bytes a row takes, judged by the stream's first SAMPLE_ROWS rows (or all, if fewer)."""
        width = max(1.0, width)
        self.largest = self._sizes.row_group_rows or min(GROUP_ROWS, max(1, int(GROUP_BYTES // width)))
        self.shard_rows = self._sizes.shard_rows or max(1, int(SHARD_BYTES // width) // self.largest) * self.largest

    def add(self, rows: int) -> int:
        """Rows arrive; how many row groups of `largest` rows can be cut off now."""
        self.held += rows
        self.streaming |= self._sizes.row_group_rows is not None or self.held >= FEW_GROUPS * self.largest
        groups = self.held // self.largest if self.streaming else 0
        self.held -= groups * self.largest
        return groups

    def rest(self) -> list[int]:
        """The stream has ended: rows of the last row groups."""
        even = max(LEAST_ROWS, -(-self.held // FEW_GROUPS))
        rows = self.largest if self.streaming or self._sizes.row_group_rows else min(self.largest, even)
        return [min(rows, self.held - at) for at in range(0, self.held, max(1, rows))]


def width_of(sample: pa.Table) -> float:
    """Bytes per row in memory."""
    return float(sample.nbytes / sample.num_rows)


def gathered(tables: Iterable[pa.Table], sizes: Sizes) -> Iterator[tuple[pa.Table, int]]:
    """Cut a stream of tables into row groups as `Cutter` says: pairs of (row group, rows of a full shard)."""
    held, cutter = _Rows(), Cutter(sizes)
    for table in tables:
        held.add(table)
        if not cutter.largest and held.count >= SAMPLE_ROWS:
            cutter.measure(width_of(held.first(SAMPLE_ROWS)))
        if cutter.largest:
            for _ in range(cutter.add(held.count - cutter.held)):
                yield held.take(cutter.largest), cutter.shard_rows
    if held.count and not cutter.largest:
        cutter.measure(width_of(held.first(SAMPLE_ROWS)))
        cutter.held = held.count
    for rows in cutter.rest():
        yield held.take(rows), cutter.shard_rows


class _Rows:
    """A queue of rows."""

    def __init__(self) -> None:
        self.tables: deque[pa.Table] = deque()
        self.count = 0

    def add(self, table: pa.Table) -> None:
        if table.num_rows:
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
