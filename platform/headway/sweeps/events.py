"""What a sweep's loop hears, and what it asks for. Plain values: the events are kept in the sweep's book.

Steps are committed optimiser updates of a trial. A trial is a configuration; with `repeats` it is several runs that go
side by side, and what is reported of it is their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Config = dict[str, Any]
"""Settings of a trial by the job's dotted keys ("optimizer.lr"), as plain values."""
Values = dict[str, float]
"""Validation metrics by name; NaN where the trial diverged."""

# What the loop hears


@dataclass(frozen=True)
class Width:
    """So many trials may be under way at once from now on."""

    trials: int


@dataclass(frozen=True)
class Suggested:
    """The searcher's answer to `Ask`.

    Args:
        config: None where it has no more.
        fault: why no job can be made of it; empty where one can. Such a trial has failed before it begins.
    """

    trial: int
    config: Config | None
    fault: str = ""


@dataclass(frozen=True)
class Reported:
    """A trial was evaluated.

    Args:
        step: of the trial.
        values: every validation metric.
        waits: it stands at its gate (`until` of its last Start, GoOn or Clone, or its last step), and goes on by the
            loop's word only. False: in passing.
    """

    trial: int
    step: int
    values: Values
    waits: bool


@dataclass(frozen=True)
class Failed:
    """A trial cannot go on.

    Args:
        kind: task: the user's code raised; diverged: its loss is no number, which is a result, and comes last;
            platform: neither is to blame.
        reason: in one line.
    """

    trial: int
    step: int
    kind: Literal["task", "diverged", "platform"]
    reason: str


@dataclass(frozen=True)
class Spent:
    """What the sweep has held so far, in all its starts: worker-seconds, and seconds of the clock."""

    worker_s: float
    seconds: float


@dataclass(frozen=True)
class Halt:
    """Somebody, or a rule outside of the loop, ends the sweep. may_go_on: `headway resume` takes it up again."""

    reason: str
    may_go_on: bool


@dataclass(frozen=True)
class Again:
    """Somebody wants a trial that failed to be tried again, from where it was. A sweep that was over goes on."""

    trial: int


@dataclass(frozen=True)
class Limits:
    """What the sweep may come to, from here on: others than those with which it began. What they are is told by
    `headway.sweeps.rules`. A sweep that was over by its limits goes on."""

    trials: int | None
    max_failures: int
    patience: int | None
    min_delta: float
    worker_s: float | None
    seconds: float | None
    dollars: float | None
    price: float
    steps: int | None


Event = Width | Suggested | Reported | Failed | Spent | Halt | Again | Limits

# What it asks for


@dataclass(frozen=True)
class Ask:
    """Have the searcher suggest settings for a new trial, in the order of these words and of `Tell`s: what it is told
    before decides what it says. It may take its time. Answer: `Suggested`."""

    trial: int


@dataclass(frozen=True)
class Tell:
    """Let the searcher know.

    Args:
        value: the metric, NaN included; None: a trial that is over has no result.
        final: the trial is over.
    """

    trial: int
    step: int
    value: float | None
    final: bool


@dataclass(frozen=True)
class Start:
    """Begin a trial, up to a gate."""

    trial: int
    config: Config
    until: int


@dataclass(frozen=True)
class GoOn:
    """Let one that stands at its gate, or was paused, go on up to another."""

    trial: int
    until: int


@dataclass(frozen=True)
class Pause:
    """Have one at its gate give its workers away; it may go on later from there."""

    trial: int
    reason: str


@dataclass(frozen=True)
class Stop:
    """End one for good: early, or because it is done. state: what it is called from now on."""

    trial: int
    state: Literal["finished", "stopped", "failed"]
    reason: str


@dataclass(frozen=True)
class Clone:
    """Let a trial at its gate go on with another's weights and with other settings (population based training).

    Args:
        source, step: whose weights, after so many steps.
    """

    trial: int
    source: int
    step: int
    config: Config
    until: int


@dataclass(frozen=True)
class Over:
    """The sweep is at its end: no more trials, the budget is spent, nothing improves, too many failed, or `Halt`."""

    state: Literal["finished", "stopped", "failed"]
    reason: str


Action = Ask | Tell | Start | GoOn | Pause | Stop | Clone | Over
