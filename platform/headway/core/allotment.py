"""Who of the runs that are under way has how many workers: pure arithmetic.

A run's step takes as long as its worker with the most lanes, so only some numbers of workers make it shorter
(`headway.core.demand.sizes`); the others are nobody's. Every run has its least before any has more. What is left goes

- best first: to the best run so much that it is as fast as it can be, then to the next best. Towards a deadline each
  has first, in this order, just so much that it is through by then;
- even: to the one that has the fewest;
- by price: only as long as no worker is idle while another has a lane more to do. The rest is not held.

A change stops a run for a moment. Workers that are free are handed out whenever that pays for the moment; they are
taken from one to be given to another only where somebody has less than its least, or where it pays many times over: the
order of two runs that are nearly equal changes with each of their evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Literal

from headway.core.demand import sizes

Rule = Literal["best_first", "even", "by_price"]

MOVING_PAYS = 10.0
"""What is gained by taking workers from one run for another, at least, as a multiple of what it stops them for."""


@dataclass(frozen=True)
class Running:
    """A run that is under way.

    Args:
        run: its name.
        lanes: among which its workers share a step.
        least, most: workers that it may have, by its job.
        has: workers that it has; 0: it waits for its first.
        rank: its place among those under way, the best 0; None: it has shown nothing yet.
        rest_s: seconds until its gate on those that it has; None where that is not known.
    """

    run: str
    lanes: int
    least: int
    most: int
    has: int = 0
    rank: int | None = None
    rest_s: float | None = None

    def after_s(self, workers: int) -> float | None:
        """Seconds until its gate on so many."""
        if self.rest_s is None or self.has < 1:
            return None
        return self.rest_s * -(-self.lanes // workers) / -(-self.lanes // self.has)


@dataclass(frozen=True)
class Allotment:
    """Args:
    workers: by run; 0: it waits.
    idle: workers of whom nobody has a use.
    reasons: why, by run, for people.
    """

    workers: dict[str, int]
    idle: int
    reasons: dict[str, str]


def at_once(workers: int, least: int) -> int:
    """How many runs of at least so many workers are under way on `workers`. One where there is not even room for it: it
    begins when there is."""
    return max(1, workers // least)


def useful(runs: Iterable[Running], rule: Rule = "best_first") -> int:
    """How many workers all of them together have a use for: what is worth holding once nothing new begins."""
    return sum(_sizes(run, rule)[-1] for run in runs)


def allot(
    runs: Sequence[Running], workers: int, rule: Rule, left_s: float | None = None, settle_s: float = 0.5
) -> Allotment:
    """Hands `workers` out.

    Args:
        left_s: seconds until the deadline; None: there is none.
        settle_s: seconds for which a change of its workers stops a run.
    """
    order = sorted(runs, key=_place)
    beyond = workers
    there: list[Running] = []
    for run in sorted(order, key=lambda run: run.has == 0):  # who works goes before who waits
        if run.least <= beyond:
            there.append(run)
            beyond -= run.least
    there.sort(key=_place)
    fresh = _handed({run.run: run.least for run in there}, there, workers, rule, left_s)
    calm = _handed(_kept(there, workers, rule), there, workers, rule, left_s, settle_s)
    calm = _held(calm, there, workers)
    chosen = fresh if _pays(there, calm, fresh, settle_s) else calm
    found = {run.run: chosen.get(run.run, 0) for run in runs}
    idle = workers - sum(found.values())
    return Allotment(found, idle, {run.run: _why(run, found[run.run], idle, rule) for run in runs})


def _place(run: Running) -> tuple[bool, int, str]:
    return (run.rank is None, run.rank or 0, run.run)


def _sizes(run: Running, rule: Rule) -> list[int]:
    """Numbers of workers worth having, the least among them."""
    found = [size for size in sizes(run.lanes, run.most) if size > run.least]
    if rule == "by_price":
        found = [size for size in found if run.lanes % size == 0]
    return [run.least, *found]


def _at_most(run: Running, workers: int, rule: Rule) -> int:
    return max(size for size in _sizes(run, rule) if size <= max(run.least, workers))


def _kept(there: list[Running], workers: int, rule: Rule) -> dict[str, int]:
    """Who has how many if as little as possible changes: each what it has a use for, or its least; what is too much is
    taken from the last, or of those that have the most."""
    found = {run.run: _at_most(run, run.has, rule) for run in there}
    while sum(found.values()) > workers:
        above = [run for run in there if found[run.run] > run.least]
        last = above[-1] if rule == "best_first" else max(reversed(above), key=lambda run: found[run.run])
        found[last.run] = _at_most(last, found[last.run] - 1, rule)
    return found


def _handed(
    found: dict[str, int], there: list[Running], workers: int, rule: Rule, left_s: float | None, settle_s: float = 0.0
) -> dict[str, int]:
    """What is left over `found`, handed out by the rule, where it makes a run shorter by more than it stops it."""
    found = dict(found)
    free = workers - sum(found.values())
    worth = {run.run: _sizes(run, rule) for run in there}

    def larger(run: Running) -> list[int]:
        now = found[run.run]
        return [
            size
            for size in worth[run.run]
            if now < size <= now + free and (size <= run.has or _sooner(run, max(now, run.has), size, settle_s))
        ]

    if rule == "best_first":
        for enough in ([_in_time(left_s)] if left_s is not None else []) + [_as_fast_as_can_be]:
            for run in there:
                now = found[run.run]
                found[run.run] = enough(run, [now, *larger(run)])
                free -= found[run.run] - now
        return found
    smallest = [(found[run.run], place) for place, run in enumerate(there)]
    heapify(smallest)
    while smallest:  # one for which there are too few is out of it: there will never be more
        now, place = heappop(smallest)
        if more := larger(there[place]):
            found[there[place].run] = more[0]
            free -= more[0] - now
            heappush(smallest, (more[0], place))
    return found


def _in_time(left_s: float) -> Callable[[Running, list[int]], int]:
    """The fewest workers with which it is through by then; those that it has where none are enough, or nobody knows."""

    def enough(run: Running, choices: list[int]) -> int:
        return next((size for size in choices if (run.after_s(size) or math.inf) <= left_s), choices[0])

    return enough


def _as_fast_as_can_be(run: Running, choices: list[int]) -> int:
    return choices[-1]


def _sooner(run: Running, now: int, then: int, settle_s: float) -> bool:
    """Whether more workers pay for the moment of their coming. Nobody knows: they do."""
    before, after = run.after_s(now), run.after_s(then)
    return before is None or after is None or run.has < 1 or before - after > settle_s


def _held(found: dict[str, int], there: list[Running], workers: int) -> dict[str, int]:
    """Nobody has a use for what would be left: it stays where it is, since to take it away stops a run."""
    left = workers - sum(found.values())
    held = dict(found)
    for run in there:
        kept = min(run.has, run.most) - found[run.run]
        if 0 < kept <= left:
            held[run.run] += kept
            left -= kept
    return held


def _pays(there: list[Running], calm: dict[str, int], fresh: dict[str, int], settle_s: float) -> bool:
    """Whether what the rule would do from nothing is worth moving workers that work."""
    gained = 0.0
    for run in there:
        before, after = run.after_s(calm[run.run]), run.after_s(fresh[run.run])
        if before is not None and after is not None and run.rank is not None:
            gained = max(gained, before - after)
    stopped = sum(fresh[run.run] != calm[run.run] for run in there if run.has)
    return stopped > 0 and gained > MOVING_PAYS * settle_s * stopped


def _next(run: Running, workers: int, rule: Rule) -> int | None:
    return next((size for size in _sizes(run, rule) if size > workers), None)


def _why(run: Running, workers: int, idle: int, rule: Rule) -> str:
    if workers < run.least:
        return f"waits for {run.least} workers" if run.least > 1 else "waits for a worker"
    if workers >= run.most:
        return "as many as its job allows"
    if _next(run, workers, "best_first") is None:
        return f"more are no faster with {run.lanes} lanes"
    wanted = _next(run, workers, rule)
    if wanted is None:
        return f"some of more would be idle, with {run.lanes} lanes"
    if idle:
        return f"it has a use for {wanted}, not for fewer"
    return {"best_first": "better ones come first", "even": "as many as the others", "by_price": "all are taken"}[rule]
