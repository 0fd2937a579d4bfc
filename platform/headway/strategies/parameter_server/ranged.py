"""Synchronous parameter server: a worker has the optimiser of the ranges that it carries, and no other.

A step: every worker sends each carrier the part of its lanes' gradients that lies in the carrier's ranges; the carrier
adds up what came (a reduce-scatter), and hands the sum on to the worker after it. Both make the same update of the
range (replication of a state machine), beside the old numbers; the carrier's new values go to all. Only when all of
that has come is anything overwritten. So a worker that is lost takes with it no update that was applied, and no update
is applied in part. Beside the bytes of an all-reduce, a step takes those of one worker's share.

The optimiser's state is there twice (three times while an update is made), divided by the workers: the partition of
Rajbhandari et al. 2020 (ZeRO, stage 1), with the roles of Li et al. 2014 (parameter server, chain replication).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from headway.core.ranges import backed_up
from headway.core.reduction import Folded, Node, Plan
from headway.strategies.flat import Layout
from headway.strategies.flight import Flight
from headway.strategies.group import Group
from headway.strategies.kept import Kept, Tree
from headway.strategies.parameter_server.cut import Cut, Part, Shares
from headway.strategies.parameter_server.shard import stepped
from headway.strategies.totals import added
from headway.strategies.tree import Sum
from headway.strategies.tree import Tree as InTreeOrder


class Ranged(InTreeOrder):
    """See `headway.strategies.Strategy`; after `finish` parameters have no gradient, since no worker has all of them.
    The update is made here: `finish`, then `update`, then `commit`.

    Args:
        cut: the run's parameters in ranges.
        trained: those that get gradients now.
        lanes: of the run.
        tail: elements of the tail.
        changes: elements of what a lane changed.
        group: of the workers; None, or one of size 1: nothing is exchanged.
        carried: numbers of the ranges that each worker carries, by rank; each once.
        kept: of the run.
        bitwise: lanes are added up in the tree's order; else each worker's first.
        fail_over: each range is with the next worker as well.
    """

    def __init__(
        self,
        cut: Cut,
        trained: Sequence[nn.Parameter],
        *,
        lanes: int,
        tail: int,
        changes: int,
        group: Group | None,
        carried: Sequence[Sequence[int]],
        kept: Kept,
        bitwise: bool,
        fail_over: bool = True,
    ) -> None:
        self.cut, self.kept = cut, kept
        self._bitwise = bitwise
        ours = [p for p in trained if p.requires_grad]
        super().__init__(ours, lanes=lanes, tail=tail, changes=changes, group=group)
        if sorted(number for numbers in carried for number in numbers) != list(range(len(cut.ranges))):
            raise ValueError(f"ranges carried {carried} are not each of {len(cut.ranges)}, once")
        self._parts = cut.parts(self._layouts)
        self._shares = Shares(self._parts, carried, len(self._layouts))
        self._own = sorted(carried[self._rank])
        self._fails_over = fail_over and self._group is not None
        self._backups = backed_up(carried, self._rank) if self._fails_over else ()
        self._mine: list[torch.Tensor] = []
        """Of each buffer, the sums in this worker's ranges."""
        self._theirs: list[torch.Tensor] = []
        """Of each buffer, those in the ranges that it has copies of."""
        self._used_by_lanes: set[int] = set()
        """Numbers of the parameters that a lane used."""
        self._squares: torch.Tensor | None = None
        self.beside: list[float] = []
        """Squares of gradients that travel otherwise (rows of served tables), the same on all workers: they belong to
        the norm. To be set after `finish`."""
        self._new: Sum | None = None
        self._new_trees: dict[int, Tree] = {}
        self._optimizer: Optimizer | None = None

    # Gradients

    def begin(self, lanes: Sequence[int]) -> None:
        self._drop()
        super().begin(lanes)

    def before_backward(self, lane: int, last: bool, first: bool = True, whole: bool = True) -> None:
        if not self._bitwise and self._plan is None:
            self._plan = _alone(len(self._lanes), self._rank, self._size)  # its own part is all that is asked of it
        super().before_backward(lane, last, first, whole)

    def finish(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._check_unmeddled()
        whole = torch.cat([tail, torch.tensor(self._used, dtype=torch.float32)])
        self._merge()
        if self._flight is not None and self._group is not None:
            whole, changes, squares = self._scattered(self._flight, self._group, whole.to(self._device))
        else:
            if not self._stack:
                self._stack.append(self._zero())
            sums = self._stack[0]
            self._mine = [b[: layout.extra.start] for b, layout in zip(sums.buffers, self._layouts, strict=True)]
            changes, squares = sums.changes.to("cpu", copy=True), self._squared().cpu()
        self._squares = squares
        summed, used = whole.split([len(tail), len(self._used)])
        numbers = self.cut.numbers
        self._used_by_lanes = {
            numbers[id(p)] for p, count in zip(self._parameters, used.tolist(), strict=True) if count
        }
        return summed, changes

    def finite(self) -> bool:
        return self._squares is None or all(map(math.isfinite, (*self._squares.tolist(), *self.beside)))

    def norm(self) -> float:
        """After `finish`: L2 norm of the whole gradient, the same on all workers and for any number of them.

        Squares are added up in float64: of each range's piece of each parameter by who carries it, then over the
        pieces in their order. `torch.nn.utils.get_total_norm` adds in float32 over whole tensors, and may differ in
        the last digits.
        """
        assert self._squares is not None, "norm() before finish()"
        total = 0.0
        for value in (*self._squares.tolist(), *self.beside):
            total += value
        return math.sqrt(total)

    def factor(self, clip_norm: float | None = None, scale: float = 1.0) -> float:
        """After `finish`: by what the update multiplies the gradient, see `update`."""
        if clip_norm is None:
            return 1.0 / scale
        return min(1.0, clip_norm / (self.norm() / scale + 1e-6)) / scale  # as torch's clip_grad_norm_

    def gradients(self) -> None:
        """After `finish`: parameters get their `grad`, the whole sum, on every worker. It costs what the new values
        do; for those who must see it (a clip function of the user's own).

        Raises:
            PeerLost: a worker went away; nothing has been applied.
        """
        room = self._gathered(self._mine)
        for place in self._places:
            used = self.cut.numbers[id(place.parameter)] in self._used_by_lanes
            place.parameter.grad = room.views[place.bucket[0]][place.number].clone() if used else None
        self._free.append(room)

    # The update

    def update(self, optimizer: Optimizer, clip_norm: float | None = None, scale: float = 1.0) -> None:
        """After `finish`: make the update, so that `commit` can apply it.

        Args:
            optimizer: the user's. Its class, groups and options are those of the update; its own state is only looked
                at for parameters that have none in the ranges yet.
            clip_norm: largest L2 norm of the gradient.
            scale: by which the loss was multiplied.

        Raises:
            PeerLost: a worker went away. Nothing has changed here; as the others may have applied it, what it would
                have made of the ranges is in `kept.doubtful`.
            BadInput: the optimiser cannot be divided.
        """
        factor = self.factor(clip_norm, scale)
        if factor != 1.0:
            for each in (*self._mine, *self._theirs):
                each.mul_(factor)
        values, made = [torch.zeros_like(each) for each in self._mine], {}
        for number in self._own:
            new, made[number] = self._stepped(optimizer, number, self._rank, self._mine, self.kept.own)
            for part in self._parts[number]:
                if part.piece.tensor in new:
                    self._part(values, part, number, self._rank).copy_(new[part.piece.tensor])
        for number in self._backups:
            before = (self._rank - 1) % self._size
            _, made[number] = self._stepped(optimizer, number, before, self._theirs, self.kept.backups)
        self.kept.doubtful = made
        self._new = self._gathered(values)
        self._new_trees, self._optimizer = made, optimizer

    @torch.no_grad()
    def commit(self) -> None:
        """Apply what `update` made; where there was none, nothing."""
        if self._new is None or self._optimizer is None:
            self._drop()
            return
        served = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        for place in self._places:
            parameter = place.parameter
            if self.cut.numbers[id(parameter)] in self._used_by_lanes and id(parameter) in served:
                parameter.copy_(self._new.views[place.bucket[0]][place.number])
        kept = self.kept
        kept.own |= {number: self._new_trees[number] for number in self._own}
        kept.backups = {number: self._new_trees[number] for number in self._backups}
        kept.common["at"] = int(kept.common.get("at", 0)) + 1
        for parameter in self.cut.parameters:
            if id(parameter) in served:
                self._optimizer.state.pop(parameter, None)  # it is in the ranges now
        self._optimizer._opt_called = True  # type: ignore[attr-defined]  # for a schedule that watches it
        self._drop()

    # Inside

    def _laid_out(self, changes: int) -> list[Layout]:
        return self.cut.layouts(self._parameters, changes)

    def _launch(self, everything: bool = False) -> None:
        pass  # all leaves in `finish`

    def _drop(self) -> None:
        if self._new is not None:
            self._free.append(self._new)
        self._new, self._new_trees, self._optimizer, self._squares = None, {}, None, None
        self._mine, self._theirs, self.beside = [], [], []
        self.kept.doubtful = {}

    def _everybodys(self) -> Plan | None:
        """How all partial sums are added up, once all have said what they carry."""
        if not self._bitwise:
            self._plan = None  # it was about this worker alone
        found = self._find_plan()
        if found is None or self._bitwise:
            return found
        return _by_rank([len(folded.merges) for folded in found.own])

    def _scattered(
        self, flight: Flight, group: Group, whole: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Have the sums in the ranges that this worker carries, and those that it has copies of.

        Returns:
            The sum of the wholes and that of the changes, and the squares of all pieces; in host memory.

        Raises:
            PeerLost: a worker went away.
        """
        flight.launch(group.all_reduce, whole)
        found = self._everybodys()
        if found is None:
            flight.wait()
        assert found is not None
        counts = [len(folded.left) for folded in found.own]
        last = len(self._layouts) - 1
        extra = self._layouts[last].extra.stop - self._layouts[last].extra.start
        under_way = []
        for flat, layout in enumerate(self._layouts):
            room = extra if flat == last else 0
            sizes = [size + room for size in self._shares.sizes[flat]]
            sent = self._sent(flat, room)
            came = torch.empty(sum(counts) * sizes[self._rank], dtype=layout.dtype, device=self._device)
            work = flight.launch(
                group.all_to_all,
                came,
                sent,
                [count * sizes[self._rank] for count in counts],
                [counts[self._rank] * size for size in sizes],
            )
            under_way.append((work, came, sizes[self._rank]))
        self._mine, changes = [], torch.zeros(extra, device=self._device)
        for flat, (work, came, size) in enumerate(under_way):
            flight.order(work)
            if sum(counts) and size:
                total = added(found, came)
            else:
                total = torch.zeros(size, dtype=came.dtype, device=self._device)
            if flat == last:
                total, changes = total.split([size - extra, extra])
            self._mine.append(total)
        self._hand_on(flight, group)
        squares = self._squared()
        flight.launch(group.all_reduce, squares)
        flight.wait()
        read = whole.cpu(), changes.to("cpu", copy=True), squares.cpu()
        flight.confirm()
        self._free += self._stack
        self._stack = []
        return read

    def _sent(self, flat: int, room: int) -> torch.Tensor:
        """Of one buffer, for each rank in turn: each partial sum's part that lies there, and what the lanes changed."""
        pieces = []
        for rank in range(self._size):
            for each in self._stack:
                pieces += [each.buffers[flat][first:last] for first, last in self._shares.of(flat, rank)]
                if room:
                    pieces.append(each.changes)
        layout = self._layouts[flat]
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=layout.dtype, device=self._device)

    def _hand_on(self, flight: Flight, group: Group) -> None:
        """The sums to the worker after this one, and those of the one before."""
        self._theirs = []
        for mine, shares in zip(self._mine, self._shares.sizes, strict=True) if self._fails_over else ():
            before, after = (self._rank - 1) % self._size, (self._rank + 1) % self._size
            came = torch.empty(shares[before], dtype=mine.dtype, device=self._device)
            sizes = [[0] * self._size, [0] * self._size]
            sizes[0][before], sizes[1][after] = len(came), len(mine)
            flight.launch(group.all_to_all, came, mine.contiguous(), *sizes)
            self._theirs.append(came)

    def _part(self, of: Sequence[torch.Tensor], part: Part, number: int, rank: int) -> torch.Tensor:
        """A part's elements in what a worker has of each buffer."""
        first = self._shares.place(part, number, rank)
        return of[part.flat][first : first + part.piece.size]

    def _squared(self) -> torch.Tensor:
        """Of each part of each range, in order, the sum of the squares where it is carried here, else 0; float64."""
        found: list[torch.Tensor] = []
        nothing = torch.zeros((), dtype=torch.float64, device=self._device)
        own = set(self._own)
        for number, parts in enumerate(self._parts):
            for part in parts:
                if number in own:
                    gradient = self._part(self._mine, part, number, self._rank)
                    gradient = torch.view_as_real(gradient) if gradient.is_complex() else gradient
                    found.append(torch.linalg.vector_norm(gradient, dtype=torch.float64).square())
                else:
                    found.append(nothing)
        return torch.stack(found) if found else nothing[None]

    def _stepped(
        self, optimizer: Optimizer, number: int, rank: int, sums: Sequence[torch.Tensor], trees: Mapping[int, Tree]
    ) -> tuple[dict[int, torch.Tensor], Tree]:
        tree, at = trees.get(number, {}), int(self.kept.common.get("at", 0))
        if int(tree.get("at", 0)) != at:
            raise ValueError(f"range {number} is there as after {tree.get('at', 0)} updates, and {at} were made")
        gradients = {
            part.piece.tensor: self._part(sums, part, number, rank)
            for part in self._parts[number]
            if part.piece.tensor in self._used_by_lanes
        }
        return stepped(optimizer, self.cut.parameters, self.cut.ranges[number], tree, gradients)

    def _gathered(self, mine: Sequence[torch.Tensor]) -> Sum:
        """All workers' shares of each buffer, where they belong.

        Raises:
            PeerLost: a worker went away.
        """
        room = self._free.pop() if self._free else Sum(self._layouts)
        flight, group = self._flight, self._group
        if flight is None or group is None:
            for flat, share in enumerate(mine):
                self._put(room.buffers[flat], flat, 0, share)
            return room
        under_way = []
        for flat, share in enumerate(mine):
            # Not an all-gather, which sends everybody as much as the largest share has: shares may be very uneven,
            # where a model is frozen in part or has several dtypes.
            others = [0 if rank == self._rank else size for rank, size in enumerate(self._shares.sizes[flat])]
            came = torch.empty(sum(others), dtype=share.dtype, device=self._device)
            given = [0 if rank == self._rank else len(share) for rank in range(self._size)]
            work = flight.launch(group.all_to_all, came, share.repeat(self._size - 1), others, given)
            under_way.append((work, came.split(others)))
        for flat, (work, shares) in enumerate(under_way):
            flight.order(work)
            for rank, share in enumerate(shares):
                self._put(room.buffers[flat], flat, rank, mine[flat] if rank == self._rank else share)
        flight.wait()
        return room

    def _put(self, buffer: torch.Tensor, flat: int, rank: int, share: torch.Tensor) -> None:
        at = 0
        for first, last in self._shares.of(flat, rank):
            buffer[first:last] = share[at : at + last - first]
            at += last - first


def _alone(lanes: int, rank: int, size: int) -> Plan:
    """Of a worker that adds up its lanes one after another, whatever the others do."""
    own = [Folded((), ())] * size
    own[rank] = Folded((0, *[1] * (lanes - 1))[:lanes], (Node(0, rank),) if lanes else ())
    return Plan(tuple(own), (), ())


def _by_rank(lanes: Sequence[int]) -> Plan:
    """Each worker's sum after that of the one before; by rank, how many lanes it has."""
    own = tuple(Folded((), (Node(0, rank),) if count else ()) for rank, count in enumerate(lanes))
    order = tuple((rank, 0) for rank, count in enumerate(lanes) if count)
    return Plan(own, order, (0, *[1] * (len(order) - 1))[: len(order)])
