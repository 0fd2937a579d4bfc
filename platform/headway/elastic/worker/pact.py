"""One generation, as one of its workers sees it: who is in, what it carries, and everything that is exchanged.

What an exchange returns is known to be complete, on every backend; else it raises PeerLost, and nothing of it was used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from headway.elastic.worker import transfer
from headway.strategies import PeerLost, Strategy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from headway.strategies.group import Group


class Watched(Protocol):
    """What a pact tells, and asks, of the line to the lead."""

    @property
    def broken(self) -> bool:
        """Whether a member is gone."""

    def waits(self, waiting: bool) -> None:
        """The training thread waits for the others, or does so no more."""

    def may_commit(self, alone: bool) -> None:
        """Returns when a step may be committed; raises Dismissed or PeerLost if it may not."""


class Pact:
    """See the module.

    Args:
        generation: its number.
        rank: of this worker.
        names: of the members, in order of rank.
        lanes: that this worker carries.
        group: of the members; None for one alone.
        line: to the lead.
    """

    def __init__(
        self,
        generation: int,
        rank: int,
        names: tuple[str, ...],
        lanes: tuple[int, ...],
        group: Group | None,
        line: Watched,
    ) -> None:
        self.generation, self.rank, self.names, self.lanes = generation, rank, names, lanes
        self.units = lanes
        """What membership moves: lanes, or replicas of several."""
        self.group, self._line = group, line
        self._strategies: dict[str, tuple[Strategy, list[int], tuple[int, ...]]] = {}
        self._in_use = ""

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.names)

    @property
    def strategy(self) -> Strategy:
        """In use, after `use`."""
        return self._strategies[self._in_use][0]

    def use(
        self,
        parameters: Sequence[nn.Parameter],
        make: Callable[[Group | None], Strategy],
        sizes: tuple[int, ...] = (),
        update: str = "",
    ) -> None:
        """Have a strategy for just these parameters, and what rides on their exchange: a new one where the user froze
        some or let them go, or where more is to ride. Each of several updates has one, for parameters of its own."""
        known, wanted = self._strategies.pop(update, None), [id(p) for p in parameters]
        self._in_use = update
        if known is not None and known[1:] != (wanted, sizes):
            known[0].close()
            known = None
        self._strategies[update] = known or (make(self.group), wanted, sizes)

    def serves(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether the strategy in use is for just these."""
        return [id(p) for p in parameters] == self._strategies[self._in_use][1]

    def check(self) -> None:
        """Raises PeerLost where it is known that a member is gone. Before the first generation there are none: who
        rehearses needs nobody, whoever leaves meanwhile."""
        if self.generation and self._line.broken:
            raise PeerLost("a member is gone")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around whatever needs the others."""
        self._line.waits(True)
        try:
            yield
        finally:
            self._line.waits(False)

    def sum(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The step's sums; see `Strategy.finish`. They may be committed.

        Raises:
            PeerLost: a member is gone; nothing may be applied.
            Dismissed: the run goes on without this worker.
        """
        with self.waiting():
            summed, changes = self.strategy.finish(tail)
            self._line.may_commit(self.size == 1)
        return summed, changes

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the members. Raises PeerLost."""
        if self.group is None:
            return tensor
        with self.waiting():
            return self.group.total(tensor)

    def gather(self, value: Any) -> list[Any]:
        """Every member's value by rank. Raises PeerLost."""
        if self.group is None:
            return [value]
        with self.waiting():
            return self.group.gather(value)

    def agree(self, value: Any) -> list[Any]:
        """Every member's value by rank, when a step's sums are there; what is made of them may be committed.

        Raises:
            PeerLost, Dismissed: as of `sum`.
        """
        found = self.gather(value)
        with self.waiting():
            self._line.may_commit(self.size == 1)
        return found

    def seal(self) -> None:
        """All have come here: what they exchanged before may be committed.

        Raises:
            PeerLost, Dismissed: as of `sum`.
        """
        with self.waiting():
            if self.group is not None:
                self.group.barrier()
            self._line.may_commit(self.size == 1)

    def give(self, tree: Any, receivers: Sequence[int]) -> None:
        """Hand a tree of tensors and plain values to others. Raises PeerLost."""
        assert self.group is not None
        with self.waiting():
            transfer.send(self.group, tree, receivers)

    def take(self, source: int, receivers: Sequence[int], into: Any) -> Any:
        """The tree that another gives; tensors that `into` has in the same places are filled. Raises PeerLost."""
        assert self.group is not None
        with self.waiting():
            return transfer.receive(self.group, source, receivers, into)

    def collect(self, tree: Any) -> list[Any]:
        """Every member's tree of tensors and plain values, by rank, at rank 0; nothing on others. Raises PeerLost."""
        for rank in range(1, self.size):
            if self.rank == rank:
                self.give(tree, [0])
        return [tree, *(self.take(rank, [0], None) for rank in range(1, self.size))] if self.rank == 0 else []

    def barrier(self) -> None:
        """Wait for all. Raises PeerLost."""
        if self.group is not None:
            with self.waiting():
                self.group.barrier()

    def close(self) -> None:
        """Leave: what is under way is broken off, and others that wait in it go free."""
        self._let_go()
        if self.group is not None:
            self.group.close()

    def _let_go(self) -> None:
        for strategy, _, _ in self._strategies.values():
            strategy.close()
        self._strategies = {}
