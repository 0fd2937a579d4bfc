"""Gradients as few large tensors, cut into messages: what strategies exchange.

Parameters of one dtype lie in one flat buffer in reverse order, which is about the order in which their gradients
become ready in a backward pass. It is cut into buckets, so that the first can be sent while the pass still runs
(Li et al. 2020, PyTorch Distributed, section 3.2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from headway.errors import BadInput

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from headway.strategies.flight import Flight

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
        extra: the room behind the gradients; it belongs to the last bucket.
        dtype: of the elements.
        device: where they live.
    """

    parameters: list[nn.Parameter]
    starts: list[int]
    buckets: list[tuple[int, int]]
    cuts: list[int]
    extra: slice
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

    def gradients(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """Each bucket's part without the room behind the gradients; real numbers."""
        ends = [(first, min(last, self.extra.start)) for first, last in itertools.pairwise(self.cuts)]
        return [torch.view_as_real(b) if b.is_complex() else b for b in (buffer[first:last] for first, last in ends)]


class Departures:
    """Which buckets may leave, in an order that all workers share: each when its gradients are there.

    The very last waits for what lies behind the gradients.
    """

    def __init__(self, layouts: list[Layout]) -> None:
        self._all = [(flat, bucket) for flat, layout in enumerate(layouts) for bucket in range(len(layout.buckets))]
        self._sizes = {(f, b): last - first for f, b in self._all for first, last in [layouts[f].buckets[b]]}
        self.restart()

    def restart(self) -> None:
        """For the next step."""
        self._missing, self._next = dict(self._sizes), 0

    def arrived(self, place: tuple[int, int]) -> bool:
        """A gradient of this bucket is there: (flat buffer, bucket). Returns whether it was the last of it.

        Raises nothing, since it is called inside a backward pass; see `surplus`.
        """
        self._missing[place] -= 1
        return not self._missing[place]

    @property
    def surplus(self) -> bool:
        """Whether a gradient came twice in one backward pass, so that a bucket may have left without the rest."""
        return min(self._missing.values()) < 0

    def leaving(self, everything: bool = False) -> Iterator[tuple[int, int]]:
        """The buckets that can leave now; everything: all that are left."""
        while self._next < len(self._all):
            place = self._all[self._next]
            if not everything and (self._next == len(self._all) - 1 or self._missing[place] > 0):
                return
            self._next += 1
            yield place


def layouts(parameters: list[nn.Parameter], extra: int, multiple: int = 1) -> list[Layout]:
    """One per dtype; float32 comes last, parameters or not, and has room for so many more elements.

    Every bucket takes a multiple of so many elements.
    """
    device = parameters[0].device if parameters else torch.device("cpu")
    dtypes = dict.fromkeys(p.dtype for p in parameters if p.dtype != torch.float32)
    kinds = [(dtype, 0) for dtype in dtypes] + [(torch.float32, extra)]
    found = []
    for dtype, room in kinds:
        ours = [p for p in reversed(parameters) if p.dtype == dtype]
        starts: list[int] = []
        cuts, end = [0], 0
        cut = buckets([p.numel() for p in ours], dtype.itemsize) or [(0, 0)]
        for first, last in cut:
            for parameter in ours[first:last]:
                starts.append(end)
                end += parameter.numel()
            if last < len(ours):
                end += -end % multiple
                cuts.append(end)
        cuts.append(end + room + -(end + room) % multiple)
        found.append(Layout(ours, starts, cut, cuts, slice(end, end + room), dtype, device))
    return found


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


def came_twice() -> BadInput:
    """What is raised where a parameter got its gradient in two parts."""
    return BadInput(
        "a parameter got its gradient twice in one backward pass",
        "gradients are sent while the pass still runs, and one was sent before its second part came "
        "(activation checkpointing with use_reentrant=True does that to shared parameters)",
        "Use torch.utils.checkpoint with use_reentrant=False.",
    )


def sparse() -> BadInput:
    """What is raised where a parameter got a sparse gradient."""
    return BadInput(
        "a parameter got a sparse gradient",
        "gradients of all lanes add up in flat memory, which a sparse one would have to fill anyway",
        "Use Embedding(..., sparse=False) and an optimiser for dense gradients.",
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


def sum_of(gradients: torch.Tensor) -> torch.Tensor:
    """The sum of all elements, a float32 scalar: no number where one of them is none. One look at the memory; a norm
    takes half as long again."""
    return gradients.sum(dtype=torch.float32)


def are_numbers(totals: Sequence[torch.Tensor]) -> bool:
    """Whether all of these are; waits for the device."""
    return not totals or math.isfinite(float(torch.stack(list(totals)).sum()))


def let_go(flight: Flight | None, hooks: list[RemovableHandle], parameters: list[nn.Parameter]) -> None:
    """Leave the model as it was, with nothing under way."""
    if flight is not None:
        flight.drop()
    for hook in hooks:
        hook.remove()
    for parameter in parameters:
        parameter.grad = None


@dataclass(frozen=True)
class Place:
    """Of a parameter: number in the model's order, bucket as (flat buffer, bucket), number in the layout."""

    parameter: nn.Parameter
    index: int
    bucket: tuple[int, int]
    number: int


def places(parameters: list[nn.Parameter], layouts: list[Layout]) -> list[Place]:
    """Where each parameter lies, in the model's order."""
    found = {
        id(layout.parameters[number]): ((flat, bucket), number)
        for flat, layout in enumerate(layouts)
        for bucket, (first, last) in enumerate(layout.buckets)
        for number in range(first, last)
    }
    return [Place(p, index, *found[id(p)]) for index, p in enumerate(parameters)]
