"""What people see of a sweep, at one moment. Plain values.

Times are seconds of the sweep's own clock, which stands still while nobody leads it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headway.core.ledger import goodput
from headway.sweeps.events import Config

OVER = ("finished", "stopped", "failed", "diverged")
"""States of a trial that never goes on."""


@dataclass(frozen=True)
class Subject:
    """What a sweep is about.

    Args:
        metric: that is compared, and mode: min or max.
        trials: so many were asked for; None where only a budget ends it.
        order: async or strict.
        price: dollars for one worker and hour; None where it was not said.
        logarithmic: keys of the space that are drawn by their logarithm.
    """

    sweep: str
    metric: str
    mode: str
    trials: int | None = None
    order: str = "async"
    price: float | None = None
    logarithmic: tuple[str, ...] = ()

    def better(self, one: float, other: float | None) -> bool:
        """Whether a value is better than another one, or than none; what is no number is not."""
        if not math.isfinite(one):
            return False
        if other is None or not math.isfinite(other):
            return True
        return one > other if self.mode == "max" else one < other


@dataclass(frozen=True)
class Point:
    """An evaluation: after so many steps, when, and what all trials together had spent until then."""

    step: int
    value: float
    at: float
    worker_s: float
    stands: bool


@dataclass
class Trial:
    """A trial, as it is now.

    Args:
        state: waiting (to begin), running, standing (at a gate, until it is told to go on), paused (without workers;
            it may go on), finished, stopped (early), failed, diverged.
        step: committed. until: where its next gate is.
        value: of the metric, at its newest evaluation.
        best: the best of all its evaluations, at best_step, with the settings and the origin that it had then.
        rung: how many gates it has come to.
        workers: that it has now.
        why: it is in that state.
        points: its evaluations.
        held: (at, workers), whenever it had more or fewer.
        origin: (trial, step) whose weights it took over last, where it did.
    """

    number: int
    settings: Config
    state: str = "waiting"
    step: int = 0
    until: int | None = None
    value: float | None = None
    best: float | None = None
    best_step: int | None = None
    best_settings: Config | None = None
    best_origin: tuple[int, int] | None = None
    rung: int = 0
    workers: int = 0
    why: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    held: list[tuple[float, int]] = field(default_factory=list)
    worker_s: float = 0.0
    origin: tuple[int, int] | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER


@dataclass(frozen=True)
class View:
    """A sweep.

    Args:
        state: running, finished, stopped, failed or interrupted; message: why.
        trials: by number; not to be changed.
        best: the trial with the best value so far.
        workers: that work now, or wait for work; room: that could be had.
        seconds: for which it was led. worker_s: what its workers were held for; ledger_s: the same by cause.
        messages: new lines for people.
    """

    subject: Subject
    state: str
    message: str
    trials: Mapping[int, Trial]
    best: Trial | None
    workers: int
    room: int | None
    seconds: float
    worker_s: float
    ledger_s: Mapping[str, float]
    messages: tuple[str, ...] = ()

    @property
    def counts(self) -> Counter[str]:
        """How many trials are in which state."""
        return Counter(trial.state for trial in self.trials.values())

    @property
    def over(self) -> int:
        return sum(trial.over for trial in self.trials.values())

    @property
    def goodput(self) -> float | None:
        """The share of worker-seconds that ended in committed steps; None before the first."""
        return goodput(self.ledger_s) if self.ledger_s else None

    @property
    def dollars(self) -> float | None:
        return None if self.subject.price is None else self.worker_s / 3600 * self.subject.price


def settings_in_words(settings: Mapping[str, Any], keys: Iterable[str] | None = None) -> str:
    """Settings in a line: lr 0.0123  width 64. keys: those that are shown, all where not given."""
    chosen = settings if keys is None else [key for key in keys if key in settings]
    return "  ".join(f"{short(key)} {number(settings[key])}" for key in chosen)


def short(key: str) -> str:
    """The last part of a dotted key."""
    return key.rpartition(".")[2] or key


def number(value: Any) -> str:
    """A value for people, with four digits where it is no whole number."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
