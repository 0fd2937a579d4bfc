"""The job's `data.sampling` held against a dataset: the weights, classes and lengths of its rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

import numpy as np

from headway.core.sampling import Floats, Sampling, balanced
from headway.data.manifest import Manifest
from headway.data.sampling.index import Classes, class_index, column_index, length_index
from headway.data.store.files import Files
from headway.errors import BadInput, nearest
from headway.job import Sampling as Asked

T = TypeVar("T")


def sampling(asked: Asked, files: Files) -> Sampling | None:
    """What a job asks of a dataset's rows; None where each comes once an epoch, with whichever others.

    Raises:
        BadInput: the keys do not fit the data; names the key.
        BadData: a column that is needed has nulls or cannot be read.
    """
    drawn = asked.rows is not None or asked.weights != "uniform"
    if not (drawn or asked.stratify or asked.bucket):
        return None
    rows = (asked.rows or files.manifest.rows) if drawn else None
    weights, strata = _weights(asked, files), None
    if asked.stratify:
        strata = classes_of(asked, files).codes
    lengths = None
    if asked.bucket is not None:
        lengths = _at("data.sampling.bucket", lambda column: length_index(files, column), asked.bucket)
    if rows is not None:
        _check_draw(asked, rows, weights, files.manifest)
    return Sampling(rows, weights, asked.replacement, strata, lengths, asked.buckets)


def classes_of(asked: Asked, files: Files) -> Classes:
    """The classes of the dataset's rows, by the column that the job names, or the label.

    Raises:
        BadInput, BadData: as `sampling`.
    """
    column = asked.by or files.manifest.label
    if column is None:
        fact = "data.sampling.by is not given"
        raise BadInput(fact, f"{files.manifest.name} has no label to take in its place", "Name the column of classes.")
    return _at("data.sampling.by", lambda name: class_index(files, name), column)


def check_classes(asked: Asked, sources: Collection[Files]) -> None:
    """Refuse weights for classes that none of the sources has.

    Raises:
        BadInput: naming the class, and the nearest that there is.
    """
    if not isinstance(asked.weights, dict):
        return
    known = {name for files in sources for name in _aliases(asked, files, classes_of(asked, files))}
    for name in asked.weights:
        if name not in known:
            fact = f"data.sampling.weights names the class {name!r}"
            raise BadInput(fact, "no row is of that class", nearest(name, sorted(known)))


def _weights(asked: Asked, files: Files) -> Floats | None:
    if asked.weights == "uniform":
        return None
    if asked.weights == "column":
        if asked.by is None:
            fact = "data.sampling.weights=column without data.sampling.by"
            raise BadInput(fact, "nothing says which column", "Name the column of weights in data.sampling.by.")
        weights = _at("data.sampling.by", lambda name: column_index(files, name), asked.by).astype(np.float64)
        if weights.min() < 0:
            fact = f"data.sampling.by: column {asked.by!r} has negative values"
            raise BadInput(fact, "a weight is 0 or more", "Mend the column, or name another.")
        return weights
    classes = classes_of(asked, files)
    if asked.weights == "balanced":
        return balanced(classes.codes)
    codes = _aliases(asked, files, classes)
    by_class = np.ones(len(classes.names))
    for name, weight in asked.weights.items():
        if name in codes:  # another part of a mixture may have the others
            by_class[codes[name]] = weight
    found: Floats = by_class[classes.codes]
    return found


def _aliases(asked: Asked, files: Files, classes: Classes) -> dict[str, int]:
    """Codes by the names of classes as a job may write them: the column's values, or the categories they stand for."""
    found = {name: code for code, name in enumerate(classes.names)}
    categories = files.manifest.categories.get(asked.by or files.manifest.label or "", [])
    for value, name in enumerate(categories):
        if str(value) in found:
            found.setdefault(name, found[str(value)])
    return found


def _check_draw(asked: Asked, rows: int, weights: Floats | None, manifest: Manifest) -> None:
    able = manifest.rows if weights is None else int(np.count_nonzero(weights))
    if able == 0:
        fact = f"data.sampling.weights give every row of {manifest.name} the weight 0"
        raise BadInput(fact, "nothing can be drawn", "Give some rows a weight above 0.")
    if asked.replacement:
        return
    if rows > able:
        fact = f"data.sampling.rows={rows:,} without replacement"
        remedy = f"Set data.sampling.rows to {able:,} or fewer, or data.sampling.replacement to true."
        raise BadInput(fact, f"{manifest.name} has {able:,} rows that can be drawn", remedy)
    if weights is not None and rows == able:
        fact = f"data.sampling.weights with all of {able:,} rows drawn without replacement"
        remedy = f"Set data.sampling.rows to fewer than {able:,}, or data.sampling.replacement to true."
        raise BadInput(fact, "each row comes once, whatever its weight", remedy)


def _at(key: str, index: Callable[[str], T], column: str) -> T:
    try:
        return index(column)
    except BadInput as error:
        raise type(error)(f"{key}: {error.fact}", error.reason, error.remedy) from error.__cause__
