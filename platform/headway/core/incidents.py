"""What an interruption of training is called, from its first sign until a step is committed again."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.events import Committed, Generation, Recovered

PLANNED = frozenset({"joined", "drained", "rebalanced"})
UNKNOWN = frozenset({"connection_lost", "stuck"})
"""An exchange broke, and it is not known yet why."""


@dataclass
class _Incident:
    cause: str
    workers: list[str]
    at: float
    silent_s: float


class Incidents:
    """The interruption that is under way, if any."""

    def __init__(self) -> None:
        self._open: _Incident | None = None

    def note(self, cause: str, workers: list[str], at: float, silent_s: float = 0.0) -> None:
        """One begins, or goes on; a planned change that something worse comes into takes its name."""
        found = self._open
        if found is None or (found.cause in PLANNED and cause not in PLANNED):
            self._open = _Incident(cause, list(workers), at, silent_s)
        elif found.cause in UNKNOWN and cause not in PLANNED | UNKNOWN:
            self._open = _Incident(cause, list(workers), found.at, silent_s)  # now it is known why
        elif cause not in PLANNED or cause == found.cause:
            found.workers += [w for w in workers if w not in found.workers]

    def over(self, event: Committed, active: Generation) -> list[Recovered]:
        """A step is committed by the active generation; told once."""
        found, self._open = self._open, None
        if found is None:
            return []
        reason = f"step {event.step} is committed by generation {active.number}"
        times = (found.at, event.at, found.silent_s, event.pause_s)
        return [Recovered(found.cause, tuple(found.workers), active.number, event.step, *times, reason)]
