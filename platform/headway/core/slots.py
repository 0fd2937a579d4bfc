"""Where workers fit: the free room of nodes, kept so that "how many such workers fit in all" costs nothing to ask.

Nodes with the same room left are alike: they are kept in one bucket. A cluster of a thousand nodes has few buckets, and
few shapes of workers; the number of workers of a shape that fit is kept up to date as room is taken and given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headway.core.queued import Each

Room = tuple[float, float, float]
"""CPUs, GPUs, bytes."""

Places = list[tuple[int, int]]
"""(index of a node, workers)."""

MANY = 1_000_000
"""Workers that take nothing fit so often."""

TINY = 1e-6


def room(each: Each) -> Room:
    return (each.cpus, each.gpus, each.memory)


def less(room: Room, each: Each, workers: int) -> Room:
    """What is left of it; rounded, so that what is taken and given back comes out even."""
    return (
        round(room[0] - each.cpus * workers, 6),
        round(room[1] - each.gpus * workers, 6),
        round(room[2] - each.memory * workers, 0),
    )


def fit(room: Room, each: Each) -> int:
    """How many such workers fit."""
    found = MANY
    for there, one in zip(room, (each.cpus, each.gpus, each.memory), strict=True):
        if one > 0:
            found = min(found, int((there + TINY) / one)) if there > 0 else 0
    return found


class Slots:
    """Args:
    rooms: what each node has free, by its index. Below 0: more is on it than it has.
    """

    def __init__(self, rooms: Sequence[Room]) -> None:
        self.free = list(rooms)
        self._alike: dict[Room, dict[int, None]] = {}
        for node, free in enumerate(rooms):
            self._alike.setdefault(free, {})[node] = None
        self._fits: dict[Each, dict[Room, int]] = {}
        self._total: dict[Each, int] = {}

    def total(self, each: Each) -> int:
        """How many such workers fit in all."""
        if each not in self._total:
            self._fits[each] = {free: fit(free, each) for free in self._alike}
            self._total[each] = sum(self._fits[each][free] * len(nodes) for free, nodes in self._alike.items())
        return self._total[each]

    def fits(self, node: int, each: Each) -> int:
        """How many such workers fit on a node."""
        self.total(each)
        return self._fits_in(self.free[node], each)

    def pick(self, each: Each, workers: int) -> Places:
        """Where to put so many, on few nodes, and such that are filled by it; fewer where not all fit."""
        if self.total(each) < 1:
            return []
        found: Places = []
        best = None
        known = self._fits[each]
        levels = sorted((known[free], free) for free in self._alike if known[free] > 0)
        for fits, free in reversed(levels):
            if best is not None and fits < workers:
                break
            nodes = iter(self._alike[free])
            while workers >= fits and (node := next(nodes, None)) is not None:
                found.append((node, fits))
                workers -= fits
                if workers == 0:
                    return found
            if workers < fits and (node := next(nodes, None)) is not None:
                best = node
        return found if best is None else [*found, (best, workers)]

    def put(self, places: Iterable[tuple[int, int]], each: Each, sign: int = 1) -> None:
        """Workers come to nodes, or leave them (sign -1)."""
        for node, workers in places:
            before = self.free[node]
            after = less(before, each, sign * workers)
            self.free[node] = after
            alike = self._alike[before]
            del alike[node]
            if not alike:
                del self._alike[before]
            if after not in self._alike:
                self._alike[after] = {}
            self._alike[after][node] = None
            for shape in self._total:
                self._total[shape] += self._fits_in(after, shape) - self._fits_in(before, shape)

    def _fits_in(self, free: Room, each: Each) -> int:
        known = self._fits[each]
        found = known.get(free)
        if found is None:
            found = known[free] = fit(free, each)
        return found


class Layers:
    """The same nodes twice: as they will be once what is under way is through, and as they would be if every job had
    only its least. What fits the first disturbs nobody.

    Args:
        later, at_least: the rooms of both.
    """

    def __init__(self, later: Sequence[Room], at_least: Sequence[Room]) -> None:
        self.later, self.at_least = Slots(later), Slots(at_least)

    def take(self, each: Each, workers: int) -> Places | None:
        """Room for so many, where nobody is disturbed as far as there is such room; None, and nothing is taken, where
        not all fit."""
        if self.at_least.total(each) < workers:
            return None
        free = self.later.pick(each, workers)
        self.put(free, each)
        missing = workers - sum(count for _, count in free)
        if not missing:
            return free
        more = self.at_least.pick(each, missing)
        self.put(more, each)
        return free + more

    def put(self, places: Places, each: Each, sign: int = 1) -> None:
        self.later.put(places, each, sign)
        self.at_least.put(places, each, sign)
