"""The user's own function over batches of rows, given as module:function or file.py:function."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headway.carried import code
from headway.data.tensors import TensorType, column
from headway.errors import BadInput
from headway.faults import blame

FORMATS = ("arrow", "numpy")


@dataclass(frozen=True)
class Transform:
    """A function that takes a batch of rows and gives one, of any number of rows.

    It must give the same rows for the same batch: pieces may be read again. Batches are a few MiB, cut by the source
    alone.

    Args:
        text: as the user wrote it.
        function: itself.
        numpy: it takes a dict of NumPy arrays, not an Arrow table.
        folder: put on the import path where it runs, for what it imports.
        digest: of its module's source.
    """

    text: str
    function: Callable[[Any], Any]
    numpy: bool
    folder: str
    digest: str

    def __call__(self, table: pa.Table) -> pa.Table:
        """The function's rows for a batch; tensors are tensors on both sides.

        Raises:
            BadInput: it raised, or gave something else than a table or arrays of one length.
        """
        if self.folder not in sys.path and Path(self.folder).is_dir():
            sys.path.append(self.folder)
        try:
            found = self.function(as_arrays(table) if self.numpy else table)
        except Exception as error:  # whatever the user's code raises
            raise self._failed(error) from None
        if isinstance(found, pa.RecordBatch):
            found = pa.Table.from_batches([found])
        if isinstance(found, dict):
            try:
                found = as_table(found)
            except (ValueError, TypeError, pa.ArrowException) as error:
                reason = str(error).splitlines()[0].rstrip(".")
                raise BadInput(f"--transform {self.text} gave no table", reason, "Give arrays of one length.") from None
        if not isinstance(found, pa.Table):
            kind = type(found).__name__
            raise BadInput(f"--transform {self.text} gave a {kind}", "not a table", "Give an Arrow table or a dict.")
        return found

    def _failed(self, error: Exception) -> BadInput:
        failed = BadInput(f"--transform {self.text} raised", blame.reason(error), "Mend it.")
        failed.traceback = code.users_traceback(error)
        return failed


def load(text: str, batch_format: str | None) -> Transform:
    """Find and import the function.

    Args:
        text: module:function or file.py:function.
        batch_format: arrow or numpy; None goes by the annotation of its first parameter, else arrow.

    Raises:
        BadInput: it cannot be had, or the format is neither.
    """
    from ray import cloudpickle

    if batch_format not in (None, *FORMATS):
        raise BadInput(f"--batch-format {batch_format}", "it is arrow or numpy", "")
    if ":" not in text:
        raise BadInput(f"--transform {text}", "it names no function", "Write module:function or file.py:function.")
    try:
        source = code.locate(text)
        function = code.load(source)
    except BadInput as error:
        named = BadInput(error.fact.replace("task=", "--transform ", 1).replace("the task's", "the transform's"))
        named.args = (named.fact, error.reason, error.remedy)
        named.reason, named.remedy, named.traceback = error.reason, error.remedy, error.traceback
        raise named from None
    if source.inside is not None:  # not installed on the cluster: the function travels itself
        cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
    numpy = batch_format == "numpy" if batch_format else _takes_arrays(function)
    file = sys.modules[getattr(function, "__module__", None) or source.module].__file__
    digest = sha256(Path(file).read_bytes() if file else b"").hexdigest()
    return Transform(text, function, numpy, str(source.folder), digest)


def _takes_arrays(function: Callable[[Any], Any]) -> bool:
    parameters = list(inspect.signature(function).parameters.values())
    return bool(parameters) and str(parameters[0].annotation).replace("typing.", "").startswith(
        ("dict", "Dict", "<class 'dict'>")
    )


def as_arrays(table: pa.Table) -> dict[str, np.ndarray[Any, Any]]:
    """Columns as NumPy arrays: tensors [rows, *shape], numbers [rows] (nulls as NaN), all else as objects [rows]."""
    return {name: _array(column) for name, column in zip(table.column_names, table.columns, strict=True)}


def _array(values: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if isinstance(values.type, TensorType):
        parts = [chunk.to_numpy_ndarray() for chunk in values.chunks]
        return np.concatenate(parts) if parts else np.empty((0, *values.type.shape), values.type.dtype)
    if pa.types.is_fixed_size_list(values.type):
        flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in values.chunks]
        return np.concatenate(flat).reshape(-1, values.type.list_size)
    found: np.ndarray[Any, Any] = values.to_numpy()
    return found


def as_table(arrays: dict[str, Any]) -> pa.Table:
    """Arrays as columns; those of more than one dimension as tensors.

    Raises:
        ValueError, TypeError, ArrowException: the arrays differ in length, or cannot be columns.
    """
    columns = {}
    for name, values in arrays.items():
        array = np.asarray(values)
        columns[str(name)] = column(array) if array.ndim > 1 and array.dtype != object else pa.array(values)
    return pa.table(columns)
