"""From what an author's code gives, or is, to rows that can be read: which kind of dataset it is."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headway.data.own.rows import Columns, Rows
from headway.data.own.streams import Stream
from headway.errors import BadInput

Own = Rows | Stream
"""A dataset of the user's own."""

_TAKEN = (
    "Give a map-style Dataset (__len__ and __getitem__), a mapping of arrays, a frame, or an IterableDataset or a "
    "function that gives an iterator."
)


def taken(found: Any, use: str, name: str) -> Own:
    """What a name stands for, as a dataset. A function, or a class, is called: without arguments, or, if it takes two,
    as a stream's, with a lane and the number of lanes, each time that a lane's rows are begun.

    Args:
        found: what has the name.
        use: of the dataset, for errors.
        name: for errors.

    Raises:
        BadInput: it is none.
        Exception: of the user's code.
    """
    fact = f"data.{use}={name}"
    if callable(found) and not _is_dataset(found):
        wanted = _wanted(found)
        if wanted == 2:
            return Stream(found, sharded=True)
        if wanted:
            raise BadInput(
                fact,
                f"it takes {wanted} arguments",
                "Let it take none, or a lane and the number of lanes for a stream.",
            )
        made = found()
        if inspect.isgenerator(made) or _is_iterator(made):
            return Stream(found, sharded=False)
        found = made
    return _of(found, fact)


def _of(found: Any, fact: str) -> Own:
    kind = type(found)
    home = kind.__module__.partition(".")[0]
    if home == "ray":
        raise BadInput(
            f"{fact} is a Ray {kind.__name__}",
            "every process of the run would make it anew, each with a Ray Data job of its own",
            "Give it from Python, headway.train(job, data={...}), which writes it once; or prepare its files with "
            "`headway data prepare`.",
        )
    if isinstance(found, Mapping) or (home == "datasets" and kind.__name__.endswith("DatasetDict")):
        columns = _columns(found)
        if columns is None:
            keys = ", ".join(map(repr, list(found)[:5]))
            raise BadInput(fact, f"it is a {kind.__name__} of {keys}, each a dataset", "Name one of them.")
        return columns
    columns = _columns(found)
    if columns is not None:
        return columns
    if hasattr(kind, "__getitem__") and hasattr(kind, "__len__"):
        return Rows(found)
    if hasattr(kind, "__iter__") and not _is_iterator(found):
        return Stream(lambda: found, sharded=False, dataset=found)
    if _is_iterator(found):
        raise BadInput(
            fact,
            "it is an iterator, which is used up by going through it once",
            "Name the function that gives it: it is called whenever the rows begin again.",
        )
    raise BadInput(fact, f"it is a {kind.__module__}.{kind.__name__}, and no dataset", _TAKEN)


def _columns(found: Any) -> Columns | None:
    """Of what holds its rows as arrays; None of all else."""
    kind = type(found)
    home = kind.__module__.partition(".")[0]
    torch = sys.modules.get("torch")
    if torch is not None and kind is torch.utils.data.TensorDataset:
        return Columns(found, found.tensors, None)
    if isinstance(found, np.ndarray) or (torch is not None and isinstance(found, torch.Tensor)):
        return Columns(found, [found], ["x"])
    if isinstance(found, Mapping):
        arrays = [_array(value) for value in found.values()]
        lengths = {len(array) for array in arrays if array is not None}
        if not arrays or any(array is None for array in arrays) or len(lengths) > 1:
            return None
        return Columns(found, arrays, [str(name) for name in found])
    if home == "pandas" and kind.__name__ == "DataFrame":
        return Columns(found, [found[name].to_numpy() for name in found.columns], [str(name) for name in found.columns])
    if home == "pyarrow" and kind.__name__ == "Table":
        return Columns(found, [_of_arrow(column) for column in found.columns], found.column_names)
    if home == "polars" and kind.__name__ == "DataFrame":
        return Columns(found, [found[name].to_numpy() for name in found.columns], found.columns)
    return None


def _of_arrow(column: Any) -> np.ndarray[Any, Any]:
    """Tensors and lists of one size by rows; else a value a row."""
    from headway.data.arrays import array_of
    from headway.errors import BadData

    try:
        return array_of("", column)
    except BadData:
        return np.asarray(column.to_numpy(), object)


def _array(value: Any) -> Any:
    torch = sys.modules.get("torch")
    if isinstance(value, np.ndarray) and value.ndim:
        return value
    if torch is not None and isinstance(value, torch.Tensor) and value.dim():
        return value
    if isinstance(value, list | tuple) and value and isinstance(value[0], int | float | str | bool):
        return np.asarray(value)
    if hasattr(value, "to_numpy") and hasattr(value, "index"):  # a Series
        return value.to_numpy()
    return None


def _is_dataset(found: Any) -> bool:
    """Whether an object that can be called is a dataset nonetheless."""
    return not inspect.isclass(found) and not inspect.isroutine(found) and hasattr(type(found), "__getitem__")


def _is_iterator(found: Any) -> bool:
    return hasattr(type(found), "__next__")


def _wanted(found: Callable[..., Any]) -> int:
    """Arguments that must be given."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return 0
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in plain and each.default is inspect.Parameter.empty for each in parameters)
