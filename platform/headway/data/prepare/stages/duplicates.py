"""Rows whose key occurred before in the source, found in memory that does not grow with the rows.

The source is read once for keys alone: 128-bit hashes with each row's number, spilled into files by the hash. Equal
keys meet in one file, and each file fits into memory. What comes out is one byte per row, on disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headway.data.prepare.preparation import Preparation
from headway.data.prepare.stages import pipeline
from headway.data.prepare.stages.journal import Spill, Workplace
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


class FindDuplicates:
    """Reads the source once for keys, and finds the rows that are left out.

    Args:
        asked: what is decided.
    """

    def __init__(self, asked: Preparation) -> None:
        self._asked = asked

    def run(self, place: Workplace) -> Duplicates:
        """See `Stage`."""
        journal, path = place.journal, place.work / "duplicates"
        noted = journal.of("duplicates")
        if noted and path.exists():
            return Duplicates(path, noted[-1]["rows"])
        plan, recipe = self._asked.plan, self._asked.recipe
        spill = Spill(place.work / "keys", BUCKETS, journal, "keys")
        counts = {r["piece"]: r["rows"] for r in journal.of("counted") if r["piece"] < spill.pieces}
        if not spill.pieces:
            self._known_keys(spill)
        total = len(plan.pieces)
        rows, at = sum(counts.values()), spill.pieces
        for table in pipeline.tables(pipeline.blocks(plan, partial(keys_of, recipe), spill.pieces)):
            piece = int(table["piece"][0].as_py())
            if piece != at:
                journal.note("counted", piece=at, rows=counts.get(at, 0))
                spill.done(at)
                self._asked.tell("finding duplicates", piece, total, rows)
                at = piece
            spilled(spill, entries(table, rows))
            counts[piece] = counts.get(piece, 0) + table.num_rows
            rows += table.num_rows
        found = Duplicates(path, [counts.get(piece, 0) for piece in range(total)])
        files = (spill.path(index) for index in range(BUCKETS) if spill.sizes[index])
        found.mark(np.fromfile(file, ENTRY) for file in files)
        journal.note("duplicates", rows=[counts.get(piece, 0) for piece in range(total)])
        shutil.rmtree(place.work / "keys")
        return found

    def _known_keys(self, spill: Spill) -> None:
        """The keys of the rows that the dataset has already, all before the new ones."""
        recipe = self._asked.recipe
        for name, manifest in self._asked.before.items():
            number = -manifest.rows
            for shard in manifest.shards:
                with pq.ParquetFile(self._asked.folder(name) / shard.path) as file:
                    for batch in file.iter_batches(columns=list(recipe.dedup)):
                        keys = recipe.keys(pa.Table.from_batches([batch]))
                        table = pa.table({"high": keys[:, 0], "low": keys[:, 1]})
                        spilled(spill, entries(table, number))
                        number += batch.num_rows
