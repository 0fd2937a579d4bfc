"""How far replicas that go on by themselves may be apart: stale synchronous parallel (Ho et al. 2013), and the first k
of n (Chen et al. 2016).

A replica's clock is the number of steps that it has done. With `Clocks` it may begin the next one when the slowest of
all is no more than so many steps behind it: 0 is bulk synchronous, no limit is asynchronous. With `FirstOf` it may when
enough of all have done the one before.
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

    def took(self, replica: int, step: int) -> bool:
        """Whether what a replica sent of a step that is not new was taken: all that comes is."""
        return not self.is_new(replica, step)

    def take(self, replica: int, step: int) -> None:
        """It has done this step (the first is 0)."""
        self.done[replica] = max(self.of(replica), step + 1)

    def consist_of(self, members: Iterable[int]) -> None:
        """From now on these count: who left holds nobody up, and who joins is where it was."""
        self.members = frozenset(members)


class FirstOf:
    """A step is complete with what the first of the replicas sent of it; what comes of it afterwards is late, and is
    dropped: backup workers (Chen et al. 2016, Revisiting Distributed Synchronous SGD, algorithms 3 and 4).

    Args:
        needed: replicas with which a step is complete.
        step: that is under way: so many are complete.
        done: by replica, the step after the newest of which something of it was taken.

    Raises:
        ValueError: needed < 1.
    """

    def __init__(self, needed: int, step: int = 0, done: Mapping[int, int] | None = None) -> None:
        if needed < 1:
            raise ValueError(f"complete with {needed} replicas")
        self.needed, self.step, self.done = needed, step, dict(done or {})

    @property
    def came(self) -> frozenset[int]:
        """Replicas of which the step that is under way has something."""
        return frozenset(replica for replica, after in self.done.items() if after == self.step + 1)

    @property
    def completes(self) -> bool:
        """Whether the next that is taken is the last that the step waits for."""
        return len(self.came) + 1 >= self.needed

    def may_begin(self, step: int) -> bool:
        """Whether a replica may begin a step: all before it are complete."""
        return step <= self.step

    def is_new(self, replica: int, step: int) -> bool:
        """Whether what a replica sends of a step is to be taken: neither was it before, nor is the step complete."""
        return step == self.step and replica not in self.came

    def took(self, replica: int, step: int) -> bool:
        """Whether what a replica sent of a step that is not new was taken, and is now sent again; else it is late. A
        replica sends its steps one after another."""
        return self.done.get(replica) == step + 1

    def take(self, replica: int, step: int) -> None:
        """It has done the step that is under way."""
        completes = self.completes
        self.done[replica] = step + 1
        self.step += completes

    def consist_of(self, members: Iterable[int]) -> None:
        """Nothing changes: as many are needed, whoever they are."""


def share(age: int) -> float:
    """By what an update is multiplied that was reckoned by weights so many updates old: Zhang et al. 2016,
    staleness-aware asynchronous SGD. The newest and those one update old count in full."""
    return 1.0 / max(1, age)
