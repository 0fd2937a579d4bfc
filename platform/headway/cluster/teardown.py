"""The end of a cluster: nothing is gone because it was told to go, but because the cloud lists it no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headway.cluster.market import Machine, Market, Refused

PATIENCE_S = 300.0
SETTLE_S = 3.0
"""A machine that was asked for in the last moment may not be listed at once: it is looked twice, so far apart."""
PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
_KIND, _HEAD = "ray-node-type", "head"


@dataclass(frozen=True)
class Left:
    """Args:
    machines: that the cloud still lists, those on their way out among them.
    trouble: why it could not be told, or done; "" where nothing stood in the way.
    """

    machines: tuple[Machine, ...] = ()
    trouble: str = ""

    @property
    def nothing(self) -> bool:
        """Whether it was seen that nothing is left."""
        return not self.machines and not self.trouble


def tear_down(
    market: Market,
    ours: Callable[[Machine], bool] = lambda machine: True,
    patience_s: float = PATIENCE_S,
    settle_s: float = SETTLE_S,
    say: Callable[[str], None] = lambda text: None,
) -> Left:
    """End all of a cluster's machines, the head first, since it buys others; wait until the cloud lists none.

    Args:
        market: of the cluster.
        ours: whether a machine that it lists is the cluster's.
        patience_s: for so long it is tried again, and waited.
        settle_s: see SETTLE_S.
        say: is told what goes on.
    """
    deadline, pause_s = time.monotonic() + patience_s, PAUSE_S
    left, trouble, empty_since = Left(), "", None
    while True:
        try:
            machines = tuple(each for each in market.machines() if ours(each))
            left, trouble = Left(machines), ""
            empty_since = None if machines else (empty_since or time.monotonic())
            _end(market, machines, say)
        except (Refused, OSError) as error:
            trouble, empty_since = str(error) or type(error).__name__, None
        now = time.monotonic()
        if empty_since is not None and now - empty_since >= settle_s:
            return Left()
        if now >= deadline:
            return Left(left.machines, trouble)
        time.sleep(min(pause_s, max(0.0, deadline - now)))
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def _end(market: Market, machines: Sequence[Machine], say: Callable[[str], None]) -> None:
    running = [each for each in machines if each.state != "stopping"]
    heads = [each.id for each in running if each.tags.get(_KIND) == _HEAD]
    for some in (heads, [each.id for each in running if each.id not in heads]):
        if some:
            market.terminate(some)
            say(f"told to end: {', '.join(some)}")
