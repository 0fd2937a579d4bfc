"""Runs are removed, or only their checkpoints; a sweep with all of its trials, as one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from headway.errors import BadInput
from headway.notation.times import seconds
from headway.runs.finding import find, named, outline
from headway.runs.folder import GONE, NEW
from headway.runs.listing import Brief
from headway.runs.place import SWEEP, Place
from headway.runs.telling import untold

TRACKING_S = 20.0
"""For the tracking store, of each run."""
NEW_S = 3600.0
"""Whoever began to make a run so long ago was killed meanwhile."""


@dataclass
class Pruned:
    """What became of the runs that were chosen.

    Args:
        removed: their names.
        left: the others, and why.
        bytes: that were freed.
    """

    removed: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    bytes: int = 0


def age_s(text: str) -> float:
    """Seconds of "90m", "12h", "30d" or "2w"."""
    return seconds("--older-than", text)


def prune(
    place: Place,
    names: Sequence[str] = (),
    older_s: float | None = None,
    keep: int | None = None,
    checkpoints_only: bool = False,
    dry_run: bool = False,
    unsent: bool = False,
) -> Pruned:
    """Remove runs.

    Args:
        place: that holds them.
        names: only these runs and sweeps; one that is led is an error then, and so is a trial of such a sweep.
        older_s: only those of which nothing was heard for so long.
        keep: never the newest so many of the place.
        checkpoints_only: keep their records.
        dry_run: only say what would go.
        unsent: also what the tracking store does not take; else such a run stays, as it would be under way there for
            ever.

    Raises:
        BadInput: nothing says which, there is no such run, or a named one is led; nothing was removed.
    """
    if not names and older_s is None and keep is None:
        remedy = "Name runs, or say which: --older-than 30d, --keep 10."
        raise BadInput("headway runs prune", "it removes nothing that was not chosen", remedy)
    everything = outline(place)
    known = {brief.run: brief for brief in everything}
    all_runs = [brief for brief in everything if brief.sweep not in known]
    chosen = [known.get(name) or known[_named_in(place, name)] for name in dict.fromkeys(names)] or all_runs
    spared = {brief.run for brief in all_runs[len(all_runs) - keep :]} if keep else set()
    for brief in chosen if names else ():
        for name in (brief.run, brief.sweep):  # what a sweep that is led has paused is led by nobody, and yet its own
            with named(place, name).still() if name in known else nullcontext():
                pass
    done, now = Pruned(), time.time()
    for brief in chosen:
        if brief.run in spared or (older_s is not None and now - brief.last < older_s):
            continue
        trials = [each for each in everything if each.sweep == brief.run] if brief.kind == SWEEP else []
        _together(place, brief, trials, checkpoints_only, dry_run, unsent, done)
    if not dry_run and place.url is None:
        for left in (*place.folder.glob(f"{GONE}*"), *_never_made(place.folder, now)):  # by those that were killed
            shutil.rmtree(left, ignore_errors=True)
    return done


def _never_made(folder: Path, now: float) -> Iterator[Path]:
    for path in folder.glob(f"{NEW}*"):
        with suppress(OSError):
            if now - path.stat().st_mtime > NEW_S:
                yield path


def _named_in(place: Place, name: str) -> str:
    """The name of one of the place's runs, from its folder or URL. Raises BadInput where it is none of them."""
    run = find(place, name)
    if run.where != place.place_of(run.name):
        where = run.where.rpartition("/")[0]
        remedy = f"Say so: headway runs prune {run.name} --runs {where}"
        raise BadInput(f"{run.where} is not one of the runs in {place}", "only those are removed", remedy)
    return run.name


def _together(
    place: Place,
    brief: Brief,
    trials: Sequence[Brief],
    checkpoints_only: bool,
    dry_run: bool,
    unsent: bool,
    done: Pruned,
) -> None:
    """A run; or a sweep, which goes before its trials: nobody takes it up when some of them are gone."""
    if brief.kind != SWEEP or not checkpoints_only:
        _one(place, brief, checkpoints_only, dry_run, unsent, done)
    elif (why := _led(place, brief)) is not None:
        done.left[brief.run] = why
    if brief.run not in done.left:
        for each in trials:
            _one(place, each, checkpoints_only, dry_run, unsent, done)


def _led(place: Place, brief: Brief) -> str | None:
    """Why it may not be touched."""
    try:
        with named(place, brief.run).still():
            return None
    except BadInput as error:
        return error.reason or error.fact


def _one(place: Place, brief: Brief, checkpoints_only: bool, dry_run: bool, unsent: bool, done: Pruned) -> None:
    if not (checkpoints_only or dry_run or unsent):
        why = untold(place, brief, TRACKING_S)
        if why:
            done.left[brief.run] = f"{why}; `headway sync {brief.run}` sends them, --unsent removes it without"
            return
    run = named(place, brief.run)
    size = run.size(checkpoints_only)
    try:
        if dry_run:
            with run.still():
                pass
        else:
            run.remove(checkpoints_only)
    except BadInput as error:
        done.left[brief.run] = error.reason or error.fact
        return
    done.removed.append(brief.run)
    done.bytes += size
