"""What a scheduler is to a sweep. `headway.testing.scheduler` holds any to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from headway.sweeps.events import Config


@dataclass(frozen=True)
class Lengths:
    """How long a trial is.

    Args:
        steps: of the job as it is written; a trial's own may be others.
        every: steps from one evaluation to the next.
    """

    steps: int
    every: int = 1


class Verdict(StrEnum):
    """What becomes of a trial that stands at its gate."""

    CONTINUE = "continue"
    PAUSE = "pause"
    STOP = "stop"


@dataclass(frozen=True)
class Exploit:
    """Another verdict: go on with `source`'s weights and these settings."""

    source: int
    config: Config


class Scheduler(Protocol):
    """Decides by reports. Quick, and without a clock; what it says follows from its seed and the calls before."""

    def added(self, trial: int, config: Config, length: int) -> None:
        """A trial waits for its turn. length: steps that its job asks for."""

    def gate(self, trial: int, step: int) -> int:
        """After `step` steps: before which step it is to be asked next; its length where it does not mind."""

    def reported(self, trial: int, step: int, value: float) -> tuple[Verdict | Exploit, str]:
        """It stands at a gate that is not its end. value: the metric; NaN is the last place. Returns the verdict, and
        why, for people. PAUSE: it may be chosen later, or at once."""

    def ended(self, trial: int, step: int, value: float | None) -> None:
        """It is over: at its end, failed (None), or stopped."""

    def choose(self) -> int | None:
        """Which of those that were added or paused takes a place that is free; None: none of them, for now. A new trial
        is asked for then, where there may be one."""

    def finale(self) -> int | None:
        """Nothing is under way, `choose` has none, and no new trial may come: who of the paused goes on nonetheless, so
        that somebody goes its whole way; None: the sweep is over."""
        return None

    def given_up(self) -> list[int]:
        """Paused ones that never go on, each said once."""
        return []

    @property
    def rungs(self) -> dict[int, list[int]]:
        """For people: trials that have passed each rung, by its step; empty where there are none."""
