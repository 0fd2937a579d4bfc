"""The stage that every prepare has: rows into the shards of their parts, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from headway.data.prepare.preparation import Preparation
from headway.data.prepare.stages import pipeline, shuffle
from headway.data.prepare.stages.assembly import Assembly, PartWriter, Run
from headway.data.prepare.stages.duplicates import Duplicates
from headway.data.prepare.stages.journal import Workplace


class WriteRows:
    """Writes all shards of all parts, from the first row group that is not whole on the disk.

    Args:
        asked: what is decided.
        ahead: tasks under way at once.
        dropped: rows that are left out.
        scattered: files in which all rows lie by the numbers that they drew; else they come from the source.
    """

    def __init__(
        self, asked: Preparation, ahead: int, dropped: Duplicates | None, scattered: list[Path] | None
    ) -> None:
        self._asked, self._ahead, self._dropped, self._scattered = asked, ahead, dropped, scattered

    def run(self, place: Workplace) -> list[PartWriter]:
        """See `Stage`. Gives the writers of the parts, with all their shards done."""
        from ray.exceptions import RayError

        asked, writers = self._asked, []
        for part, name in enumerate(asked.names):
            first = len(asked.before[name].shards) if name in asked.before else 0
            folder = place.data / name
            writer = PartWriter(folder, part, first, asked.schema, asked.sizes, asked.label, place.journal)
            writer.restore()
            writers.append(writer)
        assembly = Assembly(writers, asked.schema, asked.label, self._ahead)
        try:
            with pipeline.raising_ours(RayError):
                for part, run in self._rows(writers):
                    assembly.add(part, run)
                assembly.end()
        finally:
            assembly.drop()
        return writers

    def _rows(self, writers: list[PartWriter]) -> Iterator[tuple[int, Run]]:
        """The rows to be written, in order, from the first piece that is not all written."""
        asked = self._asked
        plan, recipe, schema = asked.plan, asked.recipe, asked.schema
        if self._scattered is not None:
            total, parts = len(self._scattered), len(writers)
            found = shuffle.runs(self._scattered, parts, [writer.upto[0] for writer in writers])
            return self._told(found, "sorting", total, lambda part, run: part * total // parts + run.piece)
        first, total = min(writer.upto[0] for writer in writers), len(plan.pieces)
        rows_per_task = pipeline.counted(plan, recipe, schema, asked.sizes)
        if rows_per_task is not None:
            found = pipeline.unread(plan, recipe, schema, first, rows_per_task)
        else:
            step = partial(pipeline.rows_of, recipe, schema, asked.what)
            references = pipeline.blocks(plan, step, first, self._dropped.of if self._dropped else None)
            found = pipeline.runs(references, len(writers), self._ahead)
        return self._told(found, "reading", total, lambda part, run: run.piece)

    def _told(
        self, found: Iterator[tuple[int, Run]], stage: str, total: int, done: Callable[[int, Run], int]
    ) -> Iterator[tuple[int, Run]]:
        rows = 0
        for part, run in found:
            rows += run.rows
            self._asked.tell(stage, done(part, run), total, rows)
            yield part, run
        self._asked.tell(stage, total, total, rows)
