"""`headway ls` and `headway status`: what runs' places and a cluster's list of jobs say, together.

Either may be out of reach. Then that is said, and what the other one knows is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from headway import runs as kept
from headway.jobs.look import asking
from headway.jobs.look.asking import Unread, tried
from headway.jobs.look.rows import Job, Row, row
from headway.runs import Brief, Place, telling

NOT_ASKED = "no cluster was asked (--address)"
NOT_REACHED = "Ray could not be asked"
AT_ONCE = 16

Key = tuple[str, str]
"""A place as it was said, "" for what the cluster's machines say, and a run's name."""


@dataclass(frozen=True)
class Listing:
    """What is known of runs, oldest first, and what could not be asked."""

    runs: tuple[Row, ...]
    unread: tuple[Unread, ...] = ()


def ls(*, runs: str | Path | None = None, address: str | None = None) -> Listing:
    """All runs of a place, and all that were submitted to a cluster, oldest first. Runs of a folder whose leader is
    gone are closed, in MLflow too.

    Args:
        runs: where runs are kept: a folder or URL; HEADWAY_RUNS, the user's config file, else "runs" when not given.
        address: of a cluster, http://HOST:PORT; RAY_API_SERVER_ADDRESS, or RAY_ADDRESS where it is such a one, when not
            given; without any no cluster is asked. Its runs are looked up where they are kept.

    Raises:
        BadInput: neither could be asked, or what was given is no place or no address.
    """
    place, ask = Place.of(runs), asking.cluster(address)
    with ThreadPoolExecutor(2, thread_name_prefix="ask") as pool:
        asked = pool.submit(asking.jobs, address)
        briefs, unread = tried(str(place), lambda: kept.outline(place))
        jobs, unasked = asked.result()
    telling.tell_left(place, briefs or ())
    if briefs is None and jobs is None:
        raise asking.nothing(unread, unasked)
    known = {brief.run: brief for brief in briefs or ()}
    here, elsewhere = _sorted(jobs or (), place, known)
    found, apart = _looked_up(elsewhere)
    why = not_asked(ask, unasked)
    reason = unread.reason if unread is not None else ""
    rows = [
        row(name, place.place_of(name), known.get(name), here.get(name, ()), reason, why)
        for name in dict.fromkeys([*known, *here])
        if name in known or reason or not _removed(here[name])
    ]
    for (where, name), of in elsewhere.items():
        brief, lacks = found.get((where, name)), apart.get(where, "")
        if brief is not None or lacks or not _removed(of):
            rows.append(row(name, f"{where.rstrip('/')}/{name}" if where else "", brief, of, lacks, why))
    said = [Unread(where, lacks) for where, lacks in apart.items() if where]
    began = {brief.run: brief.created for brief in known.values()}
    rows.sort(key=lambda each: began.get(each.run, each.since or 0.0))
    return Listing(tuple(rows), tuple(each for each in (unread, unasked, *said) if each is not None))


def not_asked(ask: str | None, unasked: Unread | None) -> str:
    """Why Ray says nothing, in a few words; empty where it was asked. ask: the cluster that was to be asked."""
    return NOT_REACHED if unasked is not None else NOT_ASKED if ask is None else ""


def _sorted(
    jobs: Iterable[Job], place: Place, known: Mapping[str, Brief]
) -> tuple[dict[str, list[Job]], dict[Key, list[Job]]]:
    """Submissions by the run's name, of this place; and by place and name, of others."""
    here: dict[str, list[Job]] = {}
    elsewhere: dict[Key, list[Job]] = {}
    for job in asking.leading(jobs):
        same = asking.kept_in(job, place)
        if same or (same is None and job.run in known):
            here.setdefault(job.run, []).append(job)
        else:
            elsewhere.setdefault((job.runs, job.run), []).append(job)
    return here, elsewhere


def _looked_up(keys: Iterable[Key]) -> tuple[dict[Key, Brief], dict[str, str]]:
    """What other places say of these runs; and why a place could not be read."""
    found: dict[Key, Brief] = {}
    apart: dict[str, str] = {}

    def look(key: Key) -> None:
        where, name = key
        reason = asking.out_of_sight(where)
        if not reason:
            brief, unread = tried(where, lambda: kept.glance(Place.of(where), name))
            reason = unread.reason if unread is not None else ""
            if brief is not None:
                found[key] = brief
        if reason:
            apart[where] = reason

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="look") as pool:
        list(pool.map(look, keys))
    return found, apart


def _removed(jobs: Sequence[Job]) -> bool:
    """Whether all of a run that ended well is gone: it was there, and was removed since."""
    return jobs[-1].status == "SUCCEEDED"
