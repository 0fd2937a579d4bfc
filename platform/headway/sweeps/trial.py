"""What a sweep's loop knows of a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headway.sweeps.events import Config
from headway.sweeps.rules import Way

State = Literal["waiting", "running", "standing", "paused", "finished", "stopped", "failed"]
"""waiting: was suggested, never began. standing: at its gate, while it is decided what becomes of it. finished: at its
end. stopped: early, by the scheduler or with the sweep; a diverged one too."""
OVER = ("finished", "stopped", "failed")


@dataclass
class Trial:
    """A configuration, and how far it is.

    Args:
        number: from 1.
        step: after which it was last evaluated.
        value: of the metric then; NaN included.
        until: its gate, of one that runs.
        stood: the last step at which it stood at a gate: there its state is kept.
        best, best_step: of all its evaluations; best_config: with which that one came, where it changed since.
        steps: that it has taken; with another's weights it may be further than that.
        reason: why it is where it is, for people.
        source: whose weights it took over last, and after how many of its steps.
        tries: how often it was begun again since its last evaluation, after a fault of the platform.
        ended_as: its state when the sweep ended, if it ended with that.
    """

    number: int
    config: Config
    way: Way
    state: State = "waiting"
    step: int = 0
    value: float | None = None
    until: int = 0
    stood: int = 0
    best: float | None = None
    best_step: int = 0
    best_config: Config | None = None
    steps: int = 0
    begun: bool = False
    reason: str = ""
    source: tuple[int, int] | None = None
    tries: int = 0
    ended_as: State | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER
