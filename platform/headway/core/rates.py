"""Steps per second by number of workers, as they were seen, and what one more worker would bring.

A step takes as long as the worker with the most lanes (`headway.core.demand`), so of sizes that were not tried it is
foretold from one that was; by as much of that as the last ones brought of what had been foretold of them.
"""

from __future__ import annotations

import statistics
from collections import deque
from itertools import pairwise

STEPS, SECONDS = 3, 1.0
"""A pace is seen after so many steps, and so long."""
LATEST = 9
"""A size's pace is the median of the latest so many stretches: one that was disturbed does not count."""


class Rates:
    """See the module.

    Args:
        lanes: of the run.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._seen: dict[int, deque[float]] = {}
        self._size = 0
        self._from = (0, 0.0)

    def look(self, workers: int, step: int, now: float) -> None:
        """Take in how far the run is.

        Args:
            workers: that train.
            step: committed by them.
            now: seconds on one clock.
        """
        if workers != self._size or step < self._from[0]:
            self._size, self._from = workers, (step, now)
            return
        steps, seconds = step - self._from[0], now - self._from[1]
        if steps >= STEPS and seconds >= SECONDS and workers > 0:
            self._seen.setdefault(workers, deque(maxlen=LATEST)).append(steps / seconds)
            self._from = (step, now)

    def note(self, workers: int, per_s: float) -> None:
        """So many workers made so many steps per second."""
        if workers > 0 and per_s > 0:
            self._seen.setdefault(workers, deque(maxlen=LATEST)).append(per_s)

    @property
    def known(self) -> bool:
        """Whether any pace was seen."""
        return bool(self._seen)

    def seen(self) -> dict[int, float]:
        """Steps per second by workers, of sizes that were tried."""
        return {size: statistics.median(self._seen[size]) for size in sorted(self._seen)}

    def at(self, workers: int) -> float | None:
        """Steps per second of so many workers, as seen, else as foretold; None where none was ever seen."""
        seen = self.seen()
        if not seen or workers < 1:
            return None
        if workers in seen:
            return seen[workers]
        below = [size for size in seen if size < workers]
        base = max(below) if below else min(seen)
        foretold = seen[base] * self._lanes_of(base) / self._lanes_of(workers)
        return seen[base] + self.kept() * (foretold - seen[base]) if below else foretold

    def kept(self) -> float:
        """Of what the last size that was gone up to should have brought over the one below, so much it did: 0 to 1."""
        seen = self.seen()
        sizes = sorted(seen)
        shares = []
        for below, above in pairwise(sizes):
            promised = seen[below] * (self._lanes_of(below) / self._lanes_of(above) - 1.0)
            if promised > 0:
                shares.append((seen[above] - seen[below]) / promised)
        return min(1.0, max(0.0, shares[-1])) if shares else 1.0

    def _lanes_of(self, workers: int) -> int:
        """Of the slowest of so many."""
        return -(-self._lanes // workers)
