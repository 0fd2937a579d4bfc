"""Buffers of the model (batch norm's running statistics) by lane, so that they do not depend on who carries which lane.

Every lane of a step begins with the same buffers. Floating-point buffers are then moved by the mean of what the lanes
changed, weighted by their rows: a buffer that no lane changes stays what it is to the bit. Counters (integers) become
what the step's fullest lane made of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from headway.core.lanes_together import Buffers
from headway.elastic.worker.modules import Modules
from headway.errors import BadInput

COUNTER_WORDS = 4  # an int64 crosses a float32 sum as four 16-bit words


class LaneBuffers:
    """The buffers that `state_dict` holds; those that it does not hold are constants and left alone.

    Args:
        modules: the model, or it and others; on their final device.
    """

    def __init__(self, modules: nn.Module | Modules) -> None:
        self._modules = modules if isinstance(modules, Modules) else Modules(modules)
        self._floats: list[torch.Tensor] = []
        self._counters: list[torch.Tensor] = []
        self._first = True
        self.settle()

    def settle(self) -> None:
        """Take up the buffers that there are now."""
        # By owner and name, not as tensors: a module may put a new tensor in a buffer's place.
        self._places = self._modules.places()
        floats, counters = self._now()
        self._sizes = [b.numel() for b in floats], [b.numel() for b in counters]
        self._num_floats, self._num_words = sum(self._sizes[0]), COUNTER_WORDS * sum(self._sizes[1])
        self.size = self._num_floats + self._num_words + bool(counters)  # the last says that a lane spoke for them

    @torch.no_grad()
    def begin(self) -> None:
        """Before the first lane of a step."""
        floats, counters = self._now()
        self._floats, self._counters = [b.clone() for b in floats], [b.clone() for b in counters]
        self._first = True

    @torch.no_grad()
    def rewind(self) -> None:
        """Back to the step's beginning: it broke, and will be done again."""
        floats, counters = self._now()
        if len(floats) == len(self._floats) and len(counters) == len(self._counters):
            _copy([*floats, *counters], [*self._floats, *self._counters])

    @torch.no_grad()
    def enter(self) -> None:
        """Before a lane: as at the step's beginning."""
        if not self._first:
            floats, counters = self._now()
            _copy([*floats, *counters], [*self._floats, *self._counters])
        self._first = False

    @torch.no_grad()
    def leave(self, weight: float, counters: bool) -> torch.Tensor:
        """After a lane: its part of the step's buffers, to be summed over all lanes; float32, shape [size].

        Args:
            weight: the lane's share of the step's rows.
            counters: whether it speaks for the counters.

        Raises:
            BadInput: one changed its size.
        """
        floats, counted = self._now()
        if [b.numel() for b in floats] != self._sizes[0] or [b.numel() for b in counted] != self._sizes[1]:
            raise self._resized()
        part = torch.zeros(self.size, dtype=torch.float32, device="cpu")
        if floats:
            changes = [_change(b, before).reshape(-1).float() for b, before in zip(floats, self._floats, strict=True)]
            part[: self._num_floats] = torch.cat(changes).to("cpu") * weight
        if counted and counters:
            flat = torch.cat([b.reshape(-1).to("cpu", torch.int64) for b in counted])
            words = flat.numpy().view("<u2").astype(np.float32)
            part[self._num_floats : -1] = torch.from_numpy(words)
            part[-1] = 1.0
        return part

    def scaled(self, summed: torch.Tensor, factor: float) -> torch.Tensor:
        """The sum over all lanes with its floating-point changes multiplied; shape [size]."""
        summed = summed.clone()
        summed[: self._num_floats] *= factor
        return summed

    @torch.no_grad()
    def compared(self, apart: torch.Tensor, together: torch.Tensor) -> list[Buffers]:
        """How two ways of doing the same lanes differ in what they changed, in each buffer and in all counters.

        Args:
            apart: sum of what `leave` gave for each lane; shape [size].
            together: what it gave for all at once.
        """
        found = [Buffers(counters=torch.equal(apart[self._num_floats :], together[self._num_floats :]))]
        ways = (way[: self._num_floats].double().split(self._sizes[0]) for way in (apart, together))
        for one, other, buffer in zip(*ways, self._floats, strict=True):
            before = buffer.reshape(-1).to("cpu", torch.float64)
            moved = before[((one != 0) | (other != 0)) & before.isfinite()]
            coarse = max(1.0, torch.finfo(buffer.dtype).eps / torch.finfo(torch.float32).eps)
            found.append(Buffers(float((one - other).norm()), float(one.norm()), coarse * float(moved.norm())))
        return found

    @torch.no_grad()
    def accept(self, summed: torch.Tensor) -> None:
        """Set the buffers from the sum over all lanes; shape [size]."""
        floats, counters = self._now()
        at = 0
        for buffer, before in zip(floats, self._floats, strict=True):
            change = summed[at : at + buffer.numel()].view(buffer.shape)
            buffer.copy_(before + change.to(before.device, before.dtype))
            at += buffer.numel()
        if not counters:
            return
        if not summed[-1]:  # the lane that speaks for them had no rows left
            _copy(counters, self._counters)
            return
        words = summed[self._num_floats : -1].numpy().astype("<u2")
        numbers = torch.from_numpy(words.view("<i8").astype(np.int64))
        at = 0
        for buffer in counters:
            buffer.copy_(numbers[at : at + buffer.numel()].view(buffer.shape))
            at += buffer.numel()

    def _now(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        buffers = [module._buffers.get(name) for _, module, name in self._places]
        present = [torch.view_as_real(b) if b.is_complex() else b for b in buffers if b is not None]
        floats = [b for b in present if b.is_floating_point()]
        return floats, [b for b in present if not b.is_floating_point()]

    def _resized(self) -> BadInput:
        """What is raised where a buffer is no more what it was at the step's beginning."""
        before = {*self._sizes[0], *self._sizes[1]}
        there = ((key, module._buffers.get(name)) for key, module, name in self._places)
        odd = [key.replace(":", ".") for key, b in there if b is None or b.numel() not in before]
        return BadInput(
            f"a buffer changed its size in a step: {', '.join(odd) or 'one of ' + str(len(self._places))}",
            "buffers are averaged over the lanes, which must agree on their shapes",
            "Give it its full size at once, or register it with persistent=False if it is only a cache.",
        )


def _change(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """What was added. An infinity that stayed (a mask) is no change, though inf - inf is not a number."""
    return torch.where(now == before, torch.zeros_like(now), now - before)


def _copy(to: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    if to:
        torch._foreach_copy_(to, values)
