"""Rows whose key occurred before in the source, found in memory that does not grow with the rows.

The source is read once for keys alone: 128-bit hashes with each row's number, spilled into files by the hash. Equal
keys meet in one file, and each file fits into memory. What comes out is one byte per row, on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headway.data.prepare.stages.journal import Spill
from headway.data.prepare.steps.recipe import Flags, Recipe

BUCKETS = 256
ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])
Entries = np.ndarray[Any, Any]


def keys_of(recipe: Recipe, piece: int, tables: Iterator[pa.Table], dropped: Flags | None) -> Iterator[pa.Table]:
    """Runs on the cluster: the keys of a piece's rows, and the piece."""
    for table in recipe.changed(tables):
        keys = recipe.keys(table)
        pieces = np.full(len(keys), piece, np.int32)
        yield pa.table({"high": keys[:, 0], "low": keys[:, 1], "piece": pieces})


def entries(table: pa.Table, first: int) -> Entries:
    """Keys with the rows' numbers from `first` on; ENTRY, shape [rows]."""
    found = np.empty(table.num_rows, ENTRY)
    found["high"], found["low"] = table["high"].to_numpy(), table["low"].to_numpy()
    found["row"] = np.arange(first, first + table.num_rows)
    return found


def spilled(spill: Spill, found: Entries) -> None:
    """Sort entries into files by the first bits of the key."""
    bucket = found["high"] >> np.uint64(56)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
    for index in np.flatnonzero(np.diff(ends)):
        spill.add(int(index), found[order[ends[index] : ends[index + 1]]].tobytes())


def repeated(found: Entries) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Numbers of the rows whose key a row of a lower number has; ascending within equal keys."""
    ordered = found[np.lexsort((found["row"], found["low"], found["high"]))]
    same = (ordered["high"][1:] == ordered["high"][:-1]) & (ordered["low"][1:] == ordered["low"][:-1])
    rows: np.ndarray[Any, np.dtype[np.int64]] = ordered["row"][1:][same]
    return rows


class Duplicates:
    """Which rows of a source are left out, by piece.

    Args:
        path: of one byte per row: whether it is left out.
        rows: of each piece.
    """

    def __init__(self, path: Path, rows: list[int]) -> None:
        self._path = path
        self._begins = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)

    def of(self, piece: int) -> Flags:
        """Which of the piece's rows are left out; shape [rows of the piece]."""
        begin, end = int(self._begins[piece]), int(self._begins[piece + 1])
        flags: Flags = np.fromfile(self._path, np.bool_, end - begin, offset=begin)
        return flags

    def mark(self, numbers: Iterable[Entries]) -> None:
        """Find the repeated rows of each file of entries, and write them down. Negative numbers are earlier rows."""
        total = int(self._begins[-1])
        with self._path.open("wb") as file:
            file.truncate(total)
        flags = np.memmap(self._path, np.bool_, "r+", shape=(total,)) if total else np.empty(0, np.bool_)
        for found in numbers:
            rows = repeated(found)
            flags[rows[rows >= 0]] = True
        if isinstance(flags, np.memmap):
            flags.flush()
