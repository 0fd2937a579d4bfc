"""The best value of one metric so far, which a rewind takes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

KEPT = 50
"""Improvements that are remembered; a rewind further back is to the oldest of them."""


class Best:
    """Args:
    metric: its name.
    mode: whether less or more is better.
    kept: of `facts`, as a start before left them; of another metric they are not taken.
    """

    def __init__(self, metric: str, mode: Literal["min", "max"], kept: Mapping[str, Any] | None = None) -> None:
        self.metric, self.mode = metric, mode
        known = kept or {}
        same = (known.get("metric"), known.get("mode")) == (metric, mode)
        history = known.get("history", ()) if same else ()
        self._history = [(int(step), float(value)) for step, value in history]

    @property
    def newest(self) -> tuple[int, float] | None:
        """Step and value of the best; None where nothing was measured."""
        return self._history[-1] if self._history else None

    def take(self, step: int, value: float) -> bool:
        """Whether it is the best. What is no number is never."""
        best = self.newest
        better = value == value and (best is None or (value < best[1] if self.mode == "min" else value > best[1]))
        if better:
            self._history = [*self._history, (step, value)][-KEPT:]
        return better

    def rewind(self, step: int) -> None:
        """What was measured of later steps comes again."""
        self._history = [(at, value) for at, value in self._history if at <= step]

    def facts(self) -> dict[str, Any]:
        """To be kept: the last of `history` is the best."""
        return {"metric": self.metric, "mode": self.mode, "history": [list(each) for each in self._history]}
