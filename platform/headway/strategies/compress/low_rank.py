"""Matrices as products of two thin ones (Vogels, Karimireddy, Jaggi 2019, PowerSGD): one step of a power iteration,
which goes on from step to step since it begins with what the last one found."""

from __future__ import annotations

import torch

NEGLIGIBLE = 1e-5
"""Of a column's norm: what is left of it beside the columns before it, and is taken for rounding."""


def matrix(shape: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    """A tensor's rows and columns: its first dimension, and all others."""
    rows = shape[0] if shape else 1
    return rows, torch.Size(shape).numel() // max(rows, 1)


def pays(shape: torch.Size | tuple[int, ...], rank: int) -> bool:
    """Whether two factors of this rank are smaller than what they stand for."""
    rows, columns = matrix(shape)
    return len(shape) > 1 and rank * (rows + columns) < rows * columns


def drawn(columns: int, rank: int, number: int) -> torch.Tensor:
    """What a tensor's right factor begins with; the same on every worker.

    Args:
        columns: of the matrix.
        rank: of the factors.
        number: of the tensor.

    Returns:
        float32, shape [columns, rank], on the CPU.
    """
    draws = torch.Generator().manual_seed(number)
    return torch.randn(columns, rank, generator=draws, dtype=torch.float32)


def begun(right: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """A right factor as an iteration begins with it: columns of length one. One that is zero, as after a step without
    gradients, would stay so for ever: it begins anew.

    Args:
        right: float32, shape [columns, rank].
        fresh: of the same shape, see `drawn`.
    """
    found = torch.where(_norms(right) > 0, right, fresh)
    return found / _norms(found)


def orthogonal(left: torch.Tensor) -> torch.Tensor:
    """Columns made orthogonal, of length one, in their order (Gram and Schmidt's way, each twice for rounding's sake).
    One that those before it say already is zero.

    Args:
        left: float32, shape [rows, rank].
    """
    found = torch.zeros_like(left)
    for at in range(left.shape[1]):
        column = left[:, at : at + 1]
        before = _norms(column)
        for _ in range(2 if at else 0):
            column = column - found[:, :at] @ (found[:, :at].T @ column)
        norm = _norms(column)
        found[:, at : at + 1] = torch.where(norm > NEGLIGIBLE * before, column / norm, 0.0)
    return found


def _norms(columns: torch.Tensor) -> torch.Tensor:
    """Of each column; shape [1, columns]."""
    found: torch.Tensor = torch.linalg.vector_norm(columns, dim=0, keepdim=True)
    return found
