"""All-reduce in which something smaller than the gradients is sent.

Each replica's lanes add up in a flat buffer of its own, one lane after another: a replica is carried as a whole, so
that its sum does not hang on the cluster, and what it leaves out goes where it goes. When the worker's lanes are done,
the replicas' sums are exchanged as `headway.strategies.compress.exchange` says. Everything that is not a gradient is
summed exactly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn

from headway.core.lanes import carried
from headway.strategies import totals
from headway.strategies.compress.exchange import Exchange
from headway.strategies.compress.ways import Among
from headway.strategies.flat import are_numbers, changed_between_lanes, drop_unused, let_go, sparse, sum_of
from headway.strategies.flight import Flight
from headway.strategies.group import Group
from headway.strategies.kept import Kept
from headway.strategies.options import Compression

_NARROW = (torch.float32, torch.bfloat16, torch.float16)
"""What is summed in float32, and may be compressed; all others are summed as they are."""


class Lengths:
    """Where the gradients of some parameters lie in a flat buffer, in the model's order.

    Args:
        parameters: by their numbers.
        dtype: of the buffer.
        extra: elements behind the gradients.
    """

    def __init__(self, parameters: dict[int, nn.Parameter], dtype: torch.dtype, extra: int = 0) -> None:
        self.parameters, self.dtype, self.extra = parameters, dtype, extra
        self.ends = list(itertools.accumulate((p.numel() for p in parameters.values()), initial=0))

    def buffer(self, device: torch.device) -> torch.Tensor:
        return torch.zeros(self.ends[-1] + self.extra, dtype=self.dtype, device=device)

    def views(self, buffer: torch.Tensor) -> dict[int, torch.Tensor]:
        """Each parameter's part, by its number, in its shape."""
        spans = zip(self.parameters.items(), itertools.pairwise(self.ends), strict=True)
        return {number: buffer[first:last].view(p.shape) for (number, p), (first, last) in spans}


class Room:
    """One replica's sums: gradients by kind, and behind the first kind's what its lanes changed."""

    def __init__(self, kinds: Sequence[Lengths], device: torch.device) -> None:
        self.buffers = [kind.buffer(device) for kind in kinds]
        self.views: dict[int, torch.Tensor] = {}
        for kind, buffer in zip(kinds, self.buffers, strict=True):
            self.views |= kind.views(buffer)
        self.changes = self.buffers[0][kinds[0].ends[-1] :]
        self.restart()

    def restart(self) -> None:
        """For the next step."""
        self.used: set[int] = set()
        self.changed = False

    def take(self, number: int, gradient: torch.Tensor) -> None:
        """Add a parameter's gradient."""
        if number in self.used:
            self.views[number].add_(gradient.detach())
        else:
            self.used.add(number)
            self.views[number].copy_(gradient.detach())

    def change(self, change: torch.Tensor) -> None:
        """Add what a lane changed."""
        self.changes.copy_(self.changes + change.to(self.changes.device) if self.changed else change)
        self.changed = True

    def fill(self) -> None:
        """What no lane added to is zero."""
        for number, view in self.views.items():
            if number not in self.used:
                view.zero_()
        if not self.changed:
            self.changes.zero_()


class Compressed:
    """See `headway.strategies.Strategy`.

    Between lanes, parameters have no gradients: each lane's is taken from the parameter as it becomes ready.

    Args:
        parameters: get gradients that are views of flat buffers, or copies where they are of 16 bits; those without
            `requires_grad` are left alone.
        compression: as in the job.
        lanes: of the run.
        tail: elements of the tail.
        changes: elements of what a lane changed.
        group: of the workers; None, or one of size 1: nothing is exchanged.
        replicas: that each worker carries, ascending, by rank; all together are those of the run.
        kept: of the run.
        update: whose parameters they are, where a step has several.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        compression: Compression,
        lanes: int,
        tail: int,
        changes: int,
        group: Group | None,
        replicas: Sequence[Sequence[int]],
        kept: Kept,
        update: str = "",
    ) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._group = group if group is not None and group.size > 1 else None
        self._flight = Flight(self._group) if self._group is not None else None
        self._replicas = [tuple(sorted(each)) for each in replicas]
        self._mine = self._replicas[group.rank if group is not None else 0]
        count = sum(map(len, self._replicas))
        self._of = {lane: replica for replica, each in enumerate(carried(lanes, count)) for lane in each}
        device = self._parameters[0].device if self._parameters else torch.device("cpu")
        numbered = dict(enumerate(self._parameters))
        narrow = {number: p for number, p in numbered.items() if p.dtype in _NARROW}
        wide = dict.fromkeys(p.dtype for p in self._parameters if p.dtype not in _NARROW)
        self._kinds = [Lengths(narrow, torch.float32, changes)]
        self._kinds += [Lengths({n: p for n, p in numbered.items() if p.dtype == each}, each) for each in wide]
        self._among = Among(self._group, self._replicas, count, device)
        shapes = [p.shape for p in narrow.values()]
        name = f"compression of {update}" if update else "compression"
        self.exchange = Exchange(compression, shapes, self._among, kept, name, changes)
        self._rooms = {replica: Room(self._kinds, device) for replica in self._mine}
        self._sums = Room(self._kinds, device)
        self._now: Room | None = None
        self._open = self._meddled = False
        self._unused: list[int] = []
        self._totals: list[torch.Tensor] = []
        self._hooks = [p.register_post_accumulate_grad_hook(self._hook(n)) for n, p in numbered.items()]

    def begin(self, lanes: Sequence[int]) -> None:
        self._break_off()
        for parameter in self._parameters:
            parameter.grad = None
        for room in self._rooms.values():
            room.restart()
        others = [lane for lane in lanes if self._of[lane] not in self._rooms]
        assert not others, f"lanes {others} are of replicas that another worker carries"
        self._now, self._totals, self._unused = None, [], []
        self._open = self._meddled = False

    def before_backward(self, lane: int, last: bool, first: bool = True, whole: bool = True) -> None:
        self._check_unmeddled()
        self._open, self._now = True, self._rooms[self._of[lane]]

    def after_backward(self) -> None:
        self._open = False

    def lane_done(self, change: torch.Tensor) -> None:
        assert self._now is not None
        self._now.change(change)

    def finish(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._check_unmeddled()
        for room in self._rooms.values():
            room.fill()
        numbers = range(len(self._parameters))
        used = [any(number in room.used for room in self._rooms.values()) for number in numbers]
        whole = torch.cat([tail, torch.tensor(used, dtype=torch.float32)])
        found, changes = self._exchanged(whole)
        summed, counts = found.split([len(tail), len(used)])
        for number, parameter in enumerate(self._parameters):
            parameter.grad = self._sums.views[number].to(parameter.dtype)
        self._unused = [at for at, number in enumerate(self._kinds[0].parameters) if not counts[number]]
        drop_unused(self._parameters, counts)
        return summed, changes

    def finite(self) -> bool:
        return are_numbers(self._totals)

    def commit(self) -> None:
        if self.finite():  # what is no number would be sent for ever
            self.exchange.commit(self._unused)

    def close(self) -> None:
        self._break_off()
        let_go(self._flight, self._hooks, self._parameters)

    def _break_off(self) -> None:
        """Nothing is under way."""
        self.exchange.drop()
        if self._flight is not None:
            self._flight.restart()

    def _exchanged(self, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All sums. Returns that of `whole` over workers, and of the changes over lanes, on the CPU."""
        among, first = self._among, {replica: room.buffers[0] for replica, room in self._rooms.items()}
        if self._flight is not None and self._group is not None:
            whole = whole.to(self._group.device)
            self._flight.launch(self._group.all_reduce, whole)
        self.exchange.start(first, ahead=totals.AHEAD)
        if self._flight is not None:
            self._flight.wait()
        self.exchange.wait(self._sums.buffers[0])
        for kind, out in enumerate(self._sums.buffers[1:], 1):
            values = {replica: room.buffers[kind] for replica, room in self._rooms.items()}
            totals.total(self._group, values, out, self._replicas, among.count)
        gradients = [self._sums.buffers[0][: self._kinds[0].ends[-1]], *self._sums.buffers[1:]]
        self._totals = [sum_of(torch.view_as_real(each) if each.is_complex() else each) for each in gradients]
        found, changes = whole.cpu(), self._sums.changes.to("cpu", copy=True)
        if self._flight is not None:
            self._flight.confirm()
        return found, changes

    def _hook(self, number: int) -> Callable[[torch.Tensor], None]:
        def ready(parameter: torch.Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            if not self._open:
                self._meddled = True
                return
            assert gradient is not None
            if gradient.layout != torch.strided:
                raise sparse()
            assert self._now is not None
            self._now.take(number, gradient)

        return ready

    def _check_unmeddled(self) -> None:
        if self._meddled:
            raise changed_between_lanes()
