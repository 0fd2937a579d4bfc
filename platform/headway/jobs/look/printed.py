"""`headway logs`: what a run's driver and workers printed, while they do or at any time after.

It is read where the run is kept, by position: a head that is replaced, a network that is lost, a cluster that is gone
neither end it nor make a line come twice. Only where that place cannot be read from here is Ray's own log of the driver
shown, which goes with the head.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from headway import runs as kept
from headway.core.ends import OVER
from headway.errors import BadInput, HeadwayError, nearest
from headway.jobs import told
from headway.jobs.api.log import RayLog
from headway.jobs.look import asking
from headway.jobs.look.asking import Unread, tried
from headway.jobs.look.rows import Job
from headway.logs.layout import DRIVER, WORKER, worker_source
from headway.logs.reading import Line, Reader, sources
from headway.runs import Brief, Place
from headway.runs.finding import named
from headway.runs.place import is_url

FOLDER_S, STORE_S = 0.3, 1.0
"""So often who follows looks for more."""
STATE_S = 3.0
"""So often it is asked whether the run is over, while lines come."""
GRACE_S = 6.0
"""So long after the run's end the last words of its processes are waited for."""

Say = Callable[[str], None]


def logs(
    run: str,
    *,
    runs: str | Path | None = None,
    address: str | None = None,
    follow: bool = False,
    worker: str | None = None,
    tail: int | None = None,
    say: Say = lambda _: None,
) -> Iterator[Line]:
    """What a run printed, sorted by time; the lines of each process in their order, each once.

    Args:
        run: its name, or its folder or URL.
        runs: where runs are kept; see `headway.jobs.ls`.
        address: of a cluster, which is asked where the run is not found; likewise.
        follow: go on until the run is at an end. What is out of reach meanwhile is waited for.
        worker: only of this one, or "driver".
        tail: only the last so many lines, and what comes after them.
        say: takes a line for people: what could not be asked, how it ended.

    Raises:
        BadInput: there is no such run, or no such worker; or neither its place nor its cluster could be asked.
    """
    place, name = asking.place_of(run, runs)
    brief, unread = tried(str(place), lambda: kept.glance(place, name))
    if brief is None:
        jobs, unasked = asking.jobs(address)
        of = [job for job in asking.leading(jobs or ()) if job.run == name]
        if not of:
            if unread is not None:
                raise asking.nothing(unread, unasked)
            reason = f"{unasked.what} cannot be asked: {unasked.reason}" if unasked is not None else ""
            raise asking.nowhere(place, name, address, unasked, reason)
        place, brief, why = _found(place, of, unread)
        if brief is None and not why:
            brief = _awaited(place, name, address, follow, say)
        if brief is None:
            why = why or "it has not begun"
            yield from _of_ray(address, name, why, follow, _source(worker), tail, say)
            return
        say(f"{name} is kept in {place}")
    yield from _Following(place, name, _source(worker), say).lines(follow, tail)


class _Following:
    """The log of a run that is kept in a place that can be read, or could be.

    Args:
        place, name: of the run.
        only: of this source; None for all.
        say: takes a line for people.
    """

    def __init__(self, place: Place, name: str, only: str | None, say: Say) -> None:
        self._place, self._name, self._only, self._say = place, name, only, say
        self._storage = named(place, name).printed
        self._reader = Reader(self._storage, None if only is None else [only])
        self._lacks = self._unheard = False
        self._asked_at = -STATE_S

    def lines(self, follow: bool, tail: int | None) -> Iterator[Line]:
        """All that is there, or the end of it; and what comes."""
        over = self._over()
        while not self._ready(follow, over is None, tail):
            time.sleep(STORE_S)
        if not follow:
            found = _for_people(self._reader.news())
            yield from deque(found, tail) if tail is not None else found
            return
        first = self._more()
        yield from deque(first, tail) if tail is not None else first
        while over is None:
            time.sleep(FOLDER_S if self._place.url is None else STORE_S)
            news = False
            due = time.monotonic() - self._asked_at >= STATE_S
            over = self._over() if due else None  # asked before it is read: what was written until then is there
            for line in self._more():
                news = True
                yield line
            if not news and not due:
                self._asked_at = -STATE_S
        yield from self._last()
        self._say(f"{self._name} {over.state}{f': {over.message}' if over.message else ''}")

    def _last(self) -> Iterator[Line]:
        """The last words of processes that end after their run; all that is there now, as soon as it can be read."""
        deadline, read = time.monotonic() + GRACE_S, not self._lacks
        while not read or (not self._reader.ended and time.monotonic() < deadline):
            time.sleep(FOLDER_S if read else STORE_S)
            yield from self._more()
            if not read and not self._lacks:
                deadline, read = time.monotonic() + GRACE_S, True

    def _more(self) -> Iterator[Line]:
        """What came, as far as it can be had now."""
        try:
            yield from _for_people(self._reader.news())
        except HeadwayError as error:
            self._lack(error.reason or error.fact)
            return
        self._lack("")

    def _lack(self, reason: str) -> None:
        """Say, once, that the place cannot be read, and that it can be again."""
        if reason and not self._lacks:
            self._say(f"{self._place} cannot be read ({reason}); it is tried again")
        if not reason and self._lacks:
            self._say(f"{self._place} can be read again")
        self._lacks = bool(reason)

    def _over(self) -> Brief | None:
        """What the run is, where it is at an end for sure; None where not, or where that is not known."""
        self._asked_at = time.monotonic()
        brief, unread = tried(str(self._place), lambda: kept.glance(self._place, self._name))
        if brief is None:
            if unread is None:
                raise BadInput(f"run {self._name} is not in {self._place} any more", "it was removed meanwhile", "")
            return None
        if brief.unheard and not self._unheard:
            self._say(f"nothing was heard of {self._name} for a while; it is waited for: `headway status` says more")
        self._unheard = brief.unheard
        if brief.state not in OVER or brief.unheard:
            return None
        led, _ = tried("", named(self._place, self._name).is_led)  # it is just resumed, and does not say so yet
        return None if led else brief

    def _ready(self, follow: bool, lives: bool, tail: int | None) -> bool:
        """Whether what is wanted is known to be there, or to come; False where that cannot be asked now.

        Args:
            follow: whether it is waited for; else that is an error.
            lives: whether the run is not over.
            tail: lines that are wanted.

        Raises:
            BadInput: that is no log, or nothing could be asked.
        """
        there, unread = tried(str(self._place), lambda: sources(self._storage))
        if there is not None:
            self._demand(there, follow and lives)
            if tail is not None:
                _, unread = tried(str(self._place), lambda: self._reader.skip(tail))
        if unread is None:
            return True
        if not follow:
            raise asking.nothing(unread)
        self._lack(unread.reason)
        return False

    def _demand(self, there: Sequence[str], waits: bool) -> None:
        """Raises BadInput where that is no log. waits: it may come."""
        if (self._only is None or self._only in there) if there else waits:
            return
        if not there and self._only is None:
            reason = f"nothing is in {named(self._place, self._name).where}/logs"
            raise BadInput(f"{self._name} has no log", reason, "Whose words are kept, and how long: docs/runs.md.")
        known = [source.removeprefix(WORKER) for source in there]
        asked = str(self._only).removeprefix(WORKER)
        raise BadInput(f"{self._name} has no log of {asked!r}", "", nearest(asked, known) if known else "It has none.")


def _of_ray(
    address: str | None, name: str, why: str, follow: bool, only: str | None, tail: int | None, say: Say
) -> Iterator[Line]:
    """What Ray keeps of the driver."""
    if only not in (None, DRIVER):
        reason = f"{why}, and Ray's own log has the driver's words only"
        raise BadInput(f"the log of {str(only).removeprefix(WORKER)} cannot be read from here", reason, "See --runs.")
    say(f"{name} cannot be read where it is kept ({why}): this is Ray's own log of its driver")
    found = RayLog(str(asking.cluster(address)), name, say).lines(follow)
    yield from deque(found, tail) if tail is not None and not follow else found


def _found(place: Place, of: Sequence[Job], unread: Unread | None) -> tuple[Place, Brief | None, str]:
    """Where the newest submission of a run says that it is kept, and what is there; or why it cannot be read."""
    job = of[-1]
    if unread is not None and asking.kept_in(job, place) is not False:
        return place, None, unread.reason
    if not job.runs:
        return place, None, "its place is what the cluster's machines say: give it with --runs"
    if not is_url(job.runs) and not Path(job.runs).is_dir():
        return place, None, f"{job.runs} is a folder of the cluster's machines"
    there = Place.of(job.runs)
    brief, unread = tried(job.runs, lambda: kept.glance(there, job.run))
    return there, brief, unread.reason if unread is not None else ""


def _awaited(place: Place, name: str, address: str | None, follow: bool, say: Say) -> Brief | None:
    """A run that was submitted and is not there yet: None where it does not come, or is not waited for."""
    said = False
    while follow:
        brief, _ = tried(str(place), lambda: kept.glance(place, name))
        jobs, _ = asking.jobs(address)
        over = jobs is not None and all(job.ended is not None for job in asking.leading(jobs) if job.run == name)
        if brief is not None or over:
            return brief
        if not said:
            say(f"{name} was submitted, and has not begun; it is waited for")
        said = True
        time.sleep(STORE_S)
    return None


def _for_people(lines: Iterator[Line]) -> Iterator[Line]:
    return (line for line in lines if not told.is_told(line.text))


def _source(worker: str | None) -> str | None:
    if worker is None or worker == DRIVER or worker.startswith(WORKER):
        return worker
    return worker_source(worker)
