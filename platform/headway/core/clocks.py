"""How far replicas that go on by themselves may be apart: stale synchronous parallel (Ho et al. 2013).

A replica's clock is the number of steps that it has done. It may begin the next one when the slowest of all is no more
than so many steps behind it: 0 is bulk synchronous, no limit is asynchronous.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Clocks:
    """Of the replicas that train.

    Args:
        ahead: steps that a replica may be ahead of the slowest; None: any number.
        members: those that count; the others' clocks are kept and ask for nobody's patience.
        done: steps that each has done, of those that have done some.

    Raises:
        ValueError: ahead < 0.
    """

    def __init__(self, ahead: int | None, members: Iterable[int] = (), done: Mapping[int, int] | None = None) -> None:
        if ahead is not None and ahead < 0:
            raise ValueError(f"{ahead} steps ahead")
        self.ahead, self.members, self.done = ahead, frozenset(members), dict(done or {})

    def of(self, replica: int) -> int:
        """Steps that it has done."""
        return self.done.get(replica, 0)

    @property
    def slowest(self) -> int:
        """Steps that all members have done; 0 without members."""
        return min((self.of(replica) for replica in self.members), default=0)

    def may_begin(self, step: int) -> bool:
        """Whether a member may begin a step: the one after `step` steps of its own."""
        return self.ahead is None or not self.members or step - self.slowest <= self.ahead

    def is_new(self, replica: int, step: int) -> bool:
        """Whether what a replica sends of a step was not taken yet: it may send it again when no answer came."""
        return step >= self.of(replica)

    def take(self, replica: int, step: int) -> None:
        """It has done this step (the first is 0)."""
        self.done[replica] = max(self.of(replica), step + 1)

    def consist_of(self, members: Iterable[int]) -> None:
        """From now on these count: who left holds nobody up, and who joins is where it was."""
        self.members = frozenset(members)


def share(age: int) -> float:
    """By what an update is multiplied that was reckoned by weights so many updates old: Zhang et al. 2016,
    staleness-aware asynchronous SGD. The newest and those one update old count in full."""
    return 1.0 / max(1, age)
