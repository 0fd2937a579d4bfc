"""A piece of a source becomes a part of the output, in whatever process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from headway import generators
from headway.errors import BadCheckpoint, BadInput
from headway.models import kept, loading, output, predicting
from headway.models.columns import Columns
from headway.models.output import ROW, Part
from headway.models.predicting import Predictor
from headway.models.sources import Piece, Source
from headway.storage.opener import open_storage


@dataclass(frozen=True)
class Work:
    """What a process has to know that predicts some of the pieces; can be pickled.

    Args:
        run: its folder, which all machines see, or its URL.
        step: of the checkpoint.
        digest: of it, see `headway.models.kept.Trained`.
        source: its pieces may be left out.
        columns: that training saw.
        keep: columns of the source to write.
        batch: rows at a time.
        place: of the output.
        threads: of each process.
    """

    run: str
    step: int
    digest: str
    source: Source
    columns: Columns
    keep: tuple[str, ...]
    batch: int
    place: str
    threads: int = 1

    def predictor(self, device: str | torch.device = "cpu") -> Predictor:
        """Load the model here.

        Raises:
            BadCheckpoint: it is not the one that was meant.
        """
        trained = kept.read(kept.find(self.run), self.step)
        if trained.digest != self.digest:
            reason = "it was written anew since the prediction began"
            raise BadCheckpoint(f"{trained.checkpoint.where} is another one here", reason, "Predict again.")
        model, task = loading.built(trained, device=device)
        assert task is not None
        return Predictor(model, task, trained.job, self.columns, self.source.said, self.batch)

    def do(self, predictor: Predictor, number: int, piece: Piece, start: int) -> Part:
        """Predict a piece, and write its part."""
        tables = outcome(self.source.read(piece.what), self.keep, predictor, number, start)
        with closing(open_storage(self.place)) as storage:
            return output.write(storage, number, tables)


def outcome(
    tables: Iterator[pa.Table], keep: Sequence[str], predictor: Predictor, number: int, start: int
) -> Iterator[pa.Table]:
    """The output's rows of a piece: numbers, what is kept, predictions.

    Args:
        tables: its rows.
        keep: columns of them that are written too.
        predictor: of the model.
        number: of the piece.
        start: number of its first row.

    Raises:
        BadInput: a prediction has the name of a column that is kept, or other batches were given others.
    """
    before: pa.Schema | None = None
    with generators.put_back():
        predicting.seeded(predictor.job, number)
        for table, first in predictor.over(tables, start):
            found = predictor(table, first)
            numbers = pa.array(np.arange(first, first + table.num_rows, dtype=np.int64))
            made = {ROW: numbers, **{name: table[name] for name in keep}}
            twice = [name for name in found.column_names if name in made]
            if twice:
                raise BadInput(
                    f"{type(predictor.task).__name__}.predict() gives {twice[0]!r}",
                    "a column of that name is written beside it",
                    "Give it another name, or do not keep that column.",
                )
            predicting.demand_alike(type(predictor.task).__name__, before, found.schema)
            before = found.schema
            yield pa.table({**made, **{name: found[name] for name in found.column_names}})
