"""Every replica's numbers in their encoded form, given to all: where it is a small part that is sent."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from headway.strategies.compress.top_k import TopK
from headway.strategies.compress.ways import Among, Left, Tensors
from headway.strategies.flight import Flight
from headway.strategies.totals import Replicas


class Gathered:
    """See `headway.strategies.compress.ways.Way`. Replicas are added one after another, in the order of their numbers.

    Args:
        codec: for the numbers; it may be another in each exchange, the same on all workers.
        elements: of the tensor.
        among: whom.
        feedback: whether what is left out is told.
    """

    def __init__(self, codec: TopK, elements: int, among: Among, feedback: bool) -> None:
        self.codec, self._elements, self._among, self._feedback = codec, elements, among, feedback
        self.sent: Tensors = {}
        """Of what was given last, the places of what is sent: int64, ascending."""
        self._flight = Flight(among.group) if among.group is not None else None

    @property
    def message_bytes(self) -> int:
        return self.codec.size(self._elements)

    def shard(self, number: int) -> int:
        return 0  # the sum leaves nothing out

    def start(self, given: Tensors, present: Replicas, before: Left, ahead: int | None) -> None:
        self._given, self._present = given, present
        size, device = self.message_bytes, self._among.device
        messages = [self._encoded(number, values) for number, values in sorted(given.items())]
        mine = torch.cat(messages) if messages else torch.empty(0, dtype=torch.uint8, device=device)
        self._most = most = max(len(numbers) for numbers in present)
        if self._flight is None or self._among.group is None:
            self._found = mine
            return
        mine = pad(mine, (0, most * size - len(mine))).to(self._among.there)
        self._found = torch.empty(most * size * self._among.size, dtype=torch.uint8, device=self._among.there)
        self._flight.launch(self._among.group.all_gather, self._found, mine)

    def wait(self, out: torch.Tensor) -> Left:
        if self._flight is not None:
            self._flight.wait()
        size = self.message_bytes
        rows = self._found.to(self._among.device).unflatten(0, (self._among.size, self._most * size))
        of = {
            number: row[at * size : (at + 1) * size]
            for numbers, row in zip(self._present, rows, strict=True)
            for at, number in enumerate(sorted(numbers))
        }
        out.zero_()
        for _, message in sorted(of.items()):
            self.codec.add(message, out)
        if self._flight is not None:
            self._flight.confirm()
        return Left(self._given) if self._feedback else Left()

    def drop(self) -> None:
        if self._flight is not None:
            self._flight.drop()

    def _encoded(self, number: int, values: torch.Tensor) -> torch.Tensor:
        """A message; the values become what it leaves out."""
        message = self.codec.encode(values)
        if self._feedback:
            self.sent[number] = self.codec.said(message, len(values))[0]
            values[self.sent[number]] = 0.0
        return message
