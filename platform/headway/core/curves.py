"""The curves of one run on their way to a store that takes points one by one and gives none back.

They become rarer as a curve grows, and no extreme is lost (`headway.core.thinning.Stream`); each keeps its time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from headway.core.thinning import Stream

POINTS = 512
"""See `Stream`: a curve of a million steps, of which every tenth may be a point, has some 5,000."""

MOST_TIMES = 16
"""Of points that are held back no more, before they are forgotten."""

Point = tuple[int, float, float]
"""Step, Unix seconds, value."""


@dataclass
class _Curve:
    stream: Stream
    times: dict[int, float] = field(default_factory=dict)
    """Of the points that the stream holds."""
    seen: int = -1
    odd: bool = False
    """Whether there was one that is no finite number."""

    def points(self, given: list[tuple[int, float]]) -> list[Point]:
        return [(step, self.times[step], value) for step, value in given]


class Curves:
    """By name.

    Args:
        every: steps that a point stands for at least, where they come close together.
        last: by name, the newest step of which a start before has given a point.
    """

    def __init__(self, every: int = 1, last: dict[str, int] | None = None) -> None:
        self._every, self._last = every, last or {}
        self._curves: dict[str, _Curve] = {}

    def add(self, name: str, step: int, at: float, value: float) -> list[Point]:
        """Another value; returns the points to be written now, whose steps rise.

        A step that comes again does so after a rewind: what was held back of it and of later ones is forgotten, what
        was given stays as it is. Of values that are no finite numbers only the first is given.
        """
        curve = self._curves.get(name)
        if curve is None:
            stream = Stream(POINTS, last=self._last.get(name, -1), least=self._every)
            curve = self._curves[name] = _Curve(stream)
        if step <= curve.seen:
            curve.stream.rewind(step)
        curve.seen = step
        if not math.isfinite(value):
            first, curve.odd = not curve.odd, True
            return [(step, at, value)] if first else []
        curve.times[step] = at
        found = curve.points(curve.stream.add(step, value))
        if len(curve.times) > MOST_TIMES:
            curve.times = {step: curve.times[step] for step, _ in curve.stream.held}
        return found

    def held(self) -> dict[str, list[Point]]:
        """What is held back, and the newest value, of each: whoever adds it to others goes on as this would."""
        found = {name: curve.points(curve.stream.held) for name, curve in self._curves.items()}
        return {name: sorted(set(points)) for name, points in found.items() if points}

    def rest(self) -> Iterator[tuple[str, Point]]:
        """What was held back, and the newest value of each: at the end."""
        for name, curve in self._curves.items():
            for point in curve.points(curve.stream.flush(newest=True)):
                yield name, point
