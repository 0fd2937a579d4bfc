"""`headway status`: all that is known of one run, from its place and from a cluster's list of jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway import runs as kept
from headway.errors import HeadwayError
from headway.jobs.look import asking
from headway.jobs.look.asking import Unread, tried
from headway.jobs.look.listing import not_asked
from headway.jobs.look.rows import Job, Row, row, words
from headway.runs import Brief, Place
from headway.runs.closing import close

GIVEN_UP_S = 1800.0
"""A run of which nothing was heard for so long, by two machines' clocks, and for as long again as its leader may go on
without its place (`checkpoint.fail_after`), is closed by who looks at it."""


@dataclass(frozen=True)
class Status:
    """What is known of one run.

    Args:
        row: as `headway ls` has it.
        loss: of the newest step.
        metrics: the latest numbers by name.
        trouble: what goes wrong while it trains on.
        checkpoint: step of the newest one; checkpoint_at: Unix seconds, when it was written.
        leader: the process that leads it, or led it last.
        lately: the newest that happened, oldest first: Unix seconds, and words.
        submissions: in Ray's list, oldest first: id, status, message, started, ended, by.
        unread: what could not be asked.
    """

    row: Row
    loss: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""
    checkpoint: int | None = None
    checkpoint_at: float | None = None
    leader: str = ""
    lately: tuple[tuple[float, str], ...] = ()
    submissions: tuple[dict[str, Any], ...] = ()
    unread: tuple[Unread, ...] = ()


@dataclass
class _Seen:
    """What was found of a run.

    Args:
        path: of the run.
        brief: of its place; unread: why that could not be read.
        leader: in words.
        jobs: its submissions in Ray's list, oldest first; unasked: why that could not be asked.
    """

    place: Place
    path: str
    brief: Brief | None
    unread: Unread | None
    leader: str
    jobs: Sequence[Job]
    unasked: Unread | None


def status(
    run: str,
    *,
    runs: str | Path | None = None,
    address: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Status:
    """All that is known of one run. Where it says that it is running, and its leader is gone for sure, or was not heard
    of for very long, its books are closed.

    Args:
        run: its name, or its folder or URL.
        runs, address: as for `ls`.
        say: takes a line for people, where this takes a while.

    Raises:
        BadInput: there is none of that name, neither there nor on the cluster; or neither could be asked.
    """
    place, name = asking.place_of(run, runs)
    seen = _seen(place, name, address)
    if seen.brief is None and not seen.jobs:
        if seen.unread is not None:
            raise asking.nothing(seen.unread, seen.unasked)
        unasked = seen.unasked
        raise asking.nowhere(place, name, address, unasked, str(unasked) if unasked is not None else "")
    if seen.brief is not None and is_left(seen.brief, seen.jobs):
        seen.brief = closed(seen.place, seen.brief, say)
    return _told(name, seen, not_asked(asking.cluster(address), seen.unasked))


def _seen(place: Place, name: str, address: str | None) -> _Seen:
    """In the place, or where the cluster's list says that the run is, if the place has none of that name."""
    with ThreadPoolExecutor(2, thread_name_prefix="ask") as pool:
        asked = pool.submit(asking.jobs, address)
        looked = pool.submit(tried, str(place), lambda: kept.leader(place, name))
        brief, unread = tried(str(place), lambda: kept.glance(place, name))
        (jobs, unasked), (leader, _) = asked.result(), looked.result()
    of = asking.of_run(jobs or (), name, place)
    where, there = ("", []) if brief is not None or unread is not None else asking.elsewhere(place, name, jobs or ())
    if not there:
        return _Seen(place, place.place_of(name), brief, unread, leader or "", of, unasked)
    path, lacks = f"{where.rstrip('/')}/{name}", asking.out_of_sight(where)
    if lacks:
        return _Seen(place, path, None, Unread(where, lacks), "", there, unasked)
    place = Place.of(where)
    brief, unread = tried(where, lambda: kept.glance(place, name))
    leader, _ = tried(where, lambda: kept.leader(place, name))
    return _Seen(place, path, brief, unread, leader or "", there, unasked)


def _told(name: str, seen: _Seen, unasked: str) -> Status:
    brief = seen.brief
    line = row(name, seen.path, brief, seen.jobs, seen.unread.reason if seen.unread is not None else "", unasked)
    fields = ("id", "status", "started", "ended", "by")
    told = [{**{each: getattr(job, each) for each in fields}, "message": words(job)} for job in seen.jobs]
    said = tuple(each for each in (seen.unread, seen.unasked) if each is not None)
    if brief is None:
        return Status(line, submissions=tuple(told), unread=said)
    return Status(
        row=line,
        loss=brief.loss,
        metrics=brief.metrics,
        trouble=brief.trouble if line.state == "running" else "",
        checkpoint=brief.checkpoint,
        checkpoint_at=brief.checkpoint_at,
        leader=seen.leader,
        lately=brief.lately,
        submissions=tuple(told),
        unread=said,
    )


def is_left(brief: Brief, jobs: Sequence[Job] = ()) -> bool:
    """Whether the run is to be closed: it says that it is running, and nobody leads it.

    That its place has not heard of it for a while is not enough: a leader that cannot reach its store trains on.
    """
    if not brief.unclosed:
        return False
    ended = any(job.ended is not None for job in jobs if job.id == brief.submission)
    return not brief.unheard or ended or time.time() - brief.last > GIVEN_UP_S + brief.alone_s


def closed(place: Place, brief: Brief, say: Callable[[str], None]) -> Brief:
    """The run with its books closed, if they can be."""
    try:
        if close(kept.find(place, brief.run), say=say) is not None:
            return kept.glance(place, brief.run) or brief
    except (HeadwayError, OSError):  # it is only read here, or somebody else leads it
        pass
    return brief
