"""What a run can still do with more workers, from what was seen of it so far. No clock is read here."""

from __future__ import annotations

from collections import deque

from headway.core import demand
from headway.core.demand import Outlook, Worth
from headway.core.membership import FINISHED, LEAVING, MEMBER, READY, WARMING, Membership

COME_S, WARM_S = 60.0, 10.0
"""That a machine takes to come, and a worker on it to be ready, until one has shown it."""
STEPS, SECONDS = 3, 1.0
"""A pace is known after so many steps, and so long."""
SEVERAL, LATEST = 3, 20
"""So many machines show how long it may take, and the latest count."""


class Prospect:
    """See the module. Times are in seconds on one clock.

    Args:
        at_once: so many workers are asked for whether or not it pays.
        total_steps: of the run; 0 where that is not known.
    """

    def __init__(self, at_once: int, total_steps: int = 0) -> None:
        self.at_once, self._total = at_once, total_steps
        self._come_s: float | None = None
        self._warm_s: float | None = None
        self._ways: tuple[deque[float], deque[float]] = deque(maxlen=LATEST), deque(maxlen=LATEST)
        """What the latest took to come, and to be ready."""
        self._asked = 0
        self._generation, self._seen = 0, (0, 0.0)
        """The newest that was looked at, and its newest step: its number, and when it was new."""
        self._first: tuple[int, float] | None = None
        """Likewise the first step of it that was seen to end."""

    def came(self, seconds: float, refused: bool = False) -> None:
        """A machine came, so long after it was asked for. refused: meanwhile there was none to be had."""
        self._come_s = min(seconds, self._come_s or seconds)
        if not refused:
            self._ways[0].append(seconds)

    def warmed(self, seconds: float) -> None:
        """A worker was ready so long after it had a place."""
        self._warm_s = seconds
        self._ways[1].append(seconds)

    @property
    def come_s(self) -> float:
        """Seconds from asking for a machine until a worker on it trains. The shortest way counts: others were waited
        for because there were none to be had."""
        return (self._come_s or COME_S) + (self._warm_s or WARM_S)

    @property
    def longest_s(self) -> float:
        """Likewise, where nothing may depend on luck: the longest way of the latest counts, and while few were seen
        none is shorter than what is taken where nobody has shown it."""
        ways = zip(self._ways, (COME_S, WARM_S), strict=True)
        return sum(max(seen) if len(seen) >= SEVERAL else max([usual, *seen]) for seen, usual in ways)

    def look(self, membership: Membership, step: int, now: float, most: int | None = None) -> Worth:
        """How many workers are worth asking for.

        Args:
            step: that the foremost worker is at.
            most: workers that are wanted at most; as many as the membership's policy says where not given.
        """
        policy, active = membership.policy, membership.active
        training = len(active.members) if active is not None else 0
        outlook = Outlook(
            lanes=policy.lanes,
            at_once=self.at_once,
            most=policy.max if most is None else most,
            training=training,
            there=there(membership),
            asked=self._asked,
            rest_s=self._rest_s(active.number, step, now) if active is not None else None,
            come_s=self.come_s,
        )
        found = demand.worth(outlook)
        self._asked = found.workers
        return found

    def _rest_s(self, generation: int, step: int, now: float) -> float | None:
        """Seconds that the steps left take at this generation's pace, once that is known."""
        if self._generation != generation:
            self._generation, self._seen, self._first = generation, (step, now), None
        elif step > self._seen[0]:  # only then is it known when one ended
            self._seen = step, now
            self._first = self._first or self._seen
        if self._first is None:
            return None
        steps, seconds = self._seen[0] - self._first[0], self._seen[1] - self._first[1]
        if steps < STEPS or seconds < SECONDS:
            return None
        return seconds / steps * max(0, self._total - step) if self._total else demand.ENDLESS_S


def there(membership: Membership) -> int:
    """Workers that have a place, and stay."""
    return sum(worker.phase in (WARMING, READY, MEMBER) for worker in membership.workers.values())


def on_their_way_out(membership: Membership) -> int:
    """Workers that have a place, and do not stay."""
    return sum(worker.phase in (LEAVING, FINISHED) for worker in membership.workers.values())
