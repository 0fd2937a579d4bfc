"""Runs are removed, or only their checkpoints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from headway.errors import BadInput
from headway.notation.times import seconds
from headway.runs.finding import briefs, find, named
from headway.runs.folder import GONE
from headway.runs.listing import Brief
from headway.runs.place import Place


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
) -> Pruned:
    """Remove runs.

    Args:
        place: that holds them.
        names: only these; one that is led is an error then.
        older_s: only those of which nothing was heard for so long.
        keep: never the newest so many of the place.
        checkpoints_only: keep their records.
        dry_run: only say what would go.

    Raises:
        BadInput: nothing says which, there is no such run, or a named one is led; nothing was removed.
    """
    if not names and older_s is None and keep is None:
        remedy = "Name runs, or say which: --older-than 30d, --keep 10."
        raise BadInput("headway runs prune", "it removes nothing that was not chosen", remedy)
    all_runs = briefs(place)
    known = {brief.run: brief for brief in all_runs}
    chosen = [known.get(name) or known[_named_in(place, name)] for name in dict.fromkeys(names)] or all_runs
    spared = {brief.run for brief in all_runs[len(all_runs) - keep :]} if keep else set()
    for brief in chosen if names else ():
        with named(place, brief.run).still():
            pass
    done, now = Pruned(), time.time()
    for brief in chosen:
        if brief.run in spared or (older_s is not None and now - brief.last < older_s):
            continue
        _one(place, brief, checkpoints_only, dry_run, done)
    if not dry_run and place.url is None:
        for left in place.folder.glob(f"{GONE}*"):  # of a prune that was killed
            shutil.rmtree(left, ignore_errors=True)
    return done


def _named_in(place: Place, name: str) -> str:
    """The name of one of the place's runs, from its folder or URL. Raises BadInput where it is none of them."""
    run = find(place, name)
    if run.where != place.place_of(run.name):
        where = run.where.rpartition("/")[0]
        remedy = f"Say so: headway runs prune {run.name} --runs {where}"
        raise BadInput(f"{run.where} is not one of the runs in {place}", "only those are removed", remedy)
    return run.name


def _one(place: Place, brief: Brief, checkpoints_only: bool, dry_run: bool, done: Pruned) -> None:
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
