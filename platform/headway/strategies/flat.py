"""Gradients as few large tensors, cut into messages: what strategies exchange.

Parameters of one dtype lie in one flat buffer in reverse order, which is about the order in which their gradients
become ready in a backward pass. It is cut into buckets, so that the first can be sent while the pass still runs
(Li et al. 2020, PyTorch Distributed, section 3.2).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from headway.errors import BadInput

BUCKET_BYTES = 25 * 2**20  # torch DDP's default
FIRST_BUCKET_BYTES = 2**20  # small, so that the first message leaves early; also DDP's default


@dataclass(frozen=True)
class Layout:
    """Where the gradients of one dtype lie in a flat buffer.

    Args:
        parameters: in the order of the buffer.
        starts: first element of each parameter.
        buckets: consecutive parameters of each message, [first, last).
        cuts: first element of each bucket, and the size of the buffer.
        extra: first element of the room behind the gradients; it belongs to the last bucket.
        dtype: of the elements.
        device: where they live.
    """

    parameters: list[nn.Parameter]
    starts: list[int]
    buckets: list[tuple[int, int]]
    cuts: list[int]
    extra: int
    dtype: torch.dtype
    device: torch.device

    def buffer(self) -> torch.Tensor:
        return torch.zeros(self.cuts[-1], dtype=self.dtype, device=self.device)

    def views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Each parameter's part, in its shape."""
        placed = zip(self.starts, self.parameters, strict=True)
        return [buffer[start : start + p.numel()].view_as(p) for start, p in placed]

    def slices(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Each bucket's part."""
        return [buffer[first:last] for first, last in itertools.pairwise(self.cuts)]


def layouts(parameters: list[nn.Parameter], extra: int) -> list[Layout]:
    """One per dtype; float32 comes last, parameters or not, and has room for so many more elements."""
    device = parameters[0].device if parameters else torch.device("cpu")
    dtypes = dict.fromkeys(p.dtype for p in parameters if p.dtype != torch.float32)
    kinds = [(dtype, 0) for dtype in dtypes] + [(torch.float32, extra)]
    return [_layout([p for p in parameters if p.dtype == dtype], room, dtype, device) for dtype, room in kinds]


def _layout(parameters: list[nn.Parameter], extra: int, dtype: torch.dtype, device: torch.device) -> Layout:
    parameters = parameters[::-1]
    sizes = [p.numel() for p in parameters]
    *starts, end = itertools.accumulate(sizes, initial=0)
    cut = buckets(sizes, dtype.itemsize) or [(0, 0)]
    cuts = [[*starts, end][first] for first, _ in cut] + [end + extra]
    return Layout(parameters, starts, cut, cuts, end, dtype, device)


def buckets(sizes: list[int], element_bytes: int) -> list[tuple[int, int]]:
    """Consecutive parameters cut into messages: [first, last) of each, by their numbers of elements."""
    cut: list[tuple[int, int]] = []
    first = filled = 0
    for index, size in enumerate(sizes):
        filled += size * element_bytes
        if filled >= (BUCKET_BYTES if cut else FIRST_BUCKET_BYTES):
            cut.append((first, index + 1))
            first, filled = index + 1, 0
    if first < len(sizes):
        cut.append((first, len(sizes)))
    return cut


def changed_between_lanes() -> BadInput:
    """What is raised where a strategy finds gradients that are not as it left them."""
    return BadInput(
        "gradients were changed between the lanes of a step",
        "lanes add up in one place, so zero_grad(set_to_none=False), clipping or a backward() of your own "
        "there would change the other lanes' part",
        "Leave it out: Headway zeroes gradients, and clips them if the job has clip_norm.",
    )


def drop_unused(parameters: list[nn.Parameter], used: torch.Tensor) -> None:
    """A parameter that no lane used keeps no gradient, as in a plain loop: its optimiser state must not move.

    Args:
        parameters: with gradients.
        used: positive where a lane used the parameter; shape [parameters].
    """
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if not count:
            parameter.grad = None
