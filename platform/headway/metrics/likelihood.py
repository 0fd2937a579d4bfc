"""Perplexity."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor


class Perplexity:
    """The exponential of the mean negative log-likelihood of the tokens: each counts once, however long its row is.

    Args:
        ignore: the target that stands for no token.
    """

    def __init__(self, ignore: int = -100) -> None:
        self.ignore = ignore
        self.total = torch.zeros((), dtype=torch.float64, device="cpu")
        """Sum of negative log-likelihoods, in nats."""
        self.tokens = 0

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take a batch.

        Args:
            logits: shape [..., vocabulary].
            targets: whole numbers, shape [...].
        """
        flat, wanted = logits.detach().reshape(-1, logits.shape[-1]), targets.detach().reshape(-1)
        lost = torch.nn.functional.cross_entropy(flat.float(), wanted, ignore_index=self.ignore, reduction="none")
        self.total += lost.double().sum().cpu()
        self.tokens += int((wanted != self.ignore).sum())

    def merge(self, other: Self) -> None:
        self.total = self.total + other.total
        self.tokens += other.tokens

    def compute(self) -> float:
        """NaN where there was no token."""
        return float((self.total / self.tokens).exp()) if self.tokens else float("nan")
