"""What a sweep asks of those that train: one warm set of workers, on which its runs come and go.

`headway.elastic.crew` is the real one, `headway.testing.crew` one that makes its numbers up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from headway.job import Job


@dataclass(frozen=True)
class Origin:
    """A state of another run that a run begins with.

    Args:
        run: its name, in the same place.
        step: the number of steps committed before it.
        exact: it is what this run would have computed itself (a common beginning); else its optimiser's settings and
            its schedule are made anew from this run's own job.
    """

    run: str
    step: int
    exact: bool = True


@dataclass(frozen=True)
class Leg:
    """A stretch of a run that is to be done.

    Args:
        run: its name; there, or to be made.
        job: with the trial's settings.
        until: the step at which it stands and waits for a word; its end where it is as far.
        origin: what it begins with, of a run that has no state of its own.
        save_at: further steps at which a checkpoint is to be kept for others.
        facts: kept with the run: sweep, trial, repeat, settings.
        workers: with how many to begin, at most.
    """

    run: str
    job: Job
    until: int
    origin: Origin | None = None
    save_at: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    workers: int = 1


@dataclass(frozen=True)
class Passed:
    """A run was evaluated. stands: at its gate, or at its end."""

    run: str
    step: int
    values: dict[str, float]
    stands: bool


@dataclass(frozen=True)
class Left:
    """A run has given its workers away.

    Args:
        why: paused, stopped, finished: as it was told to; failed.
        failure: kind, fact, reason, remedy, traceback of one that failed.
    """

    run: str
    step: int
    why: str
    failure: dict[str, Any] | None = None


@dataclass(frozen=True)
class Sized:
    """So many workers are there, or can be had."""

    workers: int


@dataclass(frozen=True)
class Holds:
    """Who has how many workers now, by run; and what all of them have spent so far, worker-seconds by cause of the
    ledger (`headway.core.ledger`), with `idle` for workers that wait for a run."""

    workers: dict[str, int]
    steps: dict[str, int]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Said:
    """A line for people. run: whose it is; None: of all."""

    run: str | None
    text: str


News = Passed | Left | Sized | Holds | Said


class Crew(Protocol):
    """See the module. No call waits for what it asks for: `news` tells."""

    def want(self, workers: int) -> None:
        """Have so many workers in all, if the cluster has room for them."""

    def begin(self, leg: Leg) -> None:
        """Do a leg: of a new run, or of one that goes on from where it is. Raises BadInput: it cannot begin."""

    def go_on(self, run: str, until: int) -> None:
        """Let one that stands at its gate go on to another."""

    def leave(self, run: str, why: str) -> None:
        """Have one give its workers away, at its gate or after the step that is under way, with a checkpoint. why:
        paused (its state is kept near, where there is memory), stopped or finished (it never goes on)."""

    def resize(self, run: str, workers: int) -> None:
        """Let a run have so many workers."""

    def news(self, timeout_s: float) -> Sequence[News]:
        """What happened since, in order; waits for something to happen. Raises RunFailed: all is lost."""

    def close(self) -> None:
        """End all, without a word; what stands may go on elsewhere from its checkpoints."""
