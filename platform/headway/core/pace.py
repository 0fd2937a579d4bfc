"""Workers whose pace is behind the others'."""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from collections.abc import Iterable, Mapping

SHOWN = 64
"""Workers whose pace is told to the records."""


class Typical:
    """What a worker's lane takes: the median of the latest."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=15)
        self.seconds = 0.0
        """0 while not known."""

    def note(self, seconds: float) -> None:
        """Of one more lane."""
        self._latest.append(seconds)
        self.seconds = sorted(self._latest)[len(self._latest) // 2]


def slowest(lane_s: Mapping[str, float], most: int = SHOWN) -> dict[str, float]:
    """Those of the workers that take longest for a lane."""
    return dict(heapq.nlargest(most, lane_s.items(), key=lambda each: each[1]))


class Pace:
    """Finds workers that are slower than the others for several looks in a row.

    A worker is slow when its time per lane is above the median by more than five robust standard deviations
    (1.4826 times the median absolute deviation) and by more than `margin` of the median: the first for noise, the
    second for workers that are very even.

    Args:
        looks: so many in a row must agree.
        margin: relative.
    """

    def __init__(self, looks: int = 5, margin: float = 0.5) -> None:
        self._looks, self._margin = looks, margin
        self._behind: dict[str, int] = {}
        self._slow: dict[str, float] = {}

    def look(self, lane_s: Mapping[str, float]) -> dict[str, float]:
        """Take each member's recent seconds per lane; returns factors of those whose state changed (1.0: no longer)."""
        changed: dict[str, float] = {}
        for worker in [w for w in self._slow if w not in lane_s]:
            del self._slow[worker]
        outliers = _outliers(lane_s, self._margin) if len(lane_s) > 1 else {}
        for worker in lane_s:
            count = self._behind.get(worker, 0) + 1 if worker in outliers else 0
            self._behind[worker] = count
            if count >= self._looks and worker not in self._slow:
                self._slow[worker] = changed[worker] = round(outliers[worker], 2)
            elif count == 0 and worker in self._slow:
                del self._slow[worker]
                changed[worker] = 1.0
        return changed


def _outliers(lane_s: Mapping[str, float], margin: float) -> dict[str, float]:
    # With two workers the median lies between them; the faster one is then the measure.
    centre = statistics.median_low(lane_s.values())
    spread = 1.4826 * statistics.median_low(_distances(lane_s.values(), centre))
    limit = centre + max(5 * spread, margin * centre)
    return {worker: seconds / centre for worker, seconds in lane_s.items() if seconds > limit and centre > 0}


def _distances(values: Iterable[float], centre: float) -> list[float]:
    return [abs(value - centre) for value in values]
