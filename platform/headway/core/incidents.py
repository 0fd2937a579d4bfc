"""What an interruption of training is called, from its first sign until a step is committed again."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core.events import Committed, Generation, Recovered

PLANNED = frozenset({"joined", "drained", "resized", "rebalanced"})
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
        self._joining: _Incident | None = None
        """Who was ready to join while something else was not over."""

    def note(self, cause: str, workers: list[str], at: float, silent_s: float = 0.0) -> None:
        """One begins, or goes on; a planned change that something worse comes into takes its name. workers: that it is
        about; of an exchange that broke those who said so."""
        found = self._open
        if cause == "joined" and found is not None and found.cause != cause:
            joining = self._joining = self._joining or _Incident(cause, [], at, silent_s)
            joining.workers += [w for w in workers if w not in joining.workers]
            return
        if found is None or (found.cause in PLANNED and cause not in PLANNED):
            self._open = _Incident(cause, list(workers), at, silent_s)
        elif cause in UNKNOWN and found.cause not in UNKNOWN:
            pass  # whoever lost the others is not lost itself
        elif found.cause in UNKNOWN and cause not in PLANNED | UNKNOWN:
            self._open = _Incident(cause, list(workers), found.at, silent_s)  # now it is known why
        elif cause not in PLANNED or cause == found.cause:
            found.workers += [w for w in workers if w not in found.workers]

    def over(self, event: Committed, active: Generation, anew: bool = False) -> list[Recovered]:
        """A step is committed by the active generation; told once. Whoever joined meanwhile is told of too.

        Args:
            anew: nobody of it had trained before, so that none of its members knows the whole pause.
        """
        ended = [incident for incident in (self._open, self._joining) if incident is not None]
        self._open = self._joining = None
        if ended and ended[-1].cause == "joined" and not active.seated.issuperset(ended[-1].workers):
            self._open = ended.pop()  # they are still to come
        reason = f"step {event.step} is committed by generation {active.number}"
        told = []
        for found in ended:
            pause_s = event.at - found.at + found.silent_s if anew else event.pause_s
            times = (found.at, event.at, found.silent_s, pause_s)
            told.append(Recovered(found.cause, tuple(found.workers), active.number, event.step, *times, reason))
        return told
