"""Synchronous data parallelism: every worker holds the whole model, gradients are summed over all workers at each step.

Gradients live in flat buffers, cut into buckets that are summed while the backward pass of the worker's last lane still
runs (Li et al. 2020, PyTorch Distributed, section 3.2). Why not torch's DDP module: see docs/decisions/0002.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from headway.errors import BadInput
from headway.strategies import exchange

BUCKET_BYTES = 25 * 2**20  # torch DDP's default
FIRST_BUCKET_BYTES = 2**20  # small, so that the first message leaves early; also DDP's default


class Flat:
    """The gradients of one dtype as one tensor, in reverse order of the parameters (about the order they become ready).

    Args:
        parameters: of one dtype and device; may be none.
        extra: elements kept free at the end, for the tail.
        dtype: of the elements.
        device: where they live.
    """

    def __init__(self, parameters: list[nn.Parameter], extra: int, dtype: torch.dtype, device: torch.device) -> None:
        self.parameters = parameters[::-1]
        sizes = [p.numel() for p in self.parameters]
        starts = [0, *itertools.accumulate(sizes)]
        self.buffer = torch.zeros(starts[-1] + extra, dtype=dtype, device=device)
        self.views = [self.buffer[a : a + p.numel()].view_as(p) for a, p in zip(starts, self.parameters, strict=False)]
        self.buckets = buckets(sizes, self.buffer.element_size()) or [(0, 0)]
        cuts = [starts[first] for first, _ in self.buckets] + [len(self.buffer)]
        self.slices = [self.buffer[a:b] for a, b in itertools.pairwise(cuts)]
        self.extra = self.buffer[starts[-1] :]

    def zero(self) -> None:
        self.buffer.zero_()
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.grad = view

    def gather(self) -> None:
        """Every parameter's gradient is its place in the buffer, also where the user's `zero_grad()` left none."""
        for parameter, view in zip(self.parameters, self.views, strict=True):
            take_back(parameter, view)


@torch.no_grad()
def take_back(parameter: nn.Parameter, view: torch.Tensor) -> None:
    """Add a gradient that became a tensor of its own (after the user's `zero_grad()`) to those of earlier lanes."""
    if parameter.grad is not view:
        if parameter.grad is not None:
            view.add_(parameter.grad)
        parameter.grad = view


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


class AllReduce:
    """See `headway.strategies.Strategy`.

    Args:
        model: its trainable parameters get gradients that are views of flat buffers.
        workers: how many exchange; 1 exchanges nothing.
        tail: elements of the tail.
        group: torch's process group; None for the default one.
    """

    def __init__(self, model: nn.Module, workers: int, tail: int, group: Any = None) -> None:
        self._workers, self._group = workers, group
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._flats = _flats(self._parameters, tail + len(self._parameters))
        place = {
            id(flat.parameters[i]): (f, b, flat.views[i])
            for f, flat in enumerate(self._flats)
            for b, (first, last) in enumerate(flat.buckets)
            for i in range(first, last)
        }
        self._place = [place[id(p)] for p in self._parameters]
        self._versions: list[int] = []
        self._used = [False] * len(self._parameters)
        self._last = False
        self._missing: list[list[int]] = []
        self._next = (0, 0)
        self._works: list[Any] = []
        self._hooks = [p.register_post_accumulate_grad_hook(self._hook(i)) for i, p in enumerate(self._parameters)]

    def begin(self) -> None:
        for flat in self._flats:
            flat.zero()
        self._used = [False] * len(self._parameters)
        self._last = False
        self._next, self._works = (0, 0), []
        self._missing = [[last - first for first, last in flat.buckets] for flat in self._flats]
        self.after_backward()

    def before_backward(self, last: bool) -> None:
        self._check_unchanged()
        self._last = last

    def after_backward(self) -> None:
        self._versions = [flat.buffer._version for flat in self._flats]

    def finish(self, tail: torch.Tensor) -> torch.Tensor:
        used = torch.tensor(self._used, dtype=torch.float32)
        whole = torch.cat([tail.to("cpu"), used])
        self._check_unchanged()
        for flat in self._flats:
            flat.gather()
        if self._workers > 1:
            whole = self._exchange(whole)
        used = whole[len(tail) :]
        if not bool((used > 0).all()):
            # A parameter that no lane used keeps no gradient, as in a plain loop: its optimiser state must not move.
            for parameter, count in zip(self._parameters, used.tolist(), strict=True):
                if not count:
                    parameter.grad = None
        return whole[: len(tail)]

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for parameter in self._parameters:
            parameter.grad = None

    def _exchange(self, whole: torch.Tensor) -> torch.Tensor:
        host = self._flats[-1].extra
        host.copy_(whole)
        self._launch(everything=True)
        with exchange():
            for work in self._works:
                work.wait()
        return host.to("cpu", copy=True)

    def _hook(self, index: int) -> Any:
        flat, bucket, view = self._place[index]

        def ready(parameter: nn.Parameter) -> None:
            self._used[index] = True
            take_back(parameter, view)
            if self._last and self._workers > 1:
                self._missing[flat][bucket] -= 1
                if self._missing[flat][bucket] == 0:
                    self._launch()

        return ready

    def _launch(self, everything: bool = False) -> None:
        """Send the buckets that are ready, in the order that all workers share; the very last waits for the tail."""
        flat, bucket = self._next
        while flat < len(self._flats):
            of = self._flats[flat]
            final = flat == len(self._flats) - 1 and bucket == len(of.buckets) - 1
            if not everything and (final or self._missing[flat][bucket] > 0):
                break
            with exchange():
                self._works.append(dist.all_reduce(of.slices[bucket], group=self._group, async_op=True))
            flat, bucket = (flat, bucket + 1) if bucket + 1 < len(of.buckets) else (flat + 1, 0)
        self._next = (flat, bucket)

    def _check_unchanged(self) -> None:
        if self._versions != [flat.buffer._version for flat in self._flats]:
            raise BadInput(
                "gradients were changed between the lanes of a step",
                "lanes add up in one place, so zero_grad(set_to_none=False), clipping or a backward() of your own "
                "there would change the other lanes' part",
                "Leave it out: Headway zeroes gradients, and clips them if the job has clip_norm.",
            )


def _flats(parameters: list[nn.Parameter], extra: int) -> list[Flat]:
    """One flat buffer per dtype; float32 comes last and has room for the tail, parameters or not."""
    device = parameters[0].device if parameters else torch.device("cpu")
    dtypes = dict.fromkeys(p.dtype for p in parameters if p.dtype != torch.float32)
    kinds = [(dtype, 0) for dtype in dtypes] + [(torch.float32, extra)]
    return [Flat([p for p in parameters if p.dtype == dtype], room, dtype, device) for dtype, room in kinds]
