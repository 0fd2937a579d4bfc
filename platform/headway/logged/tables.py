"""Tables as JSON, as MLflow shows them: {"columns": [names], "data": [rows]}."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST_ROWS = 10_000


class NoTable(ValueError):
    """It is none; says why."""


def encoded(table: Any) -> bytes:
    """The table.

    Args:
        table: of pandas, Arrow or polars, a dict of columns, or a list of rows as dicts. A column is a list, an array
            or a tensor. Values that JSON has no words for are kept as text, NaN and infinities as null.

    Raises:
        NoTable: it is none of these, its columns have unlike lengths, or more rows than `MOST_ROWS`.
    """
    if callable(getattr(table, "to_arrow", None)):  # polars'
        table = table.to_arrow()
    if not isinstance(table, Mapping) and hasattr(table, "__len__"):
        _check_rows(len(table))
    columns = _columns(table)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise NoTable(f"its columns have unlike lengths: {', '.join(f'{n} {k}' for n, k in lengths.items())}")
    _check_rows(next(iter(lengths.values()), 0))
    plain = [[_plain(value) for value in values] for values in columns.values()]
    found = {"columns": list(columns), "data": [list(row) for row in zip(*plain, strict=True)]}
    return json.dumps(found, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _check_rows(rows: int) -> None:
    if rows > MOST_ROWS:
        raise NoTable(f"it has {rows:,} rows, and at most {MOST_ROWS:,} are kept: log a file (log_artifact)")


def _columns(table: Any) -> dict[str, Sequence[Any]]:
    if callable(getattr(table, "to_pydict", None)):  # Arrow's
        return {str(name): values for name, values in table.to_pydict().items()}
    if hasattr(table, "columns") and callable(getattr(table, "itertuples", None)):  # pandas'
        return {str(name): table.iloc[:, place].tolist() for place, name in enumerate(table.columns)}
    if isinstance(table, Mapping):
        return {str(name): _column(str(name), values) for name, values in table.items()}
    if isinstance(table, list | tuple) and table and all(isinstance(row, Mapping) for row in table):
        names = dict.fromkeys(str(name) for row in table for name in row)
        named = [{str(name): value for name, value in row.items()} for row in table]
        return {name: [row.get(name) for row in named] for name in names}
    kind = type(table).__name__
    raise NoTable(f"a {kind} is no table: that is a frame of pandas or Arrow, a dict of columns or a list of dicts")


def _column(name: str, values: Any) -> Sequence[Any]:
    if callable(getattr(values, "detach", None)):
        values = values.detach().cpu()
    if callable(getattr(values, "tolist", None)):
        values = values.tolist()
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise NoTable(f"its column {name!r} is a {type(values).__name__}, and columns are lists or arrays")
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    elif callable(getattr(value, "detach", None)):
        value = value.detach().cpu().tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value)
