"""What rides on the gradient reduction beside the gradients: a float32 vector, most entries filled by one worker."""

from __future__ import annotations

import numpy as np
import torch

from headway.core.digest import WORDS, of_ids
from headway.core.order import Rows

Words = np.ndarray[tuple[int, int], np.dtype[np.uint16]]


class Tail:
    """Layout: stop request, news of a generation, the lanes' losses, the digests of their sample ids, the replicas'.

    Every entry but the first two is written by exactly one worker and zero elsewhere, so sums are exact.

    Args:
        lanes: number of lanes.
        replicas: most workers that may compare digests.
    """

    def __init__(self, lanes: int, replicas: int) -> None:
        self._losses = slice(2, 2 + lanes)
        self._ids = slice(self._losses.stop, self._losses.stop + lanes * WORDS)
        self._replicas = slice(self._ids.stop, self._ids.stop + replicas * WORDS)
        self.size = self._replicas.stop
        self.values = torch.zeros(self.size)
        self._sum = self.values

    def clear(self) -> None:
        self.values.zero_()

    def ids(self, lane: int, ids: Rows) -> None:
        at = self._ids.start + lane * WORDS
        self.values[at : at + WORDS] = torch.from_numpy(of_ids(ids).astype(np.float32))

    def loss(self, lane: int, loss: torch.Tensor) -> None:
        self.values[self._losses.start + lane] = loss

    def replica(self, rank: int, words: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> None:
        """This worker's digest of its replica; shape [WORDS]."""
        at = self._replicas.start + rank * WORDS
        self.values[at : at + WORDS] = torch.from_numpy(words.astype(np.float32))

    def flags(self, stop: bool, news: bool) -> None:
        """Whether this worker knows that the run shall stop, or that another generation was published."""
        self.values[0], self.values[1] = float(stop), float(news)

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

    def digests(self) -> Words:
        """Of the lanes' sample ids; shape [lanes, WORDS]."""
        return self._words(self._ids)

    def replicas(self, size: int) -> Words:
        """The digests of the first `size` workers; shape [size, WORDS]."""
        return self._words(self._replicas)[:size]

    def _words(self, where: slice) -> Words:
        return self._sum[where].numpy().astype(np.uint16).reshape(-1, WORDS)
