"""Synchronous data parallelism: every worker holds the whole model, gradients are summed over all workers at each step.

Gradients of all lanes add up in flat buffers, whose buckets are summed over workers while the backward pass of the
worker's last lane still runs. Why not torch's DDP module: see docs/decisions/0002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from headway.strategies.flat import (
    Departures,
    Place,
    are_numbers,
    came_twice,
    changed_between_lanes,
    drop_unused,
    layouts,
    let_go,
    places,
    sparse,
    sum_of,
)
from headway.strategies.flight import Flight
from headway.strategies.group import Group


class AllReduce:
    """See `headway.strategies.Strategy`.

    Args:
        parameters: get gradients that are views of flat buffers; those without `requires_grad` are left alone.
        lanes: of the run.
        tail: elements of the tail.
        changes: elements of what a lane changed.
        group: of the workers; None, or one of size 1: nothing is exchanged.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, lanes: int, tail: int, changes: int, group: Group | None
    ) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._layouts = layouts(self._parameters, tail + changes + len(self._parameters))
        self._buffers = [layout.buffer() for layout in self._layouts]
        self._slices = [layout.slices(b) for layout, b in zip(self._layouts, self._buffers, strict=True)]
        self._gradients = [layout.gradients(b) for layout, b in zip(self._layouts, self._buffers, strict=True)]
        self._totals: list[torch.Tensor] = []
        """Of each bucket's gradients, by which it is known whether they are numbers."""
        self._left: list[tuple[int, int]] = []
        """Buckets in the order in which they left."""
        self._changes = torch.zeros(changes, dtype=torch.float32, device="cpu")
        self._group = group if group is not None and group.size > 1 else None
        self._flight = Flight(self._group) if self._group is not None else None
        self._departures = Departures(self._layouts)
        self._versions: list[int] = []
        self._used = [False] * len(self._parameters)
        self._last = False
        views = [layout.views(b) for layout, b in zip(self._layouts, self._buffers, strict=True)]
        self._placed = [
            (place, views[place.bucket[0]][place.number]) for place in places(self._parameters, self._layouts)
        ]
        self._hooks = [p.parameter.register_post_accumulate_grad_hook(self._hook(p, view)) for p, view in self._placed]

    def begin(self, lanes: Sequence[int]) -> None:
        if self._flight is not None:
            self._flight.restart()
        for parameter in self._parameters:
            parameter.grad = None  # the first gradient of a step is copied to its place: half the traffic of adding it
        self._changes.zero_()
        self._departures.restart()
        self._left, self._totals = [], []
        self._used = [False] * len(self._parameters)
        self._last = False
        self.after_backward()

    def before_backward(self, lane: int, last: bool, first: bool = True, whole: bool = True) -> None:
        self._check_unchanged()
        self._last = last

    def after_backward(self) -> None:
        self._versions = [buffer._version for buffer in self._buffers]

    def lane_done(self, change: torch.Tensor) -> None:
        self._changes += change

    def finish(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        whole = torch.cat([tail, self._changes, torch.tensor(self._used, dtype=torch.float32)])
        self._check_unchanged()
        if self._departures.surplus:
            raise came_twice()
        for place, view in self._placed:
            if self._used[place.index]:
                take_back(place.parameter, view)
            else:
                place.parameter.grad = view.zero_()
        if self._flight is not None:
            whole = self._exchange(self._flight, whole)
        else:
            self._totals = [sum_of(each) for parts in self._gradients for each in parts]
        summed, changes, used = whole.split([len(tail), len(self._changes), len(self._used)])
        drop_unused(self._parameters, used)
        return summed, changes

    def finite(self) -> bool:
        return are_numbers(self._totals)

    def commit(self) -> None:
        pass  # nothing is kept

    def close(self) -> None:
        let_go(self._flight, self._hooks, self._parameters)

    def _exchange(self, flight: Flight, whole: torch.Tensor) -> torch.Tensor:
        room = self._buffers[-1][self._layouts[-1].extra]
        room.copy_(whole)
        self._launch(everything=True)
        flight.wait(then=self._add_up)  # the others are still on their way
        found = room.to("cpu", copy=True)
        flight.confirm()
        return found

    def _add_up(self, number: int) -> None:
        flat, bucket = self._left[number]
        self._totals.append(sum_of(self._gradients[flat][bucket]))

    def _hook(self, place: Place, view: torch.Tensor) -> Callable[[torch.Tensor], None]:
        def ready(parameter: torch.Tensor) -> None:
            if self._used[place.index]:
                take_back(parameter, view)
            else:
                self._used[place.index] = True
                take(parameter, view)
            if self._last and self._departures.arrived(place.bucket):
                self._launch()

        return ready

    def _launch(self, everything: bool = False) -> None:
        if self._group is not None and self._flight is not None:
            for flat, bucket in self._departures.leaving(everything):
                self._left.append((flat, bucket))
                self._flight.launch(self._group.all_reduce, self._slices[flat][bucket])

    def _check_unchanged(self) -> None:
        if self._versions != [buffer._version for buffer in self._buffers]:
            raise changed_between_lanes()


def take(parameter: torch.Tensor, view: torch.Tensor) -> None:
    """Have a parameter's first gradient of a step in its place."""
    gradient = parameter.grad
    assert gradient is not None
    if gradient.layout != torch.strided:
        raise sparse()
    view.copy_(gradient.detach())  # `no_grad` for each parameter would cost more than a small one's copy
    parameter.grad = view


def take_back(parameter: torch.Tensor, view: torch.Tensor) -> None:
    """Add a gradient that became a tensor of its own (after the user's `zero_grad()`) to those of earlier lanes."""
    if parameter.grad is not view:
        if parameter.grad is not None:
            view.add_(parameter.grad.detach())
        parameter.grad = view
