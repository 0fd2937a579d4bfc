"""Buffers of the model (batch norm's running statistics) by lane, so that they do not depend on who carries which lane.

Every lane of a step begins with the same buffers. Floating-point buffers then become the lanes' mean, weighted by their
rows; counters (integers) become what the step's fullest lane made of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

COUNTER_WORDS = 4  # an int64 crosses a float32 sum as four 16-bit words


class LaneBuffers:
    """The buffers that `state_dict` holds; those that it does not hold are constants and left alone.

    Args:
        model: on its final device.
    """

    def __init__(self, model: nn.Module) -> None:
        kept = {name for name, _ in model.state_dict(keep_vars=True).items()}
        buffers = [b for name, b in model.named_buffers() if name in kept]
        self._floats = [b for b in buffers if b.is_floating_point()]
        self._counters = [b for b in buffers if not b.is_floating_point() and not b.is_complex()]
        self._num_floats = sum(b.numel() for b in self._floats)
        self.size = self._num_floats + COUNTER_WORDS * sum(b.numel() for b in self._counters)
        self._packed = torch.zeros(self.size)
        self._before: list[torch.Tensor] = []
        self._first = True

    def begin(self) -> None:
        """Before the first lane of a step."""
        self._before = [b.clone() for b in (*self._floats, *self._counters)]
        self._packed.zero_()
        self._first = True

    @torch.no_grad()
    def enter(self) -> None:
        """Before a lane: as at the step's beginning."""
        if not self._first and self._before:
            torch._foreach_copy_([*self._floats, *self._counters], self._before)
        self._first = False

    @torch.no_grad()
    def leave(self, weight: float, counters: bool) -> None:
        """After a lane. weight: its share of the step's rows; counters: whether it speaks for the counters."""
        if self._floats:
            flat = torch.cat([b.reshape(-1).float() for b in self._floats])
            self._packed[: self._num_floats].add_(flat.to("cpu"), alpha=weight)
        if self._counters and counters:
            flat = torch.cat([b.reshape(-1).to("cpu", torch.int64) for b in self._counters])
            words = flat.numpy().view("<u2").astype(np.float32)
            self._packed[self._num_floats :] = torch.from_numpy(words)

    def packed(self) -> torch.Tensor:
        """This worker's part of the step's buffers; float32, shape [size], to be summed over workers."""
        return self._packed

    @torch.no_grad()
    def accept(self, summed: torch.Tensor) -> None:
        """Set the buffers from the sum over workers; shape [size]."""
        at = 0
        for buffer in self._floats:
            buffer.copy_(summed[at : at + buffer.numel()].view_as(buffer))
            at += buffer.numel()
        words = summed[self._num_floats :].numpy().astype("<u2")
        counters = torch.from_numpy(words.view("<i8").astype(np.int64))
        at = 0
        for buffer in self._counters:
            buffer.copy_(counters[at : at + buffer.numel()].view_as(buffer))
            at += buffer.numel()
