"""What rides on the gradient reduction beside the gradients: a float32 vector, most entries filled by one worker."""

from __future__ import annotations

import numpy as np
import torch

from headway.core.digest import WORDS, of_ids
from headway.core.order import Rows

Words = np.ndarray[tuple[int, int], np.dtype[np.uint16]]
LARGEST = 2**24
"""Whole numbers below it cross a float32 sum unharmed."""


class Tail:
    """Layout: stop request, news of a generation, the lanes' losses and rows, the digests of their sample ids, the
    replicas' and the lineages that they are of.

    Every entry but the first two is written by exactly one worker and zero elsewhere, so sums are exact.

    Args:
        lanes: number of lanes.
        seats: most workers that may compare digests.
    """

    def __init__(self, lanes: int, seats: int) -> None:
        self._losses = slice(2, 2 + lanes)
        self._rows = _after(self._losses, lanes)
        self._ids = _after(self._rows, lanes * WORDS)
        self._replicas = _after(self._ids, seats * WORDS)
        self._lineages = _after(self._replicas, seats)
        self.size = self._lineages.stop
        self._values = torch.zeros(self.size)
        self._sum = self._values
        self._waiting: dict[int, torch.Tensor] = {}

    def clear(self) -> None:
        self._values.zero_()
        self._waiting = {}

    @property
    def values(self) -> torch.Tensor:
        """To be summed over workers; on the CPU, shape [size]."""
        if self._waiting:
            lanes = [self._losses.start + lane for lane in self._waiting]
            self._values[lanes] = torch.stack(list(self._waiting.values())).cpu()
            self._waiting = {}
        return self._values

    def ids(self, lane: int, ids: Rows) -> None:
        """The samples that a lane took."""
        self._values[self._rows.start + lane] = len(ids)
        at = self._ids.start + lane * WORDS
        self._values[at : at + WORDS] = torch.from_numpy(of_ids(ids).astype(np.float32))

    def loss(self, lane: int, loss: torch.Tensor) -> None:
        """A scalar, which stays where it is until the exchange: to read it now would wait for the device."""
        self._waiting[lane] = loss

    def replica(self, rank: int, lineage: int, words: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> None:
        """This worker's digest of its replica, shape [WORDS], and what that comes from."""
        at = self._replicas.start + rank * WORDS
        self._values[at : at + WORDS] = torch.from_numpy(words.astype(np.float32))
        self._values[self._lineages.start + rank] = lineage

    def flags(self, stop: bool, news: bool) -> None:
        """Whether this worker knows that the run shall stop, or that another generation was published."""
        self._values[0], self._values[1] = float(stop), float(news)

    def take(self, summed: torch.Tensor) -> None:
        """Take what came back from the reduction."""
        self._sum = summed

    def stopping(self) -> bool:
        return bool(self._sum[0] > 0)

    def news(self) -> bool:
        return bool(self._sum[1] > 0)

    def losses(self) -> list[float]:
        """Each lane's share of the loss; their sum is the loss of the step."""
        values: list[float] = self._sum[self._losses].tolist()
        return values

    def rows(self) -> int:
        """Rows that all lanes together took."""
        return int(self._sum[self._rows].double().sum())

    def digests(self) -> Words:
        """Of the lanes' sample ids; shape [lanes, WORDS]."""
        return self._words(self._ids)

    def replicas(self, size: int) -> list[tuple[int, bytes]]:
        """Lineage and digest of the first `size` workers."""
        words = self._words(self._replicas)
        lineages = self._sum[self._lineages].tolist()
        return [(int(lineages[rank]), words[rank].tobytes()) for rank in range(size)]

    def _words(self, where: slice) -> Words:
        return self._sum[where].numpy().astype(np.uint16).reshape(-1, WORDS)


def _after(before: slice, size: int) -> slice:
    return slice(before.stop, before.stop + size)
