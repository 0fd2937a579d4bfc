"""What is sent in place of the numbers: compressors, what they leave out, and the exchanges in which they serve.

A *codec* turns a flat float32 tensor into bytes and back. An *exchange* adds up what replicas bring in such a form; see
`headway.strategies.compress.exchange`. PowerSGD is none of a codec's kind: its factors add up as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Codec(Protocol):
    """A form for a flat tensor's numbers. Messages take a multiple of 4 bytes, so that they can lie side by side."""

    @property
    def block(self) -> int:
        """Elements that are encoded together: a tensor that is cut between blocks has the same form in parts."""

    def size(self, elements: int) -> int:
        """Bytes of a message."""

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """A message; uint8, shape [size]. What is no number may come out as any other that is none.

        Args:
            values: float32, flat.
        """

    def decode(self, message: torch.Tensor, elements: int) -> torch.Tensor:
        """What a message says; float32, shape [elements], a new tensor."""
