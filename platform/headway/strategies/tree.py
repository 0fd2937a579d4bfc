"""All-reduce whose sums do not depend, to the bit, on how many workers carry which lanes.

The order of additions is that of `headway.core.reduction`: lanes are leaves of one fixed binary tree. Each worker adds
up its lanes into as few partial sums as the tree allows. Then, bucket by bucket, every worker sends each of its partial
sums in shards, one to each worker (all-to-all); the owner of a shard adds up what came in the tree's order; the sums
are gathered. With one partial sum per worker that is a ring all-reduce's traffic. See docs/decisions/0005.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from headway.core.reduction import Plan, plan
from headway.strategies.flat import (
    Departures,
    Layout,
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
from headway.strategies.group import Group, Work
from headway.strategies.lost import PeerLost
from headway.strategies.totals import added, spread


class Sum:
    """Room for one partial sum: gradients, and behind them what the lanes changed."""

    def __init__(self, layouts: list[Layout]) -> None:
        self.buffers = [layout.buffer() for layout in layouts]
        self.views = [layout.views(b) for layout, b in zip(layouts, self.buffers, strict=True)]
        self.slices = [layout.slices(b) for layout, b in zip(layouts, self.buffers, strict=True)]
        self.changes = self.buffers[-1][layouts[-1].extra]

    def add(self, other: Sum) -> None:
        for mine, others in zip(self.buffers, other.buffers, strict=True):
            mine.add_(others)


@dataclass
class Shard:
    """A bucket on its way: what came, [partial sums of rank 0, of rank 1, ...], each of the shard's size."""

    place: tuple[int, int]
    work: Work | None
    came: torch.Tensor


class Tree:
    """See `headway.strategies.Strategy`.

    Between lanes, parameters have no gradients: each lane's is taken from the parameter as it becomes ready.

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
        self._group = group if group is not None and group.size > 1 else None
        self._flight = Flight(self._group) if self._group is not None else None
        self._rank, self._size = (group.rank, group.size) if group is not None else (0, 1)
        self._layouts = self._laid_out(changes)
        self._device = self._layouts[-1].device
        self._places = places(self._parameters, self._layouts)
        self._departures = Departures(self._layouts)
        self._lanes: tuple[int, ...] = ()
        self._carried = torch.zeros(self._size, lanes, dtype=torch.uint8, device=self._device)
        self._plan: Plan | None = None
        self._plan_work: Work | None = None
        self._free: list[Sum] = []
        self._stack: list[Sum] = []
        self._sending: list[Shard] = []
        self._done = 0
        self._merges = 0
        self._open = self._last = self._meddled = self._holds = False
        self._held: dict[int, torch.Tensor] = {}
        """Gradients of parts of the lane's batch, until its last."""
        self._used = [False] * len(self._parameters)
        self._seen = [0] * len(self._parameters)
        self._hooks = [p.parameter.register_post_accumulate_grad_hook(self._hook(p)) for p in self._places]

    def begin(self, lanes: Sequence[int]) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        self._free += self._stack
        self._stack, self._sending = [], []
        assert list(lanes) == sorted(lanes), f"lanes {lanes} do not ascend"
        self._lanes, self._done, self._merges = tuple(lanes), 0, 0
        self._open = self._last = self._meddled = self._holds = False
        self._held = {}
        self._used = [False] * len(self._parameters)
        self._departures.restart()
        self._plan = self._plan_work = None
        if self._group is None or self._flight is None:
            self._plan = plan((self._lanes,), self._carried.shape[1])
            return
        self._flight.restart()
        mine = torch.zeros(self._carried.shape[1], dtype=torch.uint8)
        mine[list(lanes)] = 1
        self._plan_work = self._flight.launch(self._group.all_gather, self._carried.view(-1), mine.to(self._device))

    def before_backward(self, lane: int, last: bool, first: bool = True, whole: bool = True) -> None:
        self._check_unmeddled()
        self._open, self._last, self._holds = True, last, not whole
        if not first:
            self._seen = [0] * len(self._parameters)
            return
        self._merge()
        if self._done and (found := self._find_plan()) is not None:
            self._merges = found.own[self._rank].merges[self._done]  # the first lane has nothing to be added to
        if not self._merges:
            self._stack.append(self._free.pop() if self._free else Sum(self._layouts))
        self._seen = [0] * len(self._parameters)
        self._done += 1

    def after_backward(self) -> None:
        self._open = False
        if max(self._seen, default=0) > 1:
            raise came_twice()
        for place in self._places if not self._holds else ():
            if not self._seen[place.index]:
                self._place(place, self._held.pop(place.index, None))

    def lane_done(self, change: torch.Tensor) -> None:
        _put(self._stack[-1].changes, change.to(self._device), self._merges)

    def finish(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._check_unmeddled()
        whole = torch.cat([tail, torch.tensor(self._used, dtype=torch.float32)])
        if self._flight is not None and self._group is not None:
            whole = self._exchange(self._flight, self._group, whole)
        else:
            self._merge()
        if not self._stack:
            self._stack.append(self._zero())
        result = self._stack[0]
        for place in self._places:
            place.parameter.grad = result.views[place.bucket[0]][place.number]
        summed, used = whole.split([len(tail), len(self._used)])
        changes = result.changes.to("cpu", copy=True)
        if self._flight is not None:
            self._flight.confirm()
        drop_unused(self._parameters, used)
        return summed, changes

    def finite(self) -> bool:
        kinds = zip(self._layouts, self._stack[0].buffers, strict=True) if self._stack else ()
        return are_numbers([sum_of(each) for layout, buffer in kinds for each in layout.gradients(buffer)])

    def commit(self) -> None:
        pass  # nothing is kept

    def close(self) -> None:
        let_go(self._flight, self._hooks, self._parameters)

    def _laid_out(self, changes: int) -> list[Layout]:
        return layouts(self._parameters, changes, self._size)

    def _hook(self, place: Place) -> Callable[[torch.Tensor], None]:
        def ready(parameter: torch.Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            if not self._open:
                self._meddled = True
                return
            if gradient is not None and gradient.layout != torch.strided:
                raise sparse()
            self._used[place.index] = True
            self._seen[place.index] += 1
            before = self._held.pop(place.index, None)
            if before is not None and gradient is not None:
                gradient = before.add_(gradient)
            if self._holds and gradient is not None:
                self._held[place.index] = gradient if before is not None else gradient.detach().clone()
                return
            self._place(place, gradient)
            if self._last and self._flight is not None and self._departures.arrived(place.bucket):
                self._launch()

        return ready

    def _place(self, place: Place, gradient: torch.Tensor | None) -> None:
        _put(self._stack[-1].views[place.bucket[0]][place.number], gradient, self._merges)

    def _merge(self) -> None:
        """The sum on top of the stack is the lane's, added to the one before; go on as far as the tree does."""
        while self._merges > 1:
            top = self._stack.pop()
            self._stack[-1].add(top)
            self._free.append(top)
            self._merges -= 1
        self._merges = 0

    def _find_plan(self) -> Plan | None:
        """Who carries what, once all have said so; None: a peer is lost."""
        if self._plan is None and self._flight is not None and self._plan_work is not None:
            try:
                self._flight.wait(self._plan_work)
                carried = tuple(tuple(row.nonzero().view(-1).tolist()) for row in self._carried.cpu())
                self._flight.confirm()
            except PeerLost:
                self._plan_work = None
            else:
                self._plan = plan(carried, self._carried.shape[1])
        return self._plan

    def _launch(self, everything: bool = False) -> None:
        found: Plan | None = None
        for flat, bucket in self._departures.leaving(everything):
            found = found or self._find_plan()
            if found is None:
                return
            self._send(found, flat, bucket)

    def _send(self, found: Plan, flat: int, bucket: int) -> None:
        """A bucket of the last lane is complete: merge it as far as the tree goes, and send what remains."""
        if not found.order:
            return  # a step without rows
        assert self._group is not None
        assert self._flight is not None
        parts = [each.slices[flat][bucket] for each in self._stack]
        for _ in range(self._merges - 1):
            top = parts.pop()
            parts[-1].add_(top)
        if found.one_each:
            self._flight.launch(self._group.all_reduce, parts[0])
            return
        shard = (self._layouts[flat].cuts[bucket + 1] - self._layouts[flat].cuts[bucket]) // self._size
        dtype = self._layouts[flat].dtype
        work, came = spread(self._flight, self._group, found, parts, shard, dtype, self._device)
        self._sending.append(Shard((flat, bucket), work, came))

    def _exchange(self, flight: Flight, group: Group, whole: torch.Tensor) -> torch.Tensor:
        whole = whole.to(self._device)
        self._launch(everything=True)
        flight.launch(group.all_reduce, whole)
        for _ in range(self._merges - 1):  # buckets were merged one by one
            self._free.append(self._stack.pop())
        self._merges = 0
        if not self._stack:
            self._stack.append(self._zero())
        for sent in self._sending:
            assert self._plan is not None
            flight.order(sent.work)
            flat, bucket = sent.place
            shard = added(self._plan, sent.came)
            flight.launch(group.all_gather, self._stack[0].slices[flat][bucket], shard)
        flight.wait()
        return whole.cpu()

    def _zero(self) -> Sum:
        made = self._free.pop() if self._free else Sum(self._layouts)
        for buffer in made.buffers:
            buffer.zero_()
        return made

    def _check_unmeddled(self) -> None:
        if self._meddled:
            raise changed_between_lanes()


def _put(room: torch.Tensor, value: torch.Tensor | None, add: int) -> None:
    """Set or add; None is nought."""
    value = value.detach() if value is not None else None
    if add:
        room.add_(0.0 if value is None else value)  # adding nought turns -0 into 0, as it would at another worker
    elif value is None:
        room.zero_()
    else:
        room.copy_(value)
