"""What rides on the gradient reduction beside the gradients: a float32 vector, most entries filled by one worker."""

from __future__ import annotations

import numpy as np
import torch

from headway.core.digest import WORDS, of_ids
from headway.core.order import Rows


class Tail:
    """Layout: stop request, the lanes' losses, the digests of their sample ids, the model's buffers.

    Every entry but the first two kinds' sums is written by exactly one worker and zero elsewhere, so sums are exact.

    Args:
        lanes: number of lanes.
        buffers: elements that the model's buffers take.
    """

    def __init__(self, lanes: int, buffers: int) -> None:
        self._lanes = lanes
        self.size = 1 + lanes * (1 + WORDS) + buffers
        self.values = torch.zeros(self.size)
        self._sum = self.values

    def clear(self) -> None:
        self.values.zero_()

    def ids(self, lane: int, ids: Rows) -> None:
        at = 1 + self._lanes + lane * WORDS
        self.values[at : at + WORDS] = torch.from_numpy(of_ids(ids).astype(np.float32))

    def loss(self, lane: int, loss: torch.Tensor) -> None:
        self.values[1 + lane] = loss

    def stop(self, wanted: bool) -> None:
        self.values[0] = float(wanted)

    def buffers(self, values: torch.Tensor) -> None:
        if len(values):
            self.values[1 + self._lanes * (1 + WORDS) :] = values

    def take(self, summed: torch.Tensor) -> None:
        """Take what came back from the reduction."""
        self._sum = summed

    def stopping(self) -> bool:
        return bool(self._sum[0] > 0)

    def losses(self) -> list[float]:
        """Each lane's share of the loss; their sum is the loss of the step."""
        values: list[float] = self._sum[1 : 1 + self._lanes].tolist()
        return values

    def digests(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
        """Shape [lanes, WORDS]."""
        words = self._sum[1 + self._lanes : 1 + self._lanes * (1 + WORDS)].numpy()
        return words.astype(np.uint16).reshape(self._lanes, WORDS)

    def buffer_values(self) -> torch.Tensor:
        return self._sum[1 + self._lanes * (1 + WORDS) :]
