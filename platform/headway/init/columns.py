"""What the columns of a table are good for when one of them is to be predicted: judged by their first rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.errors import BadInput, nearest

ROWS = 100_000
"""That are looked at."""
CLASSES = 20
"""Whole numbers of so many values are classes; of more they are numbers."""
WORDS = 1000
"""A column of text with more different values is text, not a category."""
BINS = 32
TELLS = 0.99
"""Share of the rows in which one column tells the target by itself, that is told of; of a number, the correlation."""
_ID = re.compile(r"(^|[_\W])(id|uuid|guid|key|index|rownum|row_number|number|nr)$|^unnamed", re.IGNORECASE)

Kind = Literal["classes", "number"]


@dataclass(frozen=True)
class Roles:
    """See the module.

    Args:
        target: the column that is predicted, and as what.
        classes: shares of the target's values, the most frequent first; none of a number.
        numbers, categories, dates: columns to predict from.
        left: columns that are left out, and why.
        notes: what looks odd and is used all the same.
    """

    target: str
    kind: Kind
    classes: dict[str, float] = field(default_factory=dict)
    numbers: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def used(self) -> list[str]:
        """Columns that are read in training."""
        return [*self.numbers, *self.dates, *self.categories, self.target]


def judged(table: pa.Table, target: str) -> Roles:
    """The roles of a table's columns.

    Args:
        table: rows of it, in any order.
        target: column to predict.

    Raises:
        BadInput: there is no such column, it cannot be predicted, or no other is left to predict it from.
    """
    names = table.column_names
    if target not in names:
        raise BadInput(f"--target {target}", "there is no such column", nearest(target, names))
    kind, classes = _target(table[target], target)
    roles = Roles(target, kind, classes)
    for name in names:
        if name != target:
            _place(roles, name, table[name])
    if not (roles.numbers or roles.categories or roles.dates):
        why = "; ".join(f"{name}: {reason}" for name, reason in roles.left.items())
        raise BadInput(f"nothing is left to predict {target!r} from", why or "it is the only column", "Add columns.")
    truth = table[target]
    for name in (*roles.numbers, *roles.dates, *roles.categories):
        told = _tells(table[name], truth, kind)
        if told is not None:
            roles.notes.append(f"{name} {told}: is it known before {target} is?")
        elif name.lower().startswith(target.lower()) and name.lower() != target.lower():
            roles.notes.append(f"{name} is named like {target}: is it known before?")
    return roles


def _target(column: pa.ChunkedArray, name: str) -> tuple[Kind, dict[str, float]]:
    kind, there = column.type, column.drop_null()
    plain = pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_integer(kind)
    if not (plain or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        reason = f"it is {kind}, and text, booleans and numbers can be predicted"
        raise BadInput(f"--target {name}", reason, "Name another column, or turn it into one of these.")
    counts = pc.value_counts(there)
    distinct = len(counts)
    if distinct < 2:
        raise BadInput(f"--target {name}", "it has one value: there is nothing to learn", "Name another column.")
    few = distinct <= CLASSES and len(there) >= 2 * distinct
    if pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and few) or (pa.types.is_string(kind)):
        if distinct > WORDS or 2 * distinct > max(len(there), 4):
            reason = f"it is text with {distinct:,} different values in {len(there):,} rows: too many for classes"
            raise BadInput(f"--target {name}", reason, "Name another column.")
        ranked = sorted(
            zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True), key=_rank
        )
        return "classes", {str(value): count / len(there) for value, count in ranked}
    return "number", {}


def _rank(entry: tuple[object, int]) -> tuple[int, str]:
    return -entry[1], str(entry[0])


def _place(roles: Roles, name: str, column: pa.ChunkedArray) -> None:
    """Put a column where it belongs."""
    kind, there = column.type, column.drop_null()
    types = pa.types
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)
    if not (number or types.is_string(kind) or types.is_date(kind) or types.is_timestamp(kind)):
        roles.left[name] = f"it is {kind}"
        return
    distinct = len(pc.unique(there))
    if distinct < 2:
        roles.left[name] = "it has one value" if distinct else "it is empty"
    elif (types.is_integer(kind) or types.is_string(kind)) and distinct == len(there) and _names_rows(name, there):
        roles.left[name] = "it names rows: each has another value"
    elif number:
        roles.numbers.append(name)
    elif types.is_date(kind) or types.is_timestamp(kind):
        roles.dates.append(name)
    elif distinct > WORDS or 2 * distinct > len(there):
        roles.left[name] = f"it is text: {distinct:,} different values in {len(there):,} rows"
    else:
        roles.categories.append(name)


def _names_rows(name: str, there: pa.ChunkedArray) -> bool:
    """Whether values that all differ are names: they are called so, or are numbers in a row."""
    if _ID.search(name) or pa.types.is_string(there.type):
        return True
    numbers = there.to_numpy()
    return len(numbers) > 2 and bool((np.diff(numbers) == 1).all())


def _tells(column: pa.ChunkedArray, truth: pa.ChunkedArray, kind: Kind) -> str | None:
    """In words, that a column tells the target all alone; None where it does not."""
    if kind == "number":
        if pa.types.is_string(column.type):
            return None
        one, other = _floats(column), _floats(truth)
        both = np.isfinite(one) & np.isfinite(other)
        if both.sum() < 3 or not one[both].std() or not other[both].std():
            return None
        correlation = float(np.corrcoef(one[both], other[both])[0, 1])
        return f"goes with it almost exactly (correlation {correlation:.3f})" if abs(correlation) > TELLS else None
    codes = _codes(truth)
    bins = _codes(column) if pa.types.is_string(column.type) else _binned(_floats(column))
    counts = np.zeros((int(bins.max()) + 1, int(codes.max()) + 1), np.int64)
    np.add.at(counts, (bins, codes), 1)
    share, base = counts.max(1).sum() / len(codes), np.bincount(codes).max() / len(codes)
    if share < TELLS or 1 - share > (1 - base) / 4:
        return None
    return f"alone tells it in {share:.1%} of the rows"


def _codes(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A number for each value, null among them."""
    values = pc.unique(column.drop_null())
    found = pc.fill_null(pc.index_in(column, value_set=values), len(values))
    return np.asarray(found.to_numpy(), np.int64)


def _floats(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), np.float64)


def _binned(numbers: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Numbers in bins of like size; those that are missing in one of their own."""
    there = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[there], np.linspace(0, 1, BINS + 1)[1:-1])) if there.any() else np.empty(0)
    return np.where(there, np.searchsorted(edges, np.where(there, numbers, 0.0), side="left") + 1, 0)
