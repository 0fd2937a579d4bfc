"""Metrics of training that are no means: every lane of every step, merged in the order of steps and lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headway.metrics.merging import EVERY, Lane, Measures, State, sizes
from headway.metrics.shown import Shown

PREFIX = "train/"
"""Begins the names under which they are recorded."""


class Running:
    """What was measured since it was recorded last; the same on all workers.

    Args:
        measures: that there are.
    """

    def __init__(self, measures: Measures) -> None:
        self.measures = measures
        self._whole: Lane = {}
        self._added = 0

    def add(self, lanes: Sequence[Mapping[str, State]]) -> None:
        """Take a step's lanes, or those of one of its passes, in their order.

        Raises:
            BadInput: there is too much of them by now.
        """
        for states in lanes:
            self.measures.joined(self._whole, states)
        if lanes:
            self._added += 1
        if lanes and self._added % EVERY == 0:
            whole = self.state()
            self.measures.check_size(sizes([whole]))
            self.load(whole)  # what came in many pieces is in one now

    def state(self) -> dict[str, State]:
        """What is in them, in host memory, not copied; empty where nothing was measured."""
        return self.measures.states(self._whole)

    def load(self, state: Mapping[str, State]) -> None:
        """Have this state; metrics that there are none of any more are left out."""
        self._whole = {}
        self.measures.joined(self._whole, state)

    def recorded(self) -> Shown:
        """What comes of it, by the names that it is recorded under; it begins anew.

        Raises:
            BadInput: a metric gave what cannot be shown.
        """
        found = self.measures.computed(self._whole)
        self._whole, self._added = {}, 0
        return Shown(*({PREFIX + name: each for name, each in kind.items()} for kind in (found.values, found.tables)))
