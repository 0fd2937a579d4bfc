"""Machine types, and how fast each has shown itself to be: dollars are compared by what is done for them."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

LATEST = 30
LEAST = 3
"""A type's pace is the median of the latest so many looks, and known after so few."""


class Typed(Protocol):
    """An option, or an offer."""

    @property
    def type(self) -> str: ...

    @property
    def price_per_hour(self) -> float | None: ...


Way = TypeVar("Way", bound=Typed)


class Kinds:
    """What workers on each type take for a lane."""

    def __init__(self) -> None:
        self._lane_s: dict[str, deque[float]] = {}

    def note(self, type: str, lane_s: float) -> None:
        """A worker on such a machine took so many seconds for a lane; of none that takes nothing is anything learnt."""
        if lane_s > 0:
            self._lane_s.setdefault(type, deque(maxlen=LATEST)).append(lane_s)

    def speeds(self) -> dict[str, float]:
        """Of each type that is known, in relation to the fastest of them: 0.5 takes twice as long."""
        known = {type: statistics.median(each) for type, each in self._lane_s.items() if len(each) >= LEAST}
        fastest = min(known.values(), default=0.0)
        return {type: round(fastest / each, 3) for type, each in known.items()}


def by_worth(options: Sequence[Way], speeds: Mapping[str, float]) -> list[Way]:
    """Cheapest first for what is done: by dollars per hour over the type's speed; those without a price last.

    Args:
        speeds: as of `Kinds.speeds`; a type that is not among them is held to be as fast as the fastest, so that it is
            tried, and becomes known.
    """
    return sorted(options, key=lambda option: (option.price_per_hour is None, worth(option, speeds)))


def worth(option: Typed, speeds: Mapping[str, float]) -> float:
    """Dollars for what the fastest type does in an hour; 0 where there is no price."""
    return (option.price_per_hour or 0.0) / max(speeds.get(option.type, 1.0), 1e-9)
