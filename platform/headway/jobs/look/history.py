"""`headway events`: what happened to a run, in plain words, while it happens or afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway import runs as kept
from headway.core import chronicle
from headway.core.ends import OVER
from headway.errors import BadInput, HeadwayError
from headway.jobs.look import asking
from headway.jobs.look.rows import Job, words
from headway.jobs.look.tail import Tail
from headway.runs import Place, RunFolder

FOLDER_S, STORE_S = 0.5, 2.0
"""So often who follows looks for more."""
GRACE_S = 10.0
"""So long the last events of a run may come after the word that it has ended."""
RECENT_S = 60.0
"""Of a run that ended so long ago none come any more."""
FILE = "events.jsonl"


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Args:
        time: Unix seconds.
        kind: of it.
        text: what, in a line.
        what: it was; cause: who or what did it; done: what was done. The latter two may be empty.
        fields: as it was recorded.
    """

    time: float
    kind: str
    text: str
    what: str
    cause: str
    done: str
    fields: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, line: dict[str, Any]) -> Event:
        """From a line of the run's records."""
        told = chronicle.tell(line)
        rest = {name: value for name, value in line.items() if name not in ("kind", "time")}
        at = line.get("time")
        when = float(at) if isinstance(at, int | float) else 0.0
        return cls(when, str(line.get("kind", "")), told.text, told.what, told.cause, told.done, rest)

    @property
    def quiet(self) -> bool:
        """Whether it only says again, for those who count, what another has said."""
        return self.kind in chronicle.QUIET


def events(
    run: str,
    *,
    runs: str | Path | None = None,
    address: str | None = None,
    follow: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Event]:
    """What happened to a run, in order; with what Ray's list says of its submissions, where a cluster is asked.

    Args:
        run: its name, or its folder or URL.
        runs: where runs are kept; see `headway.jobs.ls`.
        address: of a cluster; likewise.
        follow: go on until the run is at an end. A place that is out of reach meanwhile is waited for.
        say: takes a line for people: what could not be asked.

    Raises:
        BadInput: there is no such run, neither there nor on the cluster.
    """
    place, name = asking.place_of(run, runs)
    jobs, unasked = asking.jobs(address)
    if unasked is not None:
        say(str(unasked))
    of = asking.of_run(jobs or (), name, place)
    source = _Source(place, name, say)
    found = source.more()
    where, there = asking.elsewhere(place, name, jobs or ()) if source.absent and not of else ("", [])
    if there and not asking.out_of_sight(where):
        place, of = Place.of(where), there
        say(f"{name} is kept in {where}")
        source = _Source(place, name, say)
        found = source.more()
    elif there:
        of = there
        say(f"{name} is kept in {where}: {asking.out_of_sight(where)}; only what Ray says of it is shown")
    if source.lacks is not None and not of:
        raise source.lacks
    yield from sorted([*_submitted(of), *found], key=lambda event: event.time)
    if follow:
        yield from _followed(source, lambda: _awaited(address, name, place), say)


def _followed(source: _Source, awaited: Callable[[], bool], say: Callable[[str], None]) -> Iterator[Event]:
    """What is added until the run is at an end; and why that is, where it has not said so itself."""
    late_at: float | None = None
    while True:
        over = source.over()
        gone = not over and source.absent and not awaited()
        yield from source.more()
        if gone or (over and source.last == "end"):
            return
        if over and source.lacks is None:  # else what it did last is not read yet
            late_at = time.monotonic() + source.grace_s if late_at is None else late_at
            if time.monotonic() >= late_at:
                say(over)
                return
        time.sleep(source.every_s)


class _Source:
    """The events of a run, here or as its place has them, from where they were read last.

    Args:
        place, name: of the run, which may not be there yet.
        say: takes a line for people.
    """

    def __init__(self, place: Place, name: str, say: Callable[[str], None]) -> None:
        self._place, self._name, self._say = place, name, say
        self._run: RunFolder | None = None
        self._tail: Tail | None = None
        self.every_s = FOLDER_S if place.url is None else STORE_S
        self.grace_s = GRACE_S
        self.last = ""
        """Kind of the newest event that was read."""
        self.lacks: HeadwayError | None = None
        """Why nothing could be read last; None where it could."""

    @property
    def absent(self) -> bool:
        """Whether there is no such run, as far as its place says."""
        return self._run is None and isinstance(self.lacks, BadInput)

    def more(self) -> list[Event]:
        """What was added since, as far as it can be had now."""
        before = self.lacks
        try:
            if self._run is None:
                kept.glance(self._place, self._name)  # which says sooner that there is no answer
                self._run = kept.find(self._place, self._name)
            else:
                self._run.refresh()
            self.lacks = None
        except HeadwayError as error:
            self.lacks = error
            if before is None and self._run is not None:
                self._say(f"{self._place} cannot be read ({error.reason or error.fact}); it is tried again")
            return []
        if before is not None and not isinstance(before, BadInput):
            self._say(f"{self._place} can be read again")
        return self._added(self._run.path / FILE)

    def over(self) -> str:
        """How the run has ended, in words; empty where it has not, or that is not known for sure. Its last events may
        come after this, within `grace_s`."""
        if self._run is None:
            return ""
        brief, _ = asking.tried("", lambda: kept.glance(self._place, self._name))
        if brief is None or brief.state not in OVER or brief.unheard:
            return ""
        self.grace_s = GRACE_S if time.time() - brief.last < RECENT_S else 0.0
        return f"run {brief.run} is {brief.state}" + (f": {brief.message}" if brief.message else "")

    def _added(self, path: Path) -> list[Event]:
        self._tail = self._tail or Tail(path)
        found = [Event.of(tree) for line in self._tail.more() if (tree := parsed(line)) is not None]
        self.last = found[-1].kind if found else self.last
        return found


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line of a run's records; None where it is damaged."""
    try:
        tree = json.loads(line)
    except ValueError:
        return None
    return tree if isinstance(tree, dict) else None


def _submitted(jobs: Sequence[Job]) -> Iterator[Event]:
    """What Ray's list says of a run's submissions."""
    for job in jobs:
        told = {"kind": "submission", "id": job.id, "by": job.by, "status": job.status, "message": words(job)}
        yield Event.of({**told, "time": job.started, "ended": False})
        if job.ended is not None:
            yield Event.of({**told, "time": job.ended, "ended": True})


def _awaited(address: str | None, name: str, place: Place) -> bool:
    """Whether a run that is not there may come yet: a submission of it has not ended, or that is not known."""
    jobs, _ = asking.jobs(address)
    return jobs is None or any(job.ended is None for job in asking.of_run(jobs, name, place))
