"""How many workers are worth asking for on a cluster that buys machines for whoever waits: pure arithmetic.

A step of a run takes as long as the worker with the most lanes, so it becomes shorter only where ceil(lanes / workers)
falls: 8 lanes are no faster on 5, 6 or 7 workers than on 4. A machine takes time to come, and costs meanwhile. More are
worth their cost as long as an hour that the run ends sooner costs no more than an hour of the run as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

ENDLESS_S = 1e12
"""What is left of a run whose end is not known."""


@dataclass(frozen=True)
class Outlook:
    """What is known of a run at one moment.

    Args:
        lanes: of the run.
        at_once: so many are asked for whether or not it pays.
        most: workers that are wanted at most.
        training: workers that train now.
        there: workers that have a place, these among them.
        asked: workers that were held to be worth it before, those that are there among them.
        rest_s: seconds that the rest of the run takes on those that train now; None while no step was measured.
        come_s: seconds from asking for a machine until a worker on it trains.
        price: of a machine that would come, as a multiple of what one of those that are there costs.
    """

    lanes: int
    at_once: int
    most: int
    training: int
    there: int
    asked: int
    rest_s: float | None
    come_s: float
    price: float = 1.0


@dataclass(frozen=True)
class Worth:
    """So many workers are worth asking for, those that are there among them; and why not more, or fewer."""

    workers: int
    reason: str


def sizes(lanes: int, most: int) -> tuple[int, ...]:
    """Numbers of workers at which a step becomes shorter, up to `most`: (1, 2, 3, 4, 8) of 8 lanes.

    Raises:
        ValueError: there are no lanes, or no workers.
    """
    if min(lanes, most) < 1:
        raise ValueError(f"{lanes} lanes on {most} workers")
    found = [1]
    while found[-1] < lanes:
        longest = -(-lanes // found[-1])  # lanes of the slowest
        found.append(-(-lanes // (longest - 1)))
    return tuple(size for size in found if size <= most)


def fastest(lanes: int, most: int) -> int:
    """Fewest workers that are as fast as `most` of them."""
    return sizes(lanes, most)[-1]


def pays(outlook: Outlook, workers: int) -> bool:
    """Whether it is worth its cost to go from those that train now to so many."""
    rest_s, now = outlook.rest_s, outlook.training
    if rest_s is None or now < 1 or outlook.come_s >= rest_s:
        return False
    shorter = -(-outlook.lanes // workers) / -(-outlook.lanes // now)
    after_s = (rest_s - outlook.come_s) * shorter
    sooner_s = rest_s - outlook.come_s - after_s
    more = (workers - now) * outlook.price * (outlook.come_s + after_s) - now * sooner_s  # worker-seconds
    return sooner_s > 0 and more <= now * sooner_s


def worth(outlook: Outlook) -> Worth:
    """How many workers to ask for."""
    least = min(outlook.at_once, outlook.most)
    if least >= outlook.most:
        return Worth(least, "so many are asked for at once")
    top = max(least, fastest(outlook.lanes, outlook.most))
    if outlook.rest_s is None or outlook.training < 1:
        held = max(least, min(top, max(outlook.asked, outlook.there)))
        return Worth(held, "more are asked for once it is known how long a step takes")
    better = [size for size in sizes(outlook.lanes, top) if size > outlook.training and pays(outlook, size)]
    held = min(top, outlook.asked) if outlook.rest_s > outlook.come_s else 0
    chosen = max(least, held, better[-1] if better else 0, min(top, outlook.there))
    return Worth(chosen, _why(outlook, chosen, top))


def _why(outlook: Outlook, chosen: int, top: int) -> str:
    if chosen >= outlook.most:
        return "as many as are wanted are worth it"
    if chosen >= top:
        return f"more than {top} workers are no faster with {outlook.lanes} lanes"
    left = f"{outlook.rest_s:.0f} s are left" if outlook.rest_s is not None else ""
    dearer = f", at {outlook.price:.1f} times the price" if outlook.price > 1.0 else ""
    return f"more would not pay: {left}, and a machine takes {outlook.come_s:.0f} s to come{dearer}"
