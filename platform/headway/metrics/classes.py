"""Metrics of classification, all from one matrix of counts: whole numbers, so equal on any lanes and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from headway.errors import BadInput, nearest

AVERAGES = ("macro", "micro", "binary")


class Confusion:
    """The matrix of counts: its rows are the labels, its columns the predictions.

    Args:
        classes: how many there are, at least 2; or their names, in order.

    Raises:
        BadInput: fewer than 2.
    """

    def __init__(self, classes: int | Sequence[str] = 2) -> None:
        number = classes if isinstance(classes, int) else len(classes)
        if isinstance(classes, bool) or number < 2:
            kind = type(self).__name__
            raise BadInput(f"{kind}(classes={classes!r})", "at least 2 can be confused", "Give their number, or names.")
        self.names = [str(name) for name in range(number)] if isinstance(classes, int) else [str(n) for n in classes]
        self.counts = torch.zeros(number, number, dtype=torch.int64, device="cpu")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: classes by number, shape [rows] (of two classes also scores, of which those above 0.5 are class
                1); or scores, shape [rows, classes], of which the largest counts, the first of several.
            labels: classes by number, shape [rows].

        Raises:
            BadInput: shapes that do not fit, or a class that there is not.
        """
        number = len(self.names)
        if predictions.dim() == labels.dim() + 1:
            predictions = predictions.argmax(-1)
        elif predictions.is_floating_point() and number == 2:
            predictions = predictions > 0.5
        predictions, labels = (each.detach().reshape(-1).to("cpu", torch.int64) for each in (predictions, labels))
        if predictions.shape != labels.shape:
            raise BadInput(
                f"{type(self).__name__} was given {len(predictions)} predictions and {len(labels)} labels",
                "there is one of each for a row",
                "Give the batch's predictions and its labels.",
            )
        for what, found in (("prediction", predictions), ("label", labels)):
            if len(found) and not 0 <= int(found.min()) <= int(found.max()) < number:
                odd = int(found.min()) if int(found.min()) < 0 else int(found.max())
                raise BadInput(
                    f"{type(self).__name__} was given the {what} {odd}",
                    f"its classes are 0 to {number - 1}",
                    "Give it the number of classes, and classes by number.",
                )
        self.counts += torch.bincount(labels * number + predictions, minlength=number**2).view(number, number)

    def merge(self, other: Self) -> None:
        self.counts = self.counts + other.counts

    def compute(self) -> Any:
        """Whole numbers, shape [classes, classes]."""
        return self.counts


class ClassAccuracy(Confusion):
    """By class, the share of its rows that were recognised (its recall). Arguments as of `Confusion`."""

    def compute(self) -> Any:
        """By name; classes without a row are left out."""
        right, rows = self.counts.diagonal().tolist(), self.counts.sum(1).tolist()
        return {name: hit / all_ for name, hit, all_ in zip(self.names, right, rows, strict=True) if all_}


class F1(Confusion):
    """The harmonic mean of precision and recall, as scikit-learn's f1_score.

    Args:
        classes: as of `Confusion`.
        average: macro: the mean over classes that have a row or a prediction; micro: of all rows together; binary: of
            class 1; of two classes binary, else macro where not given.

    Raises:
        BadInput: an unknown average; binary of more than two classes.
    """

    def __init__(self, classes: int | Sequence[str] = 2, average: str | None = None) -> None:
        super().__init__(classes)
        self.average = average or ("binary" if len(self.names) == 2 else "macro")
        if self.average not in AVERAGES:
            raise BadInput(f"F1(average={average!r})", "unknown average", nearest(self.average, list(AVERAGES)))
        if self.average == "binary" and len(self.names) != 2:
            reason = f"there are {len(self.names)} classes"
            raise BadInput("F1(average='binary')", reason, "Take macro or micro.")

    def compute(self) -> Any:
        hits = self.counts.diagonal().double()
        either = (self.counts.sum(0) + self.counts.sum(1)).double()
        if self.average == "micro":
            return float(2 * hits.sum() / either.sum())
        scores = 2 * hits / either
        if self.average == "binary":
            return float(scores[1]) if either[1] else 0.0
        return float(scores[either > 0].mean())
