"""A shuffle of all rows in memory that does not grow with them: each row draws a number, and rows are sorted by it.

The numbers follow from the seed and the row's place in the source. Rows are spilled into files by the first bits of
their number; each file is then sorted by itself. In how many files they lie does not show in the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from headway.core.keys import key
from headway.core.parts import Words
from headway.data.prepare.preparation import Preparation
from headway.data.prepare.stages import pipeline
from headway.data.prepare.stages.assembly import Run
from headway.data.prepare.stages.duplicates import Duplicates
from headway.data.prepare.stages.journal import Spill, Workplace
from headway.data.prepare.stages.pipeline import PART, rows_of
from headway.data.prepare.steps.recipe import Flags, Recipe

DRAWN, FILE, DATA = "headway.drawn", "headway.file", "headway.data"
FILE_BYTES = 64 << 20
MAX_FILES = 256


def files_for(source_bytes: int) -> int:
    """How many files are worth having for a source that is so large as it lies; a power of two."""
    return 1 << min(MAX_FILES.bit_length() - 1, max(0, (source_bytes // (FILE_BYTES // 4)).bit_length()))


def drawn(seed: int, piece: int, part: int) -> np.random.Philox:
    """Where the rows of a piece's part draw their numbers, one after the other."""
    return np.random.Philox(key=key("shuffle", seed, piece, part))


def scattered(
    recipe: Recipe,
    schema: pa.Schema,
    what: str,
    files: int,
    piece: int,
    tables: Iterator[pa.Table],
    dropped: Flags | None,
) -> Iterator[pa.Table]:
    """Runs on the cluster: the rows of a piece as Arrow streams, by part and file: number part x files + file."""
    sources = [drawn(recipe.seed, piece, part) for part in range(recipe.num_parts)]
    for table in rows_of(recipe, schema, what, piece, tables, dropped):
        part = int(table[PART][0].as_py()) if PART in table.column_names else 0
        numbers: Words = sources[part].random_raw(table.num_rows)
        order = np.argsort(numbers, kind="stable")
        rows = table.select(schema.names).append_column(DRAWN, pa.array(numbers)).take(pa.array(order))
        ends = np.searchsorted(_file_of(numbers[order], files), np.arange(files + 1))
        for index in np.flatnonzero(np.diff(ends)):
            chunk = rows.slice(ends[index], ends[index + 1] - ends[index]).combine_chunks()
            data = pa.array([_stream(chunk)], pa.large_binary())
            yield pa.table({"piece": [piece], FILE: [part * files + int(index)], DATA: data})


def sorted_rows(path: Path) -> Iterator[pa.Table]:
    """The rows of one file by their numbers, in tables that fit into memory however large the file is."""
    if not path.exists():
        return
    with pa.memory_map(str(path)) as mapped:
        table = pa.concat_tables(_streams(mapped)) if mapped.size() else None
        if table is None:
            return
        numbers = table[DRAWN].to_numpy()
        order = np.argsort(numbers, kind="stable")
        rows = max(1, int(FILE_BYTES // (4 * max(1.0, mapped.size() / len(order)))))
        for at in range(0, len(order), rows):
            yield table.take(pa.array(order[at : at + rows])).drop_columns([DRAWN]).combine_chunks()


def runs(paths: list[Path], num_parts: int, begin: list[int]) -> Iterator[tuple[int, Run]]:
    """The rows of all files in order, given to the cluster: pairs of (part, run), a file being a piece.

    Args:
        paths: of the files, part by part.
        num_parts: how many.
        begin: file of each part that the rows begin with.
    """
    import ray

    files = len(paths) // num_parts
    for part in range(num_parts):
        for number in range(begin[part], files):
            offset = 0
            for table in sorted_rows(paths[part * files + number]):
                yield part, Run(number, offset, table.num_rows, ray.put(table), 0)
                offset += table.num_rows


def _file_of(numbers: Words, files: int) -> Words:
    bits = files.bit_length() - 1
    return numbers >> np.uint64(64 - bits) if bits else np.zeros_like(numbers)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _streams(source: pa.NativeFile) -> Iterator[pa.Table]:
    while source.tell() < source.size():
        with pa.ipc.open_stream(source) as stream:
            yield stream.read_all()


class Scatter:
    """Reads the source once and spills all rows by the numbers that they draw.

    Args:
        asked: what is decided.
        dropped: rows that are left out.
    """

    def __init__(self, asked: Preparation, dropped: Duplicates | None) -> None:
        self._asked, self._dropped = asked, dropped

    def run(self, place: Workplace) -> list[Path]:
        """See `Stage`. Gives the files in which the rows lie, part by part."""
        asked, parts = self._asked, len(self._asked.names)
        files = files_for(sum(path.stat().st_size for path in asked.plan.files) // parts)
        spill = Spill(place.work / "rows", parts * files, place.journal, "scattered")
        total = len(asked.plan.pieces)
        step = partial(scattered, asked.recipe, asked.schema, asked.what, files)
        references = pipeline.blocks(asked.plan, step, spill.pieces, self._dropped.of if self._dropped else None)
        at = spill.pieces
        for table in pipeline.tables(references):
            piece = int(table["piece"][0].as_py())
            if piece != at:
                spill.done(at)
                asked.tell("scattering", piece, total, 0)
                at = piece
            for index, data in zip(table[FILE].to_pylist(), table[DATA], strict=True):
                spill.add(index, memoryview(data.as_buffer()))
        if spill.pieces < total:
            spill.done(total - 1, last=True)
        return [spill.path(index) for index in range(parts * files)]
