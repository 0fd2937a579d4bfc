"""Runs by their names, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.errors import BadInput
from headway.runs import folder, listing
from headway.runs.folder import RunFolder
from headway.runs.listing import Brief
from headway.runs.place import SWEEP, Place, is_url, local_folder, split

if TYPE_CHECKING:
    from headway.job import Job


def create(place: Place | Path, name: str | None, job: Job, facts: Mapping[str, Any] | None = None) -> RunFolder:
    """Make a new run.

    Args:
        facts: further ones of its run.json, there from the first moment on.

    Raises:
        Taken: the name is.
        BadInput: it is not usable, or nothing can be written there.
    """
    place = _place(place)
    if place.url is None:
        return folder.create(place.folder, name, job, facts)
    from headway.runs import far

    return far.create(place, name, job, facts)


def find(place: Place | Path, name: str) -> RunFolder:
    """The run called `name`, which may also be its folder or URL.

    Raises:
        NoRun: there is none; names the nearest.
    """
    place = _place(place)
    if is_url(name):
        url, name = split(name)
        place = Place.of(url)
    elif name.lower().startswith("file:"):
        name = str(local_folder(name, "no run can be"))
    if place.url is None:
        return folder.find(place.folder, name)
    if "/" in name and folder.is_run(Path(name)):
        return RunFolder(Path(name).resolve())
    from headway.runs import far

    return far.find(place, name)


def named(place: Place, name: str) -> RunFolder:
    """A run that a listing has, as it is: of one in a store no working copy is made."""
    if place.url is None:
        return RunFolder(place.folder.resolve() / name)
    from headway.runs import far

    return far.FarRun(place.folder.resolve() / name, place)


def every(place: Place | Path) -> list[RunFolder]:
    """All runs of a folder, oldest first."""
    return folder.every(_place(place).folder)


def briefs(place: Place | Path) -> list[Brief]:
    """All runs of a place at a glance, oldest first."""
    return [brief for brief in outline(place) if brief.kind != SWEEP]


def outline(place: Place | Path) -> list[Brief]:
    """All runs and sweeps of a place at a glance, oldest first."""
    place = _place(place)
    if place.url is None:
        return listing.in_folder(place.folder)
    from headway.runs import far

    return far.briefs(place)


def glance(place: Place | Path, name: str) -> Brief | None:
    """One run at a glance; None where there is none of that name, or it is damaged."""
    place = _place(place)
    if place.url is not None:
        from headway.runs import far

        found = far.glance(place, name)
        return found if found is None or found.kind != SWEEP else None
    with suppress(BadInput):
        return listing.of_folder(RunFolder(place.folder.resolve() / name))
    return None


def leader(place: Place | Path, name: str) -> str:
    """The process that leads a run, or led it last, and since when, in words; empty where that is not known."""
    place = _place(place)
    if place.url is None:
        run = RunFolder(place.folder.resolve() / name)
        closed = run.read().get("closed") or {}  # by somebody who looked, and led it for that moment
        return str(closed.get("leader") or run.leader())
    from headway.runs import far

    return far.leader(place, name)


def _place(place: Place | Path) -> Place:
    return place if isinstance(place, Place) else Place(str(place), place)
