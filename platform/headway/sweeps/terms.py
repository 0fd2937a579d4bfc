"""What whoever runs a sweep knows of it, and who looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headway.core.allotment import Rule
from headway.core.prefix import Course
from headway.job import Job
from headway.sweeps.crew import News
from headway.sweeps.events import Action, Config, Event


class Seen(Protocol):
    """Who looks on; see `headway.sweeps.seen.keeping.Seen`."""

    def heard(self, number: int, event: Event, actions: Iterable[Action]) -> None: ...

    def placed(self, actions: Iterable[Action]) -> None: ...

    def news(self, news: Sequence[News]) -> None: ...


@dataclass(frozen=True)
class Terms:
    """What the runner needs to know of a sweep.

    Args:
        name, key: of the sweep.
        terms: see `headway.sweeps.book.Book.begin`.
        repeats: runs for each trial.
        job: gives the job of a trial's run, by its settings and the number of the repeat, from 1.
        strict: whether decisions are taken in the order of a virtual clock.
        width: trials at once, at most; None: as many as there are workers for.
        workers: of the whole sweep, at most.
        least: so many are waited for before anything begins.
        rule: by which workers are allotted.
        saves: whether others may go on with what a trial has at its gates.
        course: gives what a job computes, where common beginnings are to be run once; None: each runs all of its own.
        maximize: whether more of the metric is better.
    """

    name: str
    key: str
    terms: str
    repeats: int
    job: Callable[[Config, int], Job]
    strict: bool
    width: int | None
    workers: int
    rule: Rule
    saves: bool
    maximize: bool
    course: Callable[[Job], Course] | None = None
    least: int = 1
