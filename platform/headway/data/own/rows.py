"""Rows that are had one by one, by number: a map-style dataset's, seeded by (seed, epoch, row)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headway.core.keys import key
from headway.data.own.content import Content, chosen, told_by
from headway.data.own.seeding import NAMES, drawn, lent, seed, states
from headway.data.read.aligned import NUMBERS
from headway.faults import blame

Numbers = np.ndarray[Any, np.dtype[np.int64]]
READ_TWICE = 4
"""Rows by which it is seen whether a dataset gives the same ones each time."""
Fields = tuple[tuple[str, str], ...]
"""Names and types of what a row holds."""


@dataclass(frozen=True)
class Place:
    """Of which rows are read. epoch: counts for what is drawn; training: False draws the same in every epoch."""

    seed: int
    epoch: int
    training: bool

    def key(self, row: int) -> int:
        """Of the generators, while a row is read."""
        return key("row", self.seed, self.epoch, row) if self.training else key("row to evaluate", self.seed, row)


@dataclass(frozen=True)
class Taken:
    """What was read.

    Args:
        rows: as `__getitem__` gave them.
        aside: of rows that could not be had: number, and why.
    """

    rows: list[Any]
    aside: list[tuple[int, str]]


class Rows:
    """A map-style dataset.

    Args:
        dataset: has `__len__` and `__getitem__`.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._drawn: set[str] = set()
        """Random generators from which its code was seen to draw. Seeding all for each row takes longer than most rows
        do: those of which nothing is known are looked at after a batch, which is read anew once one was drawn from."""

    def __len__(self) -> int:
        return len(self.dataset)

    def take(self, numbers: Sequence[int], place: Place, forgive: bool) -> Taken:
        """Rows by their numbers; the process's random generators are as before afterwards.

        Args:
            forgive: a row that raises is left out, and told.

        Raises:
            Exception: of the user's `__getitem__`.
        """
        with lent() as seeded:
            while True:
                seeded(place.key(numbers[0]))
                before = states(name for name in NAMES if name not in self._drawn)
                try:
                    found: Taken | Exception = self._seeded(numbers, place, forgive)
                except Exception as error:  # raised below, if what it draws is seeded for its row
                    found = error
                fresh = drawn(before)
                if fresh:
                    self._drawn |= fresh
                elif isinstance(found, Exception):
                    raise found
                else:
                    return found

    def _seeded(self, numbers: Sequence[int], place: Place, forgive: bool) -> Taken:
        rows: list[Any] = []
        aside: list[tuple[int, str]] = []
        for number in numbers:
            if self._drawn:
                seed(place.key(number), self._drawn)
            try:
                rows.append(self.dataset[number])
            except Exception as error:
                if not forgive:
                    raise
                aside.append((number, blame.reason(error)))
        return Taken(rows, aside)

    def digest(self) -> str:
        """Its own, else of its class, its length and some of its rows."""
        told = told_by(self.dataset)
        if told is not None:
            return Content("told", told, len(self)).hexdigest()
        kind = type(self.dataset)
        content = Content("rows", f"{kind.__module__.rpartition('.')[2]}.{kind.__qualname__}", len(self))
        for row in self.take(chosen(len(self)), Place(0, 0, False), forgive=True).rows:
            content.add(row)
        return content.hexdigest()

    def drifts(self) -> bool:
        """Whether rows differ from one reading to the next, though all that is drawn is seeded alike: by a generator of
        the dataset's own, a counter, the clock."""
        numbers = chosen(len(self))[:READ_TWICE]
        found = []
        for _ in range(2):
            content = Content()
            for row in self.take(numbers, Place(0, 0, False), forgive=True).rows:
                content.add(row)
            found.append(content.hexdigest())
        return found[0] != found[1]

    def fields(self) -> Fields:
        """Of the first row that can be had."""
        for number in chosen(len(self)):
            for row in self.take([number], Place(0, 0, False), forgive=True).rows:
                return fields_of(row)
        return ()


class Columns(Rows):
    """Arrays whose first dimension is the row: a TensorDataset, a frame, a mapping of arrays.

    Args:
        dataset: what was given.
        columns: arrays or tensors, of one length each.
        names: of the columns; None: a row is a tuple.
    """

    def __init__(self, dataset: Any, columns: Sequence[Any], names: Sequence[str] | None) -> None:
        super().__init__(dataset)
        self.columns, self.names = list(columns), None if names is None else list(names)

    def __len__(self) -> int:
        return len(self.columns[0])

    def batch(self, numbers: Numbers) -> Any:
        """Rows by their numbers, as one batch: the columns' own arrays, or lists of what are no numbers."""
        found = [_picked(column, numbers) for column in self.columns]
        return tuple(found) if self.names is None else dict(zip(self.names, found, strict=True))

    def take(self, numbers: Sequence[int], place: Place, forgive: bool) -> Taken:
        """See `Rows.take`. Nothing is drawn."""
        rows = [[column[number] for column in self.columns] for number in numbers]
        if self.names is None:
            return Taken([tuple(row) for row in rows], [])
        return Taken([dict(zip(self.names, row, strict=True)) for row in rows], [])

    def drifts(self) -> bool:
        """They are read as they lie."""
        return False

    def digest(self) -> str:
        """Of all that they hold."""
        content = Content("columns", self.names, len(self))
        for column in self.columns:
            content.add(column)
        return content.hexdigest()


def fields_of(row: Any) -> Fields:
    """Names and types of what a row holds; of a tuple, numbers are the names."""
    if isinstance(row, dict):
        return tuple((str(name), kind_of(value)) for name, value in row.items())
    if isinstance(row, list | tuple):
        return tuple((str(number), kind_of(value)) for number, value in enumerate(row))
    return (("row", kind_of(row)),)


def kind_of(value: Any) -> str:
    """A value's type, in words."""
    torch = sys.modules.get("torch")
    if (torch is not None and isinstance(value, torch.Tensor)) or isinstance(value, np.ndarray):
        dtype = str(value.dtype).rpartition(".")[2]
        return f"{dtype}{list(value.shape)}" if value.ndim else dtype
    if isinstance(value, np.generic):
        return str(value.dtype)
    return type(value).__name__


def _picked(column: Any, at: np.ndarray[Any, Any]) -> Any:
    if isinstance(column, np.ndarray):
        found = column[at]
        return found if found.dtype.kind in NUMBERS else found.tolist()
    torch = sys.modules["torch"]
    return column[torch.from_numpy(at)]


def begin_alike(number: int) -> None:
    """Before a dataset is made: what its code draws is the same in every process. number: the job's seed."""
    seed(key("dataset", number))
