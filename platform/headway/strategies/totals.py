"""Sums over replicas: one flat tensor of each, added up in one fixed order, so that no bit hangs on who carries which.

The order is that of `headway.core.reduction`, with replicas for leaves. Each worker adds up its replicas into as few
partial sums as the tree allows, sends each of them in shards, one to each worker (all-to-all), adds up what came for
its shard, and the sums are gathered. With one partial sum per worker that is a ring all-reduce's traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import pad

from headway.core.reduction import Plan, plan
from headway.strategies.flight import Flight
from headway.strategies.group import Group, Work

BUCKET_BYTES = 25 * 2**20
"""Of one message: what is under way beside the tensors themselves is a few of these."""
AHEAD = 2
"""Messages under way at a time where nothing else is done meanwhile."""

Replicas = Sequence[Sequence[int]]
"""Numbers of those that each worker carries, ascending, by rank."""


def total(
    group: Group | None, values: Mapping[int, torch.Tensor], out: torch.Tensor, replicas: Replicas, count: int
) -> None:
    """The sum of the replicas' tensors, known to be complete.

    Args:
        group: of the workers; None for one alone.
        values: of each replica that this worker carries and that takes part, by number: flat, all of one size and
            dtype. They are left as they are.
        out: gets the sum; of the same size, dtype and device, and none of the values. All zero where no replica takes
            part. On PeerLost it may hold anything.
        replicas: that take part, by rank; the same on every worker. They need not be all.
        count: of the run's replicas.

    Raises:
        PeerLost: a worker went away.
    """
    start(group, values, out, replicas, count, AHEAD).wait()


def start(
    group: Group | None,
    values: Mapping[int, torch.Tensor],
    out: torch.Tensor,
    replicas: Replicas,
    count: int,
    ahead: int | None = None,
) -> Total:
    """As `total`, under way: `wait` gives the sum. It raises nothing before that.

    The values and `out` are not to be touched until then. All workers start and wait in the same order, also among
    other collectives of the group.

    Args:
        group: and the others: as of `total`.
        ahead: messages that are under way at most; None: all.
    """
    alone = group is None or group.size == 1
    return Total(None if alone else group, values, out, plan(tuple(map(tuple, replicas)), count), ahead)


class Total:
    """A sum under way; see `start`."""

    def __init__(
        self, group: Group | None, values: Mapping[int, torch.Tensor], out: torch.Tensor, found: Plan, ahead: int | None
    ) -> None:
        self._group, self._values, self._out, self._plan = group, values, out, found
        self._flight = Flight(group) if group is not None else None
        size = group.size if group is not None else 1
        step = max(BUCKET_BYTES // out.dtype.itemsize // size, 1) * size
        self._buckets = [(first, min(first + step, len(out))) for first in range(0, len(out), step)]
        self._sent: list[tuple[Work | None, torch.Tensor]] = []
        for _ in self._buckets[:ahead] if group is not None else ():
            self._send()

    def wait(self) -> None:
        """The sum is in `out`, complete.

        Raises:
            PeerLost: a worker went away; nothing is written any more.
        """
        if not self._plan.order:
            self._out.zero_()
            return
        if self._group is None or self._flight is None:
            for first, last in self._buckets:
                self._out[first:last] = self._folded(first, last)[0]
            return
        gathered = [self._add(*bucket, number) for number, bucket in enumerate(self._buckets)]
        self._flight.wait()
        for (first, last), found in zip(self._buckets, gathered, strict=True):
            if found is not None:
                self._out[first:last] = found[: last - first]
        self._flight.confirm()

    def drop(self) -> None:
        """Break it off, and the group with it, if it is under way."""
        if self._flight is not None:
            self._flight.drop()

    def _folded(self, first: int, last: int) -> list[torch.Tensor]:
        """This worker's partial sums of a bucket."""
        rank = self._group.rank if self._group is not None else 0
        stack: list[torch.Tensor] = []
        for number, merges in zip(sorted(self._values), self._plan.own[rank].merges, strict=True):
            top = self._values[number][first:last]
            for _ in range(merges):
                top = stack.pop() + top
            stack.append(top)
        return stack

    def _send(self) -> None:
        """The next bucket."""
        if not self._plan.order:
            return
        assert self._group is not None
        assert self._flight is not None
        first, last = self._buckets[len(self._sent)]
        size, there = self._group.size, _there(self._group, self._out)
        parts = self._folded(first, last)
        if self._plan.one_each:
            room = self._out[first:last]
            mine = room.copy_(parts[0]).to(there)
            self._sent.append((self._flight.launch(self._group.all_reduce, mine), mine))
            return
        short = -(last - first) % size
        parts = [pad(part.to(there), (0, short)) if short else part.to(there) for part in parts]
        shard = (last - first + short) // size
        self._sent.append(spread(self._flight, self._group, self._plan, parts, shard, self._out.dtype, there))

    def _add(self, first: int, last: int, number: int) -> torch.Tensor | None:
        """What came of a bucket, added up and on its way to all. Returns where it will be, if not in its place."""
        assert self._group is not None
        assert self._flight is not None
        work, came = self._sent[number]
        self._flight.order(work)
        if len(self._sent) < len(self._buckets):
            self._send()
        if self._plan.one_each:
            return came if came.device != self._out.device else None
        shard = added(self._plan, came)
        self._sent[number] = (work, shard)
        room = self._out[first:last]
        whole = len(shard) * self._group.size
        if whole == len(room) and room.device == shard.device:
            self._flight.launch(self._group.all_gather, room, shard)
            return None
        room = torch.empty(whole, dtype=shard.dtype, device=shard.device)
        self._flight.launch(self._group.all_gather, room, shard)
        return room


def spread(
    flight: Flight,
    group: Group,
    found: Plan,
    parts: Sequence[torch.Tensor],
    shard: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Work | None, torch.Tensor]:
    """Send partial sums in shards, one to each worker.

    Args:
        flight: launches it.
        group: of the workers.
        found: who has how many partial sums.
        parts: those of this worker; flat, each of `shard` elements per worker.
        shard: elements.
        dtype: of the elements.
        device: where they are.

    Returns:
        What is under way, and where it comes to: [partial sums of rank 0, of rank 1, ...], each of the shard's size.
    """
    if len(parts) == 1:
        sent = parts[0]
    elif parts:
        sent = torch.stack([part.view(group.size, shard) for part in parts], dim=1).view(-1)
    else:
        sent = torch.empty(0, dtype=dtype, device=device)
    sizes = [len(folded.left) * shard for folded in found.own]
    came = torch.empty(sum(sizes), dtype=dtype, device=device)
    return flight.launch(group.all_to_all, came, sent, sizes, [len(parts) * shard] * group.size), came


def added(found: Plan, came: torch.Tensor) -> torch.Tensor:
    """All workers' partial sums of one shard, [rank, partial sum, element] flattened, added up in the tree's order.
    What came is overwritten."""
    counts = [len(folded.left) for folded in found.own]
    parts = iter(came.view(sum(counts), -1))
    of = {(rank, number): next(parts) for rank, count in enumerate(counts) for number in range(count)}
    return in_order(found, of)


def in_order(found: Plan, of: Mapping[tuple[int, int], torch.Tensor]) -> torch.Tensor:
    """Partial sums by rank and number, added up in the tree's order; they are overwritten."""
    stack: list[torch.Tensor] = []
    for key, merges in zip(found.order, found.merges, strict=True):
        top = of[key]
        for _ in range(merges):
            top = stack.pop().add_(top)
        stack.append(top)
    return stack[0]


def _there(group: Group, tensor: torch.Tensor) -> torch.device:
    """Where the exchange of a tensor happens."""
    return tensor.device if tensor.device.type == group.device.type else group.device
