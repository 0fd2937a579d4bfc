"""Synchronous data parallelism: every worker holds the whole model, gradients are summed over all workers at each step.

Gradients of all lanes add up in flat buffers, whose buckets are summed over workers while the backward pass of the
worker's last lane still runs. Why not torch's DDP module: see docs/decisions/0002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from headway.strategies.flat import Layout, changed_between_lanes, drop_unused, layouts
from headway.strategies.flight import Flight
from headway.strategies.group import Group


class AllReduce:
    """See `headway.strategies.Strategy`.

    Args:
        model: its trainable parameters get gradients that are views of flat buffers.
        lanes: of the run.
        tail: elements of the tail.
        changes: elements of what a lane changed.
        group: of the workers; None, or one of size 1: nothing is exchanged.
    """

    def __init__(self, model: nn.Module, *, lanes: int, tail: int, changes: int, group: Group | None) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._layouts = layouts(self._parameters, tail + changes + len(self._parameters))
        self._buffers = [layout.buffer() for layout in self._layouts]
        self._slices = [layout.slices(b) for layout, b in zip(self._layouts, self._buffers, strict=True)]
        self._changes = torch.zeros(changes)
        self._group = group
        self._flight = Flight(group) if group is not None and group.size > 1 else None
        self._versions: list[int] = []
        self._used = [False] * len(self._parameters)
        self._last = False
        self._missing: list[list[int]] = []
        self._next = (0, 0)
        places = _places(self._layouts, self._buffers)
        self._placed = [(p, view) for p, _, _, view in places]
        index = {id(p): i for i, p in enumerate(self._parameters)}
        self._hooks = [
            p.register_post_accumulate_grad_hook(self._hook(index[id(p)], flat, bucket, view))
            for p, flat, bucket, view in places
        ]

    def begin(self, lanes: Sequence[int]) -> None:
        if self._flight is not None:
            self._flight.restart()
        for buffer in self._buffers:
            buffer.zero_()
        for parameter, view in self._placed:
            parameter.grad = view
        self._changes.zero_()
        self._used = [False] * len(self._parameters)
        self._last, self._next = False, (0, 0)
        self._missing = [[last - first for first, last in layout.buckets] for layout in self._layouts]
        self.after_backward()

    def before_backward(self, lane: int, last: bool) -> None:
        self._check_unchanged()
        self._last = last

    def after_backward(self) -> None:
        self._versions = [buffer._version for buffer in self._buffers]

    def lane_done(self, change: torch.Tensor) -> None:
        self._changes += change

    def finish(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        whole = torch.cat([tail, self._changes, torch.tensor(self._used, dtype=torch.float32)])
        self._check_unchanged()
        for parameter, view in self._placed:
            take_back(parameter, view)
        if self._flight is not None:
            whole = self._exchange(self._flight, whole)
        summed, changes, used = whole.split([len(tail), len(self._changes), len(self._used)])
        drop_unused(self._parameters, used)
        return summed, changes

    def close(self) -> None:
        if self._flight is not None:
            self._flight.drop()
        for hook in self._hooks:
            hook.remove()
        for parameter in self._parameters:
            parameter.grad = None

    def _exchange(self, flight: Flight, whole: torch.Tensor) -> torch.Tensor:
        room = self._buffers[-1][self._layouts[-1].extra :]
        room.copy_(whole)
        self._launch(flight, everything=True)
        flight.wait()
        return room.to("cpu", copy=True)

    def _hook(self, index: int, flat: int, bucket: int, view: torch.Tensor) -> Callable[[torch.Tensor], None]:
        def ready(parameter: torch.Tensor) -> None:
            self._used[index] = True
            take_back(parameter, view)
            if self._last and self._flight is not None:
                self._missing[flat][bucket] -= 1
                if self._missing[flat][bucket] == 0:
                    self._launch(self._flight)

        return ready

    def _launch(self, flight: Flight, everything: bool = False) -> None:
        """Send the buckets that are ready, in the order that all workers share; the very last waits for the tail."""
        assert self._group is not None
        flat, bucket = self._next
        while flat < len(self._slices):
            slices = self._slices[flat]
            final = flat == len(self._slices) - 1 and bucket == len(slices) - 1
            if not everything and (final or self._missing[flat][bucket] > 0):
                break
            flight.launch(self._group.all_reduce, slices[bucket])
            flat, bucket = (flat, bucket + 1) if bucket + 1 < len(slices) else (flat + 1, 0)
        self._next = (flat, bucket)

    def _check_unchanged(self) -> None:
        if self._versions != [buffer._version for buffer in self._buffers]:
            raise changed_between_lanes()


@torch.no_grad()
def take_back(parameter: torch.Tensor, view: torch.Tensor) -> None:
    """Add a gradient that became a tensor of its own (after the user's `zero_grad()`) to those of earlier lanes."""
    if parameter.grad is not view:
        if parameter.grad is not None:
            view.add_(parameter.grad)
        parameter.grad = view


def _places(layouts: list[Layout], buffers: list[torch.Tensor]) -> list[tuple[nn.Parameter, int, int, torch.Tensor]]:
    """Of each parameter its flat buffer, bucket, and part of the buffer."""
    found = []
    for flat, (layout, buffer) in enumerate(zip(layouts, buffers, strict=True)):
        views = layout.views(buffer)
        for bucket, (first, last) in enumerate(layout.buckets):
            found += [(layout.parameters[i], flat, bucket, views[i]) for i in range(first, last)]
    return found
