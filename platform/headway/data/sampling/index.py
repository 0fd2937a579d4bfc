"""One column of a whole dataset in memory: what weighted sampling, stratified lanes and length buckets ask for.

A few bytes a row, read once per process: no other column is decoded, though whole row groups are read and compared with
their digests.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headway.data.read.groups import Groups
from headway.data.store.files import Files
from headway.errors import BadData, BadInput

MAX_CLASSES = 65_536
KEPT = 8
"""Columns that a process keeps, of whichever datasets."""

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Classes:
    """A column of classes.

    Args:
        codes: int32, of every row; shape [rows].
        names: the values as text, as in the manifest's label_counts: code i is names[i].
    """

    codes: np.ndarray[Any, np.dtype[np.int32]]
    names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Rows by class."""
        return dict(zip(self.names, np.bincount(self.codes, minlength=len(self.names)).tolist(), strict=True))


def column_index(files: Files, column: str) -> Array:
    """A column of numbers: float32, or int32 where they are whole; shape [rows]. Not to be written to.

    Raises:
        BadInput: there is no such column, or it holds something else.
        BadData: it has nulls, numbers that are not finite, or cannot be read.
    """
    return _kept(files, column, "numbers", lambda: np.concatenate(list(_each(files, column, _numbers))))


def length_index(files: Files, column: str) -> Array:
    """Lengths: a column of whole numbers or floats as it is, text or bytes in bytes, lists in elements; shape [rows].

    Raises:
        BadInput, BadData: as `column_index`.
    """
    return _kept(files, column, "lengths", lambda: np.concatenate(list(_each(files, column, _lengths))))


def class_index(files: Files, column: str) -> Classes:
    """A column of whole numbers, booleans or words as classes.

    Raises:
        BadInput: there is no such column, it holds something else, or more than MAX_CLASSES values.
        BadData: it has nulls, or cannot be read.
    """
    return _kept(files, column, "classes", lambda: _classes(files, column))


_lock = threading.Lock()
_columns: OrderedDict[tuple[str, str, str], Any] = OrderedDict()


def _kept(files: Files, column: str, kind: str, read: Callable[[], T]) -> T:
    name = (files.manifest.digest, column, kind)
    with _lock:  # held while reading: a second thread that wants the same column waits for it
        if name not in _columns:
            _columns[name] = read()
        _columns.move_to_end(name)
        while len(_columns) > KEPT:
            _columns.popitem(last=False)
        found: T = _columns[name]
        return found


def _each(files: Files, column: str, values: Callable[[str, pa.Array], T]) -> Iterator[T]:
    """What `values` makes of the column's array, row group by row group."""
    manifest = files.manifest
    require(column, [name for name, _ in manifest.schema])
    files.expect(range(len(manifest.groups)))
    groups = Groups(files, [column])  # whose digests it compares: all workers must find the same
    for group in range(len(manifest.groups)):
        shard, number = manifest.locate(group)
        table = groups.load(group).table
        assert table is not None, "without a quarantine what is bad is an error"
        found = table[column].combine_chunks()
        if found.null_count:
            row = int(np.flatnonzero(found.is_null())[0])
            fact = f"column {column!r} has {found.null_count} nulls in row group {number} of {shard.path}"
            raise BadData(
                f"{fact}, the first in row {row}",
                "every row needs a class, weight or length",
                "Drop these rows, or fill them in.",
            )
        yield values(column, found)


def require(column: str, known: list[str]) -> None:
    """Refuse a column that is not there."""
    from headway.errors import nearest

    if column not in known:
        raise BadInput(f"no column {column!r}", "the dataset does not have it", nearest(column, known))


def _numbers(column: str, found: pa.Array) -> Array:
    kind = found.type
    if pa.types.is_floating(kind):
        numbers: Array = found.to_numpy(zero_copy_only=False).astype(np.float32)
        if not np.isfinite(numbers).all():
            raise BadData(f"column {column!r} holds NaN or infinity", "they are no numbers to sample by", "Mend it.")
        return numbers
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise BadInput(f"column {column!r} is {kind}", "numbers are needed", "Name a column of numbers.")
    numbers = found.to_numpy(zero_copy_only=False)
    fits = len(numbers) == 0 or (numbers.min() >= -(2**31) and numbers.max() < 2**31)
    return numbers.astype(np.int32 if fits else np.float32)


def _lengths(column: str, found: pa.Array) -> Array:
    kind = found.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        found = pc.list_value_length(found)
    elif any(is_(kind) for is_ in (pa.types.is_string, pa.types.is_binary, _is_large)):
        found = pc.binary_length(found)
    return _numbers(column, found)


def _is_large(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _classes(files: Files, column: str) -> Classes:
    seen: dict[str, int] = {}
    parts = []
    for codes, words in _each(files, column, _coded):
        known = np.array([seen.setdefault(word, len(seen)) for word in words], np.int32)
        parts.append(known[codes])
        if len(seen) > MAX_CLASSES:
            fact = f"column {column!r} has more than {MAX_CLASSES:,} values"
            raise BadInput(fact, "these are no classes", "Name the column of classes.")
    names = sorted(seen, key=lambda name: (len(name), name))
    place = np.empty(len(names), np.int32)
    place[[seen[name] for name in names]] = np.arange(len(names))
    return Classes(place[np.concatenate(parts)], tuple(names))


def _coded(column: str, found: pa.Array) -> tuple[Array, list[str]]:
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    words = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (words or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise BadInput(
            f"column {column!r} is {kind}", "classes are whole numbers, booleans or words", "Name another column."
        )
    encoded = found if pa.types.is_dictionary(found.type) else found.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), [str(value.as_py()) for value in encoded.dictionary]
