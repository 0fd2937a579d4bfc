"""The recorder's side of what a run costs: the bill of this start, as the lead's events tell it, and those before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from headway.core.bill import Bill, Outlay, told

KEEP_S = 10.0
"""So often the dollars so far are kept with the run: of a leader that is killed they are all that is known at once."""


class Accountant:
    """May be asked by any thread.

    Args:
        began: Unix seconds, of this start.
        before: dollars of the starts before.
    """

    def __init__(self, began: float, before: float = 0.0) -> None:
        self.began, self.before = began, before
        self._bill, self._lock = Bill(began), threading.Lock()
        self._kept_at = began

    def take(self, event: Mapping[str, Any]) -> None:
        """A `purchase`, or a `stake`."""
        with self._lock:
            told(self._bill, event)

    def end(self, at: float) -> None:
        """The start is at its end."""
        with self._lock:
            self._bill.end(at)

    def outlay(self, now: float) -> Outlay | None:
        """How the run stands; None while no machine has a price."""
        with self._lock:
            if not self._bill:
                return None
            return Outlay(self.before + self._bill.dollars(now), self._bill.per_hour(now), now)

    def due(self, now: float) -> bool:
        """Whether it is time to keep it; True once."""
        if now - self._kept_at < KEEP_S:
            return False
        self._kept_at = now
        return True
