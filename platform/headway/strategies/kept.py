"""What a strategy keeps from step to step, beside weights and optimiser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Tree = dict[str, Any]
"""Of tensors and plain values (see `plain.pack`)."""


@dataclass
class Kept:
    """A strategy reads and writes it; the engine sees to it that it is there: in checkpoints, on workers that join, and
    where a replica moves. It is changed only when a step's update is applied (`Strategy.commit`).

    Args:
        common: the same on all workers.
        own: of the replicas (or ranges) that this worker carries, by number; it moves with them. What a worker that is
            lost without notice had is gone with it, see `backups`.
        backups: copies of others' own, by number, where a strategy sends them.
        doubtful: what own and backups would be, by number, after an update that was under way when a worker was lost.
            Some of the others may have applied it.
    """

    common: Tree = field(default_factory=dict)
    own: dict[int, Tree] = field(default_factory=dict)
    backups: dict[int, Tree] = field(default_factory=dict)
    doubtful: dict[int, Tree] = field(default_factory=dict)

    def carry(self, numbers: Iterable[int]) -> None:
        """From now on these are carried here: an empty tree of those that are new, and nothing of others."""
        self.own = {number: self.own.get(number, {}) for number in numbers}
