"""Where workers fit: the free room of nodes, kept so that "how many such workers fit in all" costs nothing to ask.

Nodes with the same room left are alike: they are kept in one bucket. A cluster of a thousand nodes has few buckets, and
few shapes of workers; the number of workers of a shape that fit is kept up to date as room is taken and given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

Room = tuple[int, int, int]
"""CPUs and GPUs in parts of `PARTS`, and bytes: whole numbers, so that what is taken and given back comes out even."""

PARTS = 10_000

Places = list[tuple[int, int]]
"""(index of a node, workers)."""

MANY = 1_000_000
"""Workers that take nothing fit so often."""


class Takes(Protocol):
    """What one worker takes, or a node has."""

    @property
    def cpus(self) -> float: ...
    @property
    def gpus(self) -> float: ...
    @property
    def memory(self) -> float: ...


class Shape:
    """What one worker takes, for many questions: it is told apart by being itself, so that to look it up is quick."""

    __slots__ = ("cpus", "gpus", "memory")

    def __init__(self, each: Takes) -> None:
        self.cpus, self.gpus, self.memory = room(each)


def room(each: Takes) -> Room:
    """In whole numbers."""
    return (round(each.cpus * PARTS), round(each.gpus * PARTS), round(each.memory))


def less(room: Room, each: Shape, workers: int) -> Room:
    """What is left of it."""
    return (room[0] - each.cpus * workers, room[1] - each.gpus * workers, room[2] - each.memory * workers)


def fit(room: Room, each: Shape) -> int:
    """How many such workers fit."""
    found = MANY
    if each.cpus:
        found = room[0] // each.cpus
    if each.gpus and (other := room[1] // each.gpus) < found:
        found = other
    if each.memory and (other := room[2] // each.memory) < found:
        found = other
    return max(0, found)


class Slots:
    """Args:
    rooms: what each node has free, by its index. Below 0: more is on it than it has.
    """

    def __init__(self, rooms: Sequence[Room]) -> None:
        self.free = list(rooms)
        self._alike: dict[Room, dict[int, None]] = {}
        for node, free in enumerate(rooms):
            self._alike.setdefault(free, {})[node] = None
        self._shapes: list[Shape] = []
        self._number: dict[Shape, int] = {}
        self._totals: list[int] = []
        self._fits: dict[Room, list[int]] = {free: [] for free in self._alike}
        """By room, how many workers of each shape fit, in the order of `_shapes`."""

    def total(self, each: Shape) -> int:
        """How many such workers fit in all."""
        number = self._number.get(each)
        if number is None:
            number = self._number[each] = len(self._shapes)
            self._shapes.append(each)
            for free, fits in self._fits.items():
                fits.append(fit(free, each))
            self._totals.append(sum(self._fits[free][number] * len(nodes) for free, nodes in self._alike.items()))
        return self._totals[number]

    def fits(self, node: int, each: Shape) -> int:
        """How many such workers fit on a node."""
        self.total(each)
        return self._fits[self.free[node]][self._number[each]]

    def pick(self, each: Shape, workers: int) -> Places:
        """Where to put so many, on few nodes, and such that are filled by it; fewer where not all fit."""
        if self.total(each) < 1 or workers < 1:
            return []
        found: Places = []
        best = None
        number, known = self._number[each], self._fits
        levels = sorted((fits, free) for free in self._alike if (fits := known[free][number]) > 0)
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

    def put(self, places: Iterable[tuple[int, int]], each: Shape, sign: int = 1) -> None:
        """Workers come to nodes, or leave them (sign -1)."""
        rooms, known, totals = self._alike, self._fits, self._totals
        for node, workers in places:
            before = self.free[node]
            after = less(before, each, sign * workers)
            self.free[node] = after
            alike = rooms[before]
            del alike[node]
            if not alike:
                del rooms[before]
            if after in rooms:
                rooms[after][node] = None
            else:
                rooms[after] = {node: None}
            fits = known.get(after)
            if fits is None:
                fits = known[after] = [fit(after, shape) for shape in self._shapes]
            for number, (now, then) in enumerate(zip(known[before], fits, strict=True)):
                if now != then:
                    totals[number] += then - now


class Layers:
    """The same nodes twice: as they will be once what is under way is through, and as they would be if every job had
    only its least. What fits the first disturbs nobody.

    Args:
        later, at_least: the rooms of both.
    """

    def __init__(self, later: Sequence[Room], at_least: Sequence[Room]) -> None:
        self.later, self.at_least = Slots(later), Slots(at_least)

    def take(self, each: Shape, workers: int) -> Places | None:
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

    def put(self, places: Places, each: Shape, sign: int = 1) -> None:
        self.later.put(places, each, sign)
        self.at_least.put(places, each, sign)
