"""Sums of encoded numbers, encoded again: both ways are small.

The tensor is cut into one shard for each replica of the run, wherever it is carried. Each replica's numbers are
encoded, and each shard goes to whoever carries the replica of its number; that worker adds up what all of them say, in
the order of `headway.core.reduction`, and what the last sum left out; encodes the sum; and all get it. So what comes of
it does not hang on who carries what.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from headway.core.reduction import plan
from headway.strategies.compress import Codec
from headway.strategies.compress.ways import Among, Left, Tensors, carrier
from headway.strategies.flight import Flight
from headway.strategies.group import Work
from headway.strategies.totals import BUCKET_BYTES, Replicas


@dataclass
class _Piece:
    """A part of every shard, on its way: what came, [rank, replica, shard] one after another."""

    spans: list[tuple[int, int]]
    work: Work | None
    came: torch.Tensor
    gathered: torch.Tensor | None = None


class Sharded:
    """See `headway.strategies.compress.ways.Way`.

    Args:
        codec: for the numbers, and for their sum.
        elements: of the tensor.
        among: whom.
        feedback: whether what is left out is told.
    """

    def __init__(self, codec: Codec, elements: int, among: Among, feedback: bool) -> None:
        self._codec, self._elements, self._among, self._feedback = codec, elements, among, feedback
        block = codec.block
        self._size = max(-(-elements // among.count // block), 1) * block
        self._step = max(BUCKET_BYTES // 4 // among.count // block, 1) * block
        self._flight = Flight(among.group) if among.group is not None else None

    @property
    def message_bytes(self) -> int:
        return sum(self._codec.size(last - first) for first, last in self._spans(0, self._size))

    def shard(self, number: int) -> int:
        return min(number * self._size, self._elements)

    def start(self, given: Tensors, present: Replicas, before: Left, ahead: int | None) -> None:
        self._given, self._present, self._before = given, present, before
        self._owners = carrier(self._among.replicas, self._among.count)
        self._mine = [shard for shard, rank in enumerate(self._owners) if rank == self._among.rank]
        starts = range(0, self._size, self._step)
        self._cuts = (
            [(first, min(first + self._step, self._size)) for first in starts]
            if self._elements and any(present)
            else []
        )
        self._pieces: list[_Piece] = []
        self._of_sum: dict[int, list[torch.Tensor]] = {shard: [] for shard in self._mine}
        for _ in self._cuts[:ahead]:
            self._send()

    def wait(self, out: torch.Tensor) -> Left:
        if not any(self._present):
            out.zero_()
            return Left()
        for number in range(len(self._cuts)):
            piece = self._pieces[number]
            if self._flight is not None:
                self._flight.order(piece.work)
            if len(self._pieces) < len(self._cuts):
                self._send()
            self._add(piece)
        if self._flight is not None:
            self._flight.wait()
        for piece in self._pieces:
            self._read(piece, out)
        if self._flight is not None:
            self._flight.confirm()
        if not self._feedback:
            return Left()
        carried = self._among.replicas[self._among.rank]
        of_sum = {shard: torch.cat(parts) for shard, parts in self._of_sum.items() if shard in carried and parts}
        return Left(self._given, of_sum)

    def drop(self) -> None:
        if self._flight is not None:
            self._flight.drop()

    def _spans(self, first: int, last: int) -> list[tuple[int, int]]:
        """Where a part of every shard lies: [first, last) of each."""
        starts = [shard * self._size for shard in range(self._among.count)]
        return [(min(at + first, self._elements), min(at + last, self._elements)) for at in starts]

    def _sizes(self, spans: list[tuple[int, int]], rank: int) -> list[int]:
        """Bytes of each message about a worker's shards."""
        return [
            self._codec.size(last - first)
            for (first, last), owner in zip(spans, self._owners, strict=True)
            if owner == rank
        ]

    def _send(self) -> None:
        """The next piece."""
        spans = self._spans(*self._cuts[len(self._pieces)])
        ranks = range(self._among.size)
        messages: list[torch.Tensor] = []
        for rank in ranks:
            for _, values in sorted(self._given.items()):
                for (first, last), owner in zip(spans, self._owners, strict=True):
                    if owner == rank:
                        messages.append(self._encoded(values[first:last]))
        sent = torch.cat(messages) if messages else torch.empty(0, dtype=torch.uint8, device=self._among.device)
        group, mine = self._among.group, self._among.rank
        if group is None or self._flight is None:
            self._pieces.append(_Piece(spans, None, sent))
            return
        to = [len(self._given) * sum(self._sizes(spans, rank)) for rank in ranks]
        of = [len(self._present[rank]) * sum(self._sizes(spans, mine)) for rank in ranks]
        came = torch.empty(sum(of), dtype=torch.uint8, device=self._among.there)
        work = self._flight.launch(group.all_to_all, came, sent.to(self._among.there), of, to)
        self._pieces.append(_Piece(spans, work, came))

    def _encoded(self, values: torch.Tensor) -> torch.Tensor:
        """A message; the values become what it leaves out."""
        message = self._codec.encode(values)
        if self._feedback:
            values.sub_(self._codec.decode(message, len(values)))
        return message

    def _add(self, piece: _Piece) -> None:
        """The sums of this worker's shards, encoded, go to all."""
        sizes = self._sizes(piece.spans, self._among.rank)
        replicas = [number for numbers in self._present for number in sorted(numbers)]
        parts = iter(piece.came.to(self._among.device).split(sizes * len(replicas)))
        messages = {(replica, shard): next(parts) for replica in replicas for shard in self._mine}
        found = plan((tuple(sorted(replicas)),), self._among.count)
        sums: list[torch.Tensor] = []
        for shard in self._mine:
            first, last = piece.spans[shard]
            stack: list[torch.Tensor] = []
            for replica, merges in zip(sorted(replicas), found.own[0].merges, strict=True):
                top = self._codec.decode(messages[replica, shard], last - first)
                for _ in range(merges):
                    top = stack.pop().add_(top)
                stack.append(top)
            total = stack[0]
            if self._feedback:
                begin, end = self._spans(0, self._size)[shard]
                left = self._before.of_sum.get(shard)
                if left is not None and len(left) == end - begin:
                    total.add_(left[first - begin : last - begin])
            sums.append(self._encoded(total))
            if self._feedback:
                self._of_sum[shard].append(total)
        device = self._among.device
        mine = torch.cat(sums) if sums else torch.empty(0, dtype=torch.uint8, device=device)
        if self._flight is None or self._among.group is None:
            piece.gathered = mine
            return
        room = max(sum(self._sizes(piece.spans, rank)) for rank in range(self._among.size))
        piece.gathered = torch.empty(room * self._among.size, dtype=torch.uint8, device=self._among.there)
        mine = pad(mine, (0, room - len(mine))).to(self._among.there)
        self._flight.launch(self._among.group.all_gather, piece.gathered, mine)

    def _read(self, piece: _Piece, out: torch.Tensor) -> None:
        assert piece.gathered is not None
        gathered = piece.gathered.to(self._among.device)
        for rank, part in enumerate(gathered.view(self._among.size, -1)):
            at = 0
            for (first, last), owner in zip(piece.spans, self._owners, strict=True):
                if owner == rank:
                    size = self._codec.size(last - first)
                    out[first:last] = self._codec.decode(part[at : at + size], last - first)
                    at += size
