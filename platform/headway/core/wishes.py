"""Which market runs wish their workers' machines to be of: how a run's policy reaches whoever buys for it.

Ray's autoscaler asks for a machine of a node type, and knows no markets. A run leaves its wish with the cluster; the
provider (`headway.cluster.provider`) asks, when it buys, which market is short of what is wished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from headway.core.offers import fit

KEYS = b"wish:"
"""What their keys begin with in Ray's internal store, in the namespace of `headway.core.news`: a run's name follows."""
LASTS_S = 90.0
"""A wish that was not said again for so long counts no more: its run is gone."""
EACH_S = 15.0
"""It is said again after so long."""


@dataclass(frozen=True)
class Wish:
    """Of one run.

    Args:
        run: whose.
        each: what a worker takes, by Ray's names.
        on_demand, spot: so many workers are wished on machines of each market, those that are there among them; none of
            either of a run to which it is all the same.
        speeds: what types of machines have shown themselves to be worth, see `headway.core.kinds`.
        at: Unix seconds when it was said.
        why: in words.
    """

    run: str
    each: Mapping[str, float] = field(default_factory=dict)
    on_demand: int = 0
    spot: int = 0
    speeds: Mapping[str, float] = field(default_factory=dict)
    at: float = 0.0
    why: str = ""

    def encode(self) -> bytes:
        """For `decode`."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(data: bytes | None) -> Wish | None:
        """What was encoded; None where it cannot be read."""
        try:
            return Wish(**json.loads(data or b""))
        except (ValueError, TypeError):
            return None

    def holds(self, now: float) -> bool:
        """Whether it was said of late."""
        return now - self.at < LASTS_S


def market(wishes: Iterable[Wish], has: Mapping[str, float], there: Sequence[bool], now: float) -> bool | None:
    """Of which market a machine of a node type is wished next.

    Args:
        wishes: of all runs; those of the past count no more.
        has: what Ray gives out on such a machine.
        there: of the machines of the type that there are, or that are on their way, whether each is a spot machine.
        now: Unix seconds.

    Returns:
        True: spot; False: on demand; None: it is all the same. One that nobody is short of is for a worker that leaves
        (its machine may be told of as one that stays), and of the market that it would be short of; unless it may be
        for a run that has no wish.
    """
    on_demand = spot = 0
    said = [wish for wish in wishes if wish.holds(now)]
    for wish in said:
        room = fit(has, wish.each)
        if room:
            on_demand += -(-wish.on_demand // room)
            spot += -(-wish.spot // room)
    if there.count(False) < on_demand:
        return False
    if there.count(True) < spot:
        return True
    if not on_demand + spot or not all(wish.on_demand + wish.spot for wish in said):
        return None
    return spot > 0
