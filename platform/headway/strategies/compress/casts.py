"""Numbers of half the size."""

from __future__ import annotations

import torch
from torch.nn.functional import pad


class Cast:
    """Each number rounded to another type; see `headway.strategies.compress.Codec`. What does not fit is infinite.

    Args:
        dtype: float16 or bfloat16.
    """

    block = 1

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def size(self, elements: int) -> int:
        return 2 * (elements + elements % 2)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        return pad(values.to(self._dtype), (0, len(values) % 2)).view(torch.uint8)

    def decode(self, message: torch.Tensor, elements: int) -> torch.Tensor:
        return message.view(self._dtype)[:elements].to(torch.float32)
