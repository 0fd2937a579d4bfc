"""PowerSGD: sums of matrices as products of two factors, each of which is a sum over replicas."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from headway.strategies import totals
from headway.strategies.compress import low_rank
from headway.strategies.compress.ways import Among, Left, Tensors
from headway.strategies.totals import Replicas


class Factored:
    """See `headway.strategies.compress.ways.Way`.

    With M of each replica and Q of the step before: P = M Q, summed and made orthogonal; Q = M' P, summed; the sum of
    all M is about P Q'. What a replica leaves out is M less P times its own Q'.

    Args:
        shapes: of the tensors that lie one after another in the flat one.
        rank: of the factors.
        among: whom.
        feedback: whether what is left out is told.
    """

    def __init__(self, shapes: Sequence[torch.Size], rank: int, among: Among, feedback: bool) -> None:
        self._among, self._feedback = among, feedback
        self._matrices = [low_rank.matrix(shape) for shape in shapes]
        self._ranks = [min(rank, *shape) for shape in self._matrices]
        found = zip(self._matrices, self._ranks, strict=True)
        self._fresh = [low_rank.drawn(columns, r, n).to(among.device) for n, ((_, columns), r) in enumerate(found)]
        self._sum: totals.Total | None = None

    @property
    def message_bytes(self) -> int:
        return 4 * sum(r * (rows + columns) for (rows, columns), r in zip(self._matrices, self._ranks, strict=True))

    def shard(self, number: int) -> int:
        return 0  # the sum leaves nothing out

    def start(self, given: Tensors, present: Replicas, before: Left, ahead: int | None) -> None:
        self._given = {number: self._views(values) for number, values in given.items()}
        self._kept, self._present, self._ahead = given, present, ahead
        known = before.common if [q.shape for q in before.common] == [q.shape for q in self._fresh] else self._fresh
        self._right = [low_rank.begun(q.to(self._among.device), f) for q, f in zip(known, self._fresh, strict=True)]
        products = {
            number: [m @ q for m, q in zip(matrices, self._right, strict=True)]
            for number, matrices in self._given.items()
        }
        self._lefts = self._summing(products, [rows for rows, _ in self._matrices])

    def wait(self, out: torch.Tensor) -> Left:
        assert self._sum is not None
        self._sum.wait()
        lefts = [low_rank.orthogonal(p) for p in self._lefts]
        own = {number: [m.T @ p for m, p in zip(of, lefts, strict=True)] for number, of in self._given.items()}
        rights = self._summing(own, [columns for _, columns in self._matrices])
        self._sum.wait()
        for into, p, q in zip(self._views(out), lefts, rights, strict=True):
            torch.mm(p, q.T, out=into)
        if not self._feedback:
            return Left(common=rights)
        for number, matrices in self._given.items():
            for m, p, q in zip(matrices, lefts, own[number], strict=True):
                m.sub_(p @ q.T)
        return Left(self._kept, common=rights)

    def drop(self) -> None:
        if self._sum is not None:
            self._sum.drop()

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        parts = flat.split([rows * columns for rows, columns in self._matrices])
        return [part.view(shape) for part, shape in zip(parts, self._matrices, strict=True)]

    def _summing(self, factors: dict[int, list[torch.Tensor]], lengths: list[int]) -> list[torch.Tensor]:
        """Factors of each replica on their way; where their sums will be, each of shape [length, rank]."""
        shapes = list(zip(lengths, self._ranks, strict=True))
        out = torch.empty(sum(n * r for n, r in shapes), dtype=torch.float32, device=self._among.device)
        flat = {number: torch.cat([factor.reshape(-1) for factor in of]) for number, of in factors.items()}
        among = self._among
        self._sum = totals.start(among.group, flat, out, self._present, among.count, self._ahead)
        return [part.view(shape) for part, shape in zip(out.split([n * r for n, r in shapes]), shapes, strict=True)]
