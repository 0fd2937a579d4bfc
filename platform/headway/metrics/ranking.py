"""The area under the ROC curve."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from headway.errors import BadInput

MOST_PIECES = 256
"""Tensors that hold the scores."""


class AUC:
    """The area under the ROC curve, exact: the share of pairs of a positive and a negative row that the scores put in
    the right order, ties by half (Mann and Whitney 1947). Every score is kept until the end of the evaluation."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []
        self.labels: list[Tensor] = []

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Take a batch.

        Args:
            scores: shape [rows]; or [rows, 2], of which the second less the first counts. Logits or probabilities.
            labels: 0 or 1, shape [rows].

        Raises:
            BadInput: shapes that do not fit, or other labels.
        """
        if scores.dim() == labels.dim() + 1:
            if scores.shape[-1] not in (1, 2):
                reason = f"scores of shape {tuple(scores.shape)} are of {scores.shape[-1]} classes"
                raise BadInput("AUC is of two classes", reason, "Give the scores of one class against the others.")
            scores = scores[..., 0] if scores.shape[-1] == 1 else scores[..., 1] - scores[..., 0]
        scores, labels = scores.detach().reshape(-1).cpu(), labels.detach().reshape(-1).cpu()
        if scores.shape != labels.shape:
            reason = "there is one of each for a row"
            remedy = "Give the batch's scores and its labels."
            raise BadInput(f"AUC was given {len(scores)} scores and {len(labels)} labels", reason, remedy)
        positive = labels == 1
        if not bool((positive | (labels == 0)).all()):
            odd = labels[~(positive | (labels == 0))][0].item()
            raise BadInput(f"AUC was given the label {odd}", "it is of two classes", "Give labels 0 and 1.")
        self.scores.append(scores)
        self.labels.append(positive)

    def merge(self, other: Self) -> None:
        self.scores = _few([*self.scores, *other.scores])
        self.labels = _few([*self.labels, *other.labels])

    def compute(self) -> float:
        """NaN where there are no two classes, or a score is no number."""
        scores = torch.cat(self.scores).double() if self.scores else torch.zeros(0, dtype=torch.float64)
        positive = torch.cat(self.labels) if self.labels else torch.zeros(0, dtype=torch.bool)
        positives, negatives = int(positive.sum()), int((~positive).sum())
        if not positives or not negatives or bool(scores.isnan().any()):
            return float("nan")
        _, place, counts = torch.unique(scores, return_inverse=True, return_counts=True)
        # Twice the mean rank of each distinct score is a whole number, so the sum is exact.
        twice = 2 * counts.cumsum(0) - counts + 1
        ranks = int(twice[place[positive]].sum())
        return (ranks / 2 - positives * (positives + 1) / 2) / (positives * negatives)


def _few(pieces: list[Tensor]) -> list[Tensor]:
    """The same, in one where there are many: each costs a state that is kept, or sent."""
    return [torch.cat(pieces)] if len(pieces) > MOST_PIECES else pieces
