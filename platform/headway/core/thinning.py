"""Curves of any length in a few thousand points, with the lowest and the highest of what lies between them kept.

Taking every hundredth point hides the spike that somebody looks for. Here a stretch of a curve is told by its lowest
and its highest point, both where they were.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 256
"""Of a curve of unknown length, between two doublings of its length."""

LOOK_S = 2.0
"""Between two looks at what only grows; and longer as there is more behind them."""
LOOKS = 250

Point = tuple[int, float]
"""Step and value."""


def kept(values: NDArray[Any], limit: int) -> NDArray[np.int64]:
    """Which points of a whole curve are kept.

    Args:
        values: float[points], in order; those that are not numbers are kept only where a stretch has no others.
        limit: so many at most; 4 or more.

    Returns:
        int64[at most limit], rising; the first and the last point are among them.
    """
    if len(values) <= limit:
        return np.arange(len(values))
    stretches = (limit - 2) // 2
    width = -(-len(values) // stretches)
    padded = np.full(stretches * width, np.nan)
    padded[: len(values)] = values
    rows = padded.reshape(stretches, width)  # [stretches, width]
    nothing = np.isnan(rows)
    lowest = np.where(nothing, np.inf, rows).argmin(axis=1)
    highest = np.where(nothing, -np.inf, rows).argmax(axis=1)
    first = np.arange(stretches) * width
    both = np.concatenate((first + lowest, first + highest, (0, len(values) - 1)))
    return np.unique(both[both < len(values)])


def due(since_begin_s: float, since_last_s: float) -> bool:
    """Whether to look again at what only grows: after seconds at first, and in a month some 2,500 times."""
    return since_last_s >= max(LOOK_S, since_begin_s / LOOKS)


class Stream:
    """Thins a curve while it is written: what was given out is never taken back.

    Where a stretch begins follows from the step alone, so that the same curve gives the same points however often the
    run was interrupted; and no step is given out that is not behind the last one, so that a run that goes back some
    steps and does them again has one curve.

    Args:
        points: of a curve whose length is known about so many come, at most twice as many; of another so many until
            its length is `points`, and again with each doubling. Even.
        total: steps, where that is known.
        last: the newest step that was given out before, as of a run that is gone on with.
        least: steps of a stretch of a curve of unknown length.
    """

    def __init__(self, points: int = POINTS, total: int | None = None, last: int = -1, least: int = 1) -> None:
        self._points, self._total, self._last, self._least = points, total, last, least
        self._held: list[Point] = []
        """Of the stretch under way, its lowest and its highest, in order."""
        self._newest: Point | None = None
        self._end = 0
        """Where the stretch under way ends."""

    def add(self, step: int, value: float) -> list[Point]:
        """Take a point; steps rise, but for `rewind`. Gives the points that are to be written now, steps rising: one
        that stands alone in its stretch at once."""
        told = self.flush() if self._held and step >= self._end else []
        self._newest = (step, value)
        width = self._width(step)
        alone = not self._held and step - self._last >= width and not math.isnan(value)
        if self._last < 0 or width == 1 or alone:
            return told + self._new([(step, value)])
        self._end = (step // width + 1) * width
        if not self._between(value):
            self._held = _extremes([*self._held, (step, value)])
        return told

    def rewind(self, step: int) -> None:
        """The steps from this one on come again."""
        self._held = [point for point in self._held if point[0] < step]
        if self._newest is not None and self._newest[0] >= step:
            self._newest = None

    @property
    def held(self) -> list[Point]:
        """What is held back, and the newest point; nothing that was given out."""
        found = [*self._held, *([self._newest] if self._newest is not None else [])]
        return [point for point in found if point[0] > self._last]

    def flush(self, newest: bool = False) -> list[Point]:
        """What is held back; newest: and the newest point, at the end."""
        told, self._held = self._new(sorted(set(self.held)) if newest else self._held), []
        return told

    def _between(self, value: float) -> bool:
        """Whether the lowest and the highest stay what they are."""
        if len(self._held) < 2:
            return False
        one, other = self._held[0][1], self._held[1][1]
        return one <= value <= other or other <= value <= one

    def _new(self, points: list[Point]) -> list[Point]:
        told = [point for point in points if point[0] > self._last]
        if told:
            self._last = told[-1][0]
        return told

    def _width(self, step: int) -> int:
        if self._total is not None and step < self._total:
            return max(1, 2 * self._total // self._points) if self._total > self._points else 1
        stretches = step // self._least
        return self._least * (1 if stretches < self._points else 1 << (stretches // self._points).bit_length())


def _extremes(points: list[Point]) -> list[Point]:
    """The lowest and the highest of points, in order; one where they are the same."""
    numbers = [point for point in points if not math.isnan(point[1])] or points[:1]
    low = min(numbers, key=lambda point: point[1])
    high = max(numbers, key=lambda point: point[1])
    return [low] if low == high else sorted((low, high))
