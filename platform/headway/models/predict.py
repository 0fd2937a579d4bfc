"""`headway.predict`: a run's model on new rows, in this process or as a Ray Data job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from headway.errors import BadInput, nearest
from headway.models import columns, kept, loading, output, predicting, sources
from headway.models.columns import Columns
from headway.models.kept import Trained
from headway.models.output import Part
from headway.models.predicting import Predictor
from headway.models.sources import Source
from headway.models.work import Work, outcome
from headway.runs import RunFolder
from headway.storage.opener import open_storage
from headway.task import Task

LARGE_ROWS = 100_000
"""From so many rows on a cluster does the work, unless told otherwise."""
LARGE_BYTES = 256 << 20
"""The same of files whose rows are not counted before they are read."""
Say = Callable[[int, int | None], None]
"""Called as say(rows done, rows in all if known) while it goes."""


def _nobody(done: int, of: int | None) -> None:
    pass


@dataclass(frozen=True)
class Predictions:
    """What came of it.

    Args:
        run: its name.
        step: of the checkpoint.
        rows: predicted; of them `before` were there from an earlier attempt.
        seconds: that it took here.
        out: where they are; None: in `table`.
        table: the predictions, where they were not written.
        notes: for people.
    """

    run: str
    step: int
    rows: int
    before: int
    seconds: float
    out: str | None = None
    table: pa.Table | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list)


def predict(
    run: str | Path | RunFolder,
    data: Any,
    out: str | Path | None = None,
    *,
    step: str | int = "best",
    keep: Sequence[str] | str = (),
    batch: int | None = None,
    address: str | None = None,
    device: str | torch.device = "cpu",
    runs_folder: str | Path | None = None,
    say: Say = _nobody,
) -> Predictions:
    """Use a run's model on rows that it has not seen: the task's `transform`, its model, its `predict`.

    Args:
        run: its name, folder or URL.
        data: a dataset (folder or URL), files as `headway data prepare` takes them, or a table in memory.
        out: folder or URL for the predictions, as Parquet; they are given as a table when not given. A prediction that
            was killed goes on there.
        step: of the checkpoint: "best", "last" or a number.
        keep: columns of the data to write beside the predictions; "all" for all. The rows' numbers always are.
        batch: rows at a time; the job's `data.eval_batch` when not given, else by their size.
        address: "in-process"; or "local", "auto", HOST:PORT for a Ray cluster. When not given, in process below
            100,000 rows.
        device: of the model, in process.
        runs_folder: as of `headway.train`.
        say: is told how far it is.

    Raises:
        BadInput: the run, the checkpoint or the data cannot be used: no such checkpoint, another schema, no rows.
        BadCheckpoint: the checkpoint is damaged.
        UserCodeFailed: the task raised.
    """
    begun = time.monotonic()
    asked = _Asked.of(run, data, step, keep, batch, runs_folder)
    if out is None:
        if address not in (None, "in-process"):
            raise BadInput(f"address={address!r}", "predictions of a cluster are written", "Give out.")
        table = pa.concat_tables(asked.tables(asked.predictor(device), say))
        return asked.done(table.num_rows, 0, begun, table=table)
    place = str(out)
    if address is None:
        address = None if asked.large else "in-process"
    source = asked.source if address == "in-process" else asked.source.counted()
    asked = replace(asked, source=source)
    there = output.claim(place, asked.identity)
    left = [number for number in range(len(source.pieces)) if number not in there]
    if left and address == "in-process":
        made = _in_process(asked, place, there, left, device, say)
    elif left:
        from headway.models import cluster

        made = cluster.predicted(asked.work(place), asked.trained.job, left, address, say)
    else:
        made = {}
    parts = [{**there, **made}[number] for number in range(len(source.pieces))]
    output.finish(place, asked.identity, parts)
    before = sum(part.rows for part in there.values())
    return asked.done(sum(part.rows for part in parts), before, begun, out=place)


def _in_process(
    asked: _Asked, place: str, there: dict[int, Part], left: list[int], device: str | torch.device, say: Say
) -> dict[int, Part]:
    """The parts that are left, one after the other."""
    predictor, made = asked.predictor(device), {}
    start = 0
    with closing(open_storage(place)) as storage:
        for number in range(len(asked.source.pieces)):
            if number in left:
                made[number] = output.write(storage, number, asked.piece(predictor, number, start))
            start += {**there, **made}[number].rows
            say(start, asked.source.rows)
    return made


@dataclass(frozen=True)
class _Asked:
    """A prediction that was looked over."""

    trained: Trained
    source: Source
    columns: Columns
    keep: tuple[str, ...]
    batch: int

    @classmethod
    def of(
        cls,
        run: str | Path | RunFolder,
        data: Any,
        step: str | int,
        keep: Sequence[str] | str,
        batch: int | None,
        runs_folder: str | Path | None,
    ) -> _Asked:
        trained = kept.read(kept.find(run, runs_folder), step)
        _demand_predict(trained)
        seen = columns.of_run(trained.run, trained.job)
        source = sources.opened(data, seen.arrow)
        if batch is not None and batch < 1:
            raise BadInput(f"batch={batch}", "it is a number of rows", "Give 1 or more.")
        rows = predicting.batch_rows(trained.job, source.schema, batch)
        return cls(trained, source, seen, _kept(keep, source), rows)

    @property
    def large(self) -> bool:
        rows = self.source.rows
        return rows >= LARGE_ROWS if rows is not None else self.source.bytes >= LARGE_BYTES

    @property
    def identity(self) -> dict[str, Any]:
        checkpoint = self.trained.checkpoint
        return {
            "run": self.trained.run.name,
            "checkpoint": {"step": checkpoint.step, "sha256": self.trained.digest},
            "data": {"place": self.source.said, "digest": self.source.digest},
            "keep": list(self.keep),
            "batch": self.batch,
            "pieces": len(self.source.pieces),
        }

    def predictor(self, device: str | torch.device = "cpu") -> Predictor:
        model, task = loading.built(self.trained, device=device)
        assert task is not None
        return Predictor(model, task, self.trained.job, self.columns, self.source.said, self.batch)

    def tables(self, predictor: Predictor, say: Say) -> Iterator[pa.Table]:
        """All of the output."""
        start, before = 0, None
        for number in range(len(self.source.pieces)):
            for table in self.piece(predictor, number, start):
                predicting.demand_alike(type(predictor.task).__name__, before, table.schema)
                start, before = start + table.num_rows, table.schema
                yield table
            say(start, self.source.rows)

    def piece(self, predictor: Predictor, number: int, start: int) -> Iterator[pa.Table]:
        """The output's rows of a piece."""
        return outcome(self.source.read(self.source.pieces[number].what), self.keep, predictor, number, start)

    def work(self, place: str) -> Work:
        """What a process of a cluster has to know."""
        run = self.trained.run
        where = run.where if run.far is not None else str(run.path)
        step = self.trained.checkpoint.step
        threads = self.trained.job.workers.cpus
        return Work(where, step, self.trained.digest, self.source, self.columns, self.keep, self.batch, place, threads)

    def done(self, rows: int, before: int, begun: float, **where: Any) -> Predictions:
        notes = [*self.trained.notes, *self.source.notes]
        seconds = time.monotonic() - begun
        return Predictions(
            self.trained.run.name, self.trained.checkpoint.step, rows, before, seconds, notes=notes, **where
        )


def _demand_predict(trained: Trained) -> None:
    """Raises BadInput: the task has none."""
    found = loading.task_of(trained)
    if found.predict is Task.predict:
        raise BadInput(
            f"task {found.__name__} of run {trained.run.name} has no predict",
            "nothing says what the model's output means",
            "Write predict(self, model, batch) -> {name: tensor with one entry per row} in the run's code "
            f"({trained.run.code}), or use headway.load_model.",
        )


def _kept(keep: Sequence[str] | str, source: Source) -> tuple[str, ...]:
    """Columns to write. Raises BadInput: there is none of that name."""
    names = source.schema.names
    if keep == "all":
        return tuple(names)
    asked = keep.split(",") if isinstance(keep, str) else list(keep)
    for name in asked:
        if name not in names:
            raise BadInput(f"keep: {name!r}", f"{source.said} has no such column", nearest(name, names))
    return tuple(asked)
