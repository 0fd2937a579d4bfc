"""How a run is at one moment, for whoever asks its leader for something and waits for that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from headway import runs as kept
from headway.core.ends import OVER
from headway.jobs.look import asking
from headway.jobs.look.asking import tried
from headway.jobs.look.rows import Job
from headway.runs import Brief, Place, RunFolder, epochs
from headway.runs.folder import NAME
from headway.runs.listing import GONE
from headway.runs.place import is_url
from headway.runs.requests import of_epoch

if TYPE_CHECKING:
    from headway.jobs.api.client import RayJob

SAY_EVERY_S = 15.0
BROKEN = "broken"
"""State of what a removal, or a copy, left that was broken off; see `headway.runs.far`."""

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Sight:
    """A run at one moment. gone: it has not ended, and nobody leads it. start: whose leader is, or was, the last."""

    brief: Brief
    led: bool = False
    gone: bool = False
    start: str = ""

    @property
    def state(self) -> str:
        return self.brief.state

    @property
    def message(self) -> str:
        return self.brief.message

    @property
    def step(self) -> int:
        return self.brief.steps

    @property
    def submission(self) -> str:
        return self.brief.submission

    @property
    def over(self) -> bool:
        return self.state in OVER and not self.gone


def look(place: Place, name: str) -> Sight | None:
    """How a run is; None where there is none. Raises OutOfReach, BadInput."""
    brief = kept.glance(place, name) if NAME.fullmatch(name) else None
    if brief is None:
        return None
    if brief.state == BROKEN:
        return Sight(brief)
    run = kept.named(place, name)
    gone = brief.state == "interrupted" and brief.message == GONE
    return Sight(brief, run.is_led(), gone, start_of(run))


def start_of(run: RunFolder) -> str:
    """By what the newest start of a run is asked for something."""
    from headway.runs.far import FarRun

    return of_epoch(run.remote.head().epoch if isinstance(run, FarRun) else epochs.newest(run.path))


def pending(listed: Sequence[Job], name: str, sight: Sight | None) -> RayJob | None:
    """The newest submission that is to lead the run; not the one that led it to its end, and is about to go."""
    of = cast("list[RayJob]", [job for job in asking.leading(listed) if job.run == name])
    waiting = [job for job in of if job.alive and (sight is None or job.id != sight.submission)]
    return waiting[-1] if waiting else None


def seen_place(job: RayJob, place: Place) -> Place | None:
    """Where the run of a submission is kept, if that can be seen from here."""
    if not job.runs:
        return None
    if is_url(job.runs):
        return Place.of(job.runs)
    folder = Path(job.runs)
    return Place(job.runs, folder) if folder.is_dir() else None


class Wait:
    """Waiting for a run, with a word now and then. what: is waited for, in words."""

    def __init__(self, what: str, say: Say) -> None:
        self._what, self._say = what, say
        self._began = self._said = time.monotonic()
        self.answered = True
        """Whether the last question was."""

    def lasted(self, seconds: float) -> bool:
        return time.monotonic() - self._began >= seconds

    def tried(self, what: str, action: Callable[[], T]) -> T | None:
        """What it gives; None where that cannot be asked now, which is said once."""
        found, unread = tried(what, action)
        if unread is not None and self.answered:
            self._say(f"{what} cannot be asked ({unread.reason}); asking on")
        self.answered = unread is None
        return found

    def a_while(self, seconds: float, sight: Sight | None) -> None:
        if time.monotonic() - self._said > SAY_EVERY_S:
            self._said = time.monotonic()
            at = f", after step {sight.step}" if sight is not None else ""
            self._say(f"waiting for {self._what} ({self._said - self._began:.0f} s{at})")
        time.sleep(seconds)
