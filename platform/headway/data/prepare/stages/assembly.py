"""From rows on the cluster to shards on this machine: cut as `sizing` says, encoded by tasks, written here in order."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.data.manifest import RowGroup, Shard
from headway.data.prepare.stages.journal import Journal
from headway.data.prepare.steps.recipe import typed
from headway.data.write.encode import Encoded, Labels, encoded
from headway.data.write.sizing import SAMPLE_ROWS, Cutter, Sizes, width_of
from headway.data.write.writer import Placed, Shards

ENCODE_BYTES = 16 << 20
MAX_GROUPS = 64


@dataclass(frozen=True)
class Unread:
    """A block that is nowhere yet: whoever needs its rows reads them.

    Args:
        read: gives them, anywhere on the cluster.
    """

    read: Callable[[], pa.Table]


@dataclass(frozen=True)
class Run:
    """Consecutive rows of one part from one piece, in a block on the cluster.

    Args:
        piece: number of the piece.
        offset: of the first row among the piece's rows of this part.
        rows: how many.
        block: Ray's reference to a table, or one that is unread.
        start: of the first row in the block.
    """

    piece: int
    offset: int
    rows: int
    block: Any
    start: int

    def after(self, rows: int) -> Run:
        """The run without its first rows."""
        return Run(self.piece, self.offset + rows, self.rows - rows, self.block, self.start + rows)


Slices = list[tuple[Any, int, int]]


def rows_per_task(width: float, sizes: Sizes) -> int:
    """Rows that are encoded together, of so many bytes each."""
    cutter = Cutter(sizes)
    cutter.measure(width)
    return _groups_per_task(width, cutter.largest) * cutter.largest


def _groups_per_task(width: float, rows: int) -> int:
    return max(1, min(MAX_GROUPS, int(ENCODE_BYTES // max(1.0, width * rows))))


class PartWriter:
    """One part of the dataset (all of it, if it is not split): its row groups, shards, labels and place in the source.

    Args:
        folder: of its shards.
        part: number, by which the journal knows it.
        first: number of its first shard.
        schema: of the dataset.
        sizes: as the user asks.
        label: the column that is counted.
        journal: to note in and to go on from.
    """

    def __init__(
        self, folder: Path, part: int, first: int, schema: pa.Schema, sizes: Sizes, label: str | None, journal: Journal
    ) -> None:
        self._part, self._schema, self._label, self._journal = part, schema, label, journal
        self.shards, self.labels = Shards(folder, first), Labels()
        self._cutter, self._width = Cutter(sizes), 0.0
        self._held: deque[Run] = deque()
        self._count = 0
        self._streams = False
        self._groups: list[tuple[Slices, tuple[int, int]]] = []
        self.upto = (0, 0)
        """Piece, and rows of it, up to which all is written."""
        folder.mkdir(parents=True, exist_ok=True)

    def restore(self) -> None:
        """Go on where the journal says that an earlier process was, as far as the disk bears it out."""
        part, journal = self._part, self._journal
        if not journal.of("streaming", part=part):  # few rows, cut evenly at the very end: that is done again
            journal.drop(lambda record: record.get("part") == part)
            return
        measured = journal.of("measured", part=part)[0]
        self._measure(measured["width"])
        self._cutter.streaming = self._streams = True
        self.shards.frame = b64decode(next(iter(journal.of("frame", part=part)), {"frame": ""})["frame"])
        groups = journal.of("group", part=part)
        closed = 0
        for shard in journal.of("shard", part=part):
            inside = tuple(RowGroup(**group) for group in shard["shard"]["row_groups"])
            self.shards.done.append(Shard(**{**shard["shard"], "row_groups": inside}))
            closed += len(inside)
        placed = [Placed(RowGroup(**group["group"]), b64decode(group["struct"])) for group in groups[closed:]]
        kept = closed + self.shards.restore(placed)
        lost = groups[kept:]
        if lost:
            journal.drop(lambda record: record in lost)
        for group in groups[:kept]:
            self.labels.add(group["labels"])
        if sum(item.group.rows for item in placed[: kept - closed]) >= self._cutter.shard_rows:
            self._note(self.shards.close())  # it was full when the process ended
        if kept:
            self.upto = (groups[kept - 1]["upto"][0], groups[kept - 1]["upto"][1])

    def arrive(self, run: Run) -> None:
        """Rows in the order of the source, counted from the beginning of the first piece that is not whole."""
        piece, rows = self.upto
        if run.piece < piece or (run.piece == piece and run.offset + run.rows <= rows):
            return
        if run.piece == piece and run.offset < rows:
            run = run.after(rows - run.offset)
        self._held.append(run)
        self._count += run.rows
        if not self._cutter.largest and self._count >= SAMPLE_ROWS:
            self._sample()
        if self._cutter.largest:
            groups = self._cutter.add(self._count - self._cutter.held)
            self._stream(groups)

    def end(self) -> None:
        """No more rows come."""
        if self._count and not self._cutter.largest:
            self._sample()
            self._cutter.held = self._count
        self._groups += [self._take(rows) for rows in self._cutter.rest()]

    def batches(self, last: bool = False) -> Iterable[tuple[list[Slices], list[tuple[int, int]]]]:
        """Row groups to be encoded together, and the place in the source behind each; the rest of them when `last`."""
        size = _groups_per_task(self._width, self._cutter.largest)
        while len(self._groups) >= size or (last and self._groups):
            batch, self._groups = self._groups[:size], self._groups[size:]
            yield [slices for slices, _ in batch], [upto for _, upto in batch]

    def write(self, made: Encoded, uptos: list[tuple[int, int]]) -> None:
        """Lay encoded row groups into the shards.

        Raises:
            OSError: as the file system says.
        """
        if not self.shards.frame:
            self._journal.note("frame", part=self._part, frame=b64encode(made.frame).decode())
        data = memoryview(made.data)
        for group, upto in zip(made.groups, uptos, strict=True):
            view = data[group.start : group.start + group.size]
            placed, shard = self.shards.add(group, view, made.frame, self._cutter.shard_rows)
            self.labels.add(group.labels)
            self._journal.note(
                "group",
                part=self._part,
                group=asdict(placed.group),
                struct=b64encode(placed.struct).decode(),
                labels=group.labels,
                upto=upto,
            )
            self._note(shard)

    def _note(self, shard: Shard | None) -> None:
        """A shard is full, if it is one."""
        if shard is not None:
            self._journal.note("shard", part=self._part, shard=asdict(shard))

    def _stream(self, groups: int) -> None:
        if groups and not self._streams:
            self._streams = True
            self._journal.note("streaming", part=self._part)
        self._groups += [self._take(self._cutter.largest) for _ in range(groups)]

    def _sample(self) -> None:
        import ray

        rows, tables = 0, []
        for run in self._held:
            block = run.block.read() if isinstance(run.block, Unread) else ray.get(run.block)
            table = typed(block.slice(run.start, run.rows), self._schema)
            tables.append(table)
            rows += table.num_rows
            if rows >= SAMPLE_ROWS:
                break
        width = width_of(pa.concat_tables(tables).slice(0, SAMPLE_ROWS).combine_chunks())
        self._measure(width)
        self._journal.note("measured", part=self._part, width=width)

    def _measure(self, width: float) -> None:
        self._width = width
        self._cutter.measure(width)

    def _take(self, rows: int) -> tuple[Slices, tuple[int, int]]:
        slices: Slices = []
        self._count -= rows
        upto = self.upto
        while rows:
            run = self._held.popleft()
            taken = min(rows, run.rows)
            slices.append((run.block, run.start, run.start + taken))
            if taken < run.rows:
                self._held.appendleft(run.after(taken))
            upto = (run.piece, run.offset + taken)
            rows -= taken
        return slices, upto


class Assembly:
    """All parts together, with the encoding tasks under way.

    Args:
        parts: their writers.
        schema: of the dataset.
        label: the column that is counted.
        ahead: encoding tasks under way at once.
    """

    def __init__(self, parts: list[PartWriter], schema: pa.Schema, label: str | None, ahead: int) -> None:
        self._parts, self._schema, self._label, self._ahead = parts, schema, label, ahead
        self._under_way: deque[tuple[PartWriter, Any, list[tuple[int, int]]]] = deque()

    def add(self, part: int, run: Run) -> None:
        """Rows arrive; writes what is ready, and waits where too much is under way."""
        self._parts[part].arrive(run)
        self._submit(self._parts[part])
        self._write(self._ahead)

    def end(self) -> None:
        """All rows have arrived: write what is left, and close the shards."""
        for part in self._parts:
            part.end()
            self._submit(part, last=True)
            self._write(self._ahead)
        self._write(0)
        for part in self._parts:
            part.shards.close()

    def drop(self) -> None:
        """Leave the files as they are."""
        for part in self._parts:
            part.shards.drop()

    def _submit(self, part: PartWriter, last: bool = False) -> None:
        import ray

        encode = ray.remote(num_cpus=1)(_encode)
        for groups, uptos in part.batches(last):
            blocks = list({id(block): block for slices in groups for block, _, _ in slices}.values())
            numbers = {id(block): number for number, block in enumerate(blocks)}
            plain = [[(numbers[id(block)], start, stop) for block, start, stop in slices] for slices in groups]
            self._under_way.append((part, encode.remote(plain, self._schema, self._label, *blocks), uptos))

    def _write(self, leave: int) -> None:
        import ray

        while len(self._under_way) > leave:
            part, made, uptos = self._under_way.popleft()
            part.write(ray.get(made), uptos)


def _encode(
    groups: list[list[tuple[int, int, int]]], schema: pa.Schema, label: str | None, *blocks: pa.Table | Unread
) -> Encoded:
    """Runs on the cluster: row groups from slices of blocks. How the rows arrived does not show in the bytes."""
    named = [typed(block.read() if isinstance(block, Unread) else block, schema) for block in blocks]
    tables = [pa.concat_tables([named[n].slice(start, stop - start) for n, start, stop in group]) for group in groups]
    return encoded([table.combine_chunks() for table in tables], label)
