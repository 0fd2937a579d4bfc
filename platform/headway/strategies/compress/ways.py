"""How compressed numbers are exchanged: what each of `exchange.Exchange`'s ways does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from headway.strategies.group import Group
from headway.strategies.totals import Replicas

Tensors = dict[int, torch.Tensor]
"""By number of a replica."""


@dataclass(frozen=True)
class Among:
    """Between whom.

    Args:
        group: of the workers; None for one alone.
        replicas: that each carries, by rank.
        count: of the run's replicas.
        device: where the numbers are.
    """

    group: Group | None
    replicas: Replicas
    count: int
    device: torch.device

    @property
    def rank(self) -> int:
        return self.group.rank if self.group is not None else 0

    @property
    def size(self) -> int:
        return self.group.size if self.group is not None else 1

    @property
    def there(self) -> torch.device:
        """Where the exchange happens."""
        if self.group is None or self.group.device.type == self.device.type:
            return self.device
        return self.group.device


@dataclass
class Left:
    """What was left out of an exchange, by number of the replica that is to send it later.

    Args:
        own: of what the replica brought: float32, flat, as large as that.
        of_sum: of the sum of its shard.
        common: what the next exchange begins with, the same on all workers.
    """

    own: Tensors = field(default_factory=dict)
    of_sum: Tensors = field(default_factory=dict)
    common: list[torch.Tensor] = field(default_factory=list)


class Way(Protocol):
    """Of adding up flat float32 tensors, one of each replica."""

    def start(self, given: Tensors, present: Replicas, before: Left, ahead: int | None) -> None:
        """Begin. Raises nothing: `wait` does.

        Args:
            given: of the replicas carried here that take part; overwritten.
            present: those that take part, by rank.
            before: what the last exchange left, where it is to be sent: `given` has its part in it already.
            ahead: messages under way at most; None: all.
        """

    def wait(self, out: torch.Tensor) -> Left:
        """The sum, complete, on every worker the same bits; and what was left out of it.

        Raises:
            PeerLost: a worker went away.
        """

    def drop(self) -> None:
        """Break it off, and the group with it, if it is under way."""

    def shard(self, number: int) -> int:
        """The first element of the shard whose sum leaves something out with a replica."""

    @property
    def message_bytes(self) -> int:
        """What stands for one replica's numbers."""


def carrier(replicas: Replicas, count: int) -> list[int]:
    """The rank that adds up each shard: whoever carries the replica of its number, or the next that is carried."""
    of = {number: rank for rank, numbers in enumerate(replicas) for number in numbers}
    return [next(of[n % count] for n in range(shard, shard + count) if n % count in of) for shard in range(count)]
