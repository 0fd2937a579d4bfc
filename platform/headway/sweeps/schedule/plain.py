"""No early end, and no comparison: every trial goes its whole way."""

from __future__ import annotations

from collections import deque

from headway.sweeps.events import Config
from headway.sweeps.schedule.protocol import Exploit, Scheduler, Verdict


class Plain(Scheduler):
    """First come, first served."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}
        self._fresh: deque[int] = deque()

    def added(self, trial: int, config: Config, length: int) -> None:
        self._lengths[trial] = length
        self._fresh.append(trial)

    def gate(self, trial: int, step: int) -> int:
        return self._lengths[trial]

    def reported(self, trial: int, step: int, value: float) -> tuple[Verdict | Exploit, str]:
        return Verdict.CONTINUE, "every trial goes its whole way"

    def ended(self, trial: int, step: int, value: float | None) -> None:
        if trial in self._fresh:
            self._fresh.remove(trial)

    def choose(self) -> int | None:
        return self._fresh.popleft() if self._fresh else None

    @property
    def rungs(self) -> dict[int, list[int]]:
        return {}
