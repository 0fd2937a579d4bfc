"""`headway.evaluate`: what a run's model is worth on rows whose labels are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from headway import generators
from headway.elastic.worker import records, tail
from headway.errors import BadInput, nearest
from headway.metrics.merging import Measures
from headway.models import columns, kept, loading, predicting, sources
from headway.models.calling import called
from headway.models.predicting import Predictor
from headway.models.sources import Source
from headway.runs import RunFolder
from headway.task import Task

CLASSES = ("class", "label", "predicted", "prediction")
"""Entries of `predict` that are taken for the class, beside one that is named as the label."""
MOST_CLASSES = 1000
Say = Callable[[int, int | None], None]


@dataclass(frozen=True)
class ByClass:
    """One class.

    Args:
        name: of it.
        rows: that have it.
        predicted: rows of which it was said.
        right: rows of both.
    """

    name: str
    rows: int
    predicted: int
    right: int

    @property
    def recall(self) -> float | None:
        """Of its rows, the share that was found; None where it has none."""
        return self.right / self.rows if self.rows else None

    @property
    def precision(self) -> float | None:
        """Of the rows of which it was said, the share that is right; None where there are none."""
        return self.right / self.predicted if self.predicted else None

    @property
    def f1(self) -> float:
        """Harmonic mean of the two, 2 TP / (2 TP + FP + FN); 0 where nothing is right."""
        return 2 * self.right / (self.rows + self.predicted)


@dataclass(frozen=True)
class Evaluated:
    """What came of it.

    Args:
        run: its name.
        step: of the checkpoint.
        rows: evaluated.
        metrics: the task's, means over the rows.
        classes: each class, where `predict` says one; empty where not.
        confusion: rows by true class (first) and predicted class (second), in the order of `classes`.
        tables: of the task's measures those that are no numbers, by name.
        notes: for people.
    """

    run: str
    step: int
    rows: int
    metrics: dict[str, float]
    classes: list[ByClass] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    tables: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        by_class = {
            each.name: {"rows": each.rows, "recall": each.recall, "precision": each.precision, "f1": each.f1}
            for each in self.classes
        }
        whole = {name: getattr(self, name) for name in ("run", "step", "rows", "metrics", "tables", "notes")}
        return whole | {"classes": by_class, "confusion": self.confusion}


def evaluate(
    run: str | Path | RunFolder,
    data: Any,
    *,
    step: str | int = "best",
    label: str | None = None,
    predicted: str | None = None,
    batch: int | None = None,
    device: str | torch.device = "cpu",
    runs_folder: str | Path | None = None,
    say: Say = lambda done, of: None,
) -> Evaluated:
    """The task's metrics over rows, and, where its `predict` says a class, which classes are taken for which.

    Args:
        run: its name, folder or URL.
        data: as of `headway.predict`, with labels.
        step: of the checkpoint: "best", "last" or a number.
        label: column with the true class; that of the dataset when not given.
        predicted: entry of what `predict` gives with the class; one that is named as the label, or class, label,
            predicted, prediction, when not given.
        batch, device, runs_folder, say: as of `headway.predict`.

    Raises:
        BadInput, BadCheckpoint, UserCodeFailed: as of `headway.predict`.
    """
    trained = kept.read(kept.find(run, runs_folder), step)
    seen = columns.of_run(trained.run, trained.job)
    source = sources.opened(data, seen.arrow)
    model, task = loading.built(trained, device=device)
    if task is None:
        raise BadInput(f"run {trained.run.name} has a loop of its own", "it has no metrics that could be asked for", "")
    rows = predicting.batch_rows(trained.job, source.schema, batch)
    predictor = Predictor(model, task, trained.job, seen, source.said, rows, labelled=True)
    truth = label or source.label or seen.label
    if truth is not None and truth not in source.schema.names:
        if label is not None:
            raise BadInput(f"label={label!r}", f"{source.said} has no such column", nearest(label, source.schema.names))
        truth = None
    means, measured = Means(), _Measured(task)
    confusion = _Confusion(truth, predicted, type(task).predict is not Task.predict)
    labelled = _Labelled(truth)
    for table, found, first in _batches(predictor, source, labelled):
        with predictor.used(table):
            values = task.metrics(model, found)
        means.add(dict(_numbers(measured.taken(values))), table.num_rows)
        if confusion.wanted:
            confusion.add(table, predictor.predicted(table, found))
        say(first + table.num_rows, source.rows)
    if not means.rows:
        raise BadInput(f"{source.said} has no row with a {truth}", "there is nothing to compare with", "Give labels.")
    names = (seen.categories | source.categories).get(truth or "")
    classes, counts = confusion.result(names)
    notes = [*trained.notes, *source.notes, *labelled.notes, *confusion.notes]
    numbers, tables = measured.result()
    metrics = {**means.result(), **numbers}
    step = trained.checkpoint.step
    return Evaluated(trained.run.name, step, means.rows, metrics, classes, counts, tables, notes)


def _batches(
    predictor: Predictor, source: Source, labelled: _Labelled
) -> Iterator[tuple[pa.Table, dict[str, torch.Tensor], int]]:
    with generators.put_back():
        predicting.seeded(predictor.job, 0)
        tables = (labelled.of(table) for piece in source.pieces for table in source.read(piece.what))
        for table, first in predictor.over(tables):
            yield table, predictor.batch(table, first), first


def _numbers(found: Any) -> Iterable[tuple[str, float]]:
    if not isinstance(found, dict):
        raise BadInput(f"metrics() returned a {type(found).__name__}", "metrics have names", "Return a dict.")
    values = {name: records.number("metrics", name, value) for name, value in found.items()}
    return zip(values, tail.floats(values.values()), strict=True)


class _Labelled:
    """Leaves out rows without a label, which nothing can be compared with.

    Args:
        label: its column; None: there is none.
    """

    def __init__(self, label: str | None) -> None:
        self._label, self._without = label, 0

    def of(self, table: pa.Table) -> pa.Table:
        """The rows of a table that have one."""
        if self._label is None or not table[self._label].null_count:
            return table
        self._without += table[self._label].null_count
        return table.filter(table[self._label].is_valid())

    @property
    def notes(self) -> list[str]:
        """For people."""
        return [f"{self._without:,} rows without a {self._label} are left out"] if self._without else []


class _Measured:
    """The task's measures, which are no means over rows."""

    def __init__(self, task: Task) -> None:
        with called(f"{type(task).__name__}.measures()"):
            self._measures = Measures(task.measures())
        self._lane: dict[str, Any] = {}

    @torch.no_grad()
    def taken(self, found: Any) -> Any:
        """Of a batch's metrics those that are means; the others are taken here."""
        if not isinstance(found, dict):
            return found
        for name, value in found.items():
            if name in self._measures:
                self._measures.update(self._lane, name, value)
            elif isinstance(value, tuple):
                raise self._measures.unknown(name)
        return {name: value for name, value in found.items() if name not in self._measures}

    def result(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Numbers, and what else there is, by name."""
        if not self._measures:
            return {}, {}
        found = self._measures.results([self._measures.states(self._lane)])
        return dict(found.values), dict(found.tables)


class Means:
    """Means over rows, of batches' means: summed in float64. A metric that only some batches have is the mean over
    their rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, values: dict[str, float], rows: int) -> None:
        """A batch's."""
        self.rows += rows
        for name, value in values.items():
            total, weight = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + rows * value, weight + rows)

    def result(self) -> dict[str, float]:
        return {name: total / weight for name, (total, weight) in sorted(self._sums.items())}


class _Confusion:
    """Which classes are taken for which.

    Args:
        label: column of the true class, if there is one.
        entry: of `predict`, with the class; None: it is guessed.
        predicts: whether the task has a `predict`.
    """

    def __init__(self, label: str | None, entry: str | None, predicts: bool) -> None:
        self._label, self._entry = label, entry
        self._counts: Counter[tuple[Any, Any]] = Counter()
        self.notes: list[str] = []
        self.wanted = predicts and label is not None
        if entry is not None and not self.wanted:
            lacks = "the data has no label: name its column" if predicts else "the task has no predict"
            raise BadInput(f"predicted={entry!r}", lacks, "")

    def add(self, table: pa.Table, found: pa.Table) -> None:
        """A batch: its rows, and what was predicted of them."""
        assert self._label is not None
        entry = self._entry or self._guessed(found)
        if entry is None:
            return self._leave(f"predict gives no class: name one of {', '.join((self._label, *CLASSES))}")
        if entry not in found.column_names:
            raise BadInput(f"predicted={entry!r}", "predict gives no such entry", nearest(entry, found.column_names))
        truth, said = table[self._label], found[entry]
        if _kind(truth.type) is None or _kind(truth.type) != _kind(said.type):
            return self._leave(f"{self._label} is {truth.type} and {entry} is {said.type}: these are no classes")
        self._counts.update(zip(truth.to_pylist(), said.to_pylist(), strict=True))
        if len({true for true, _ in self._counts}) > MOST_CLASSES:
            self._leave(f"{self._label} has more than {MOST_CLASSES} values")
        return None

    def _guessed(self, found: pa.Table) -> str | None:
        names = (name for name in (self._label, *CLASSES) if name in found.column_names)
        return next((name for name in names if name is not None), None)

    def _leave(self, why: str) -> None:
        if self._entry is not None:
            raise BadInput(f"predicted={self._entry!r}", why, "")
        self.wanted = False
        self._counts.clear()
        self.notes.append(f"no classes are compared: {why}")

    def result(self, names: list[str] | None) -> tuple[list[ByClass], list[list[int]]]:
        """By class, and the counts; names: of codes."""
        values = sorted({value for pair in self._counts for value in pair}, key=lambda value: (value is None, value))
        at = {value: number for number, value in enumerate(values)}
        counts = np.zeros((len(values), len(values)), np.int64)
        for (true, said), rows in self._counts.items():
            counts[at[true], at[said]] = rows
        classes = [
            ByClass(_name(value, names), int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i]))
            for i, value in enumerate(values)
        ]
        return classes, counts.tolist()


def _kind(kind: pa.DataType) -> str | None:
    """Of what can be a class."""
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return "number"
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _name(value: Any, names: list[str] | None) -> str:
    known = names is not None and type(value) is int and 0 <= value < len(names)
    return names[value] if known and names is not None else str(value)
