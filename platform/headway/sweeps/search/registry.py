"""The searcher that a sweep's file names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headway.sweeps.search.protocol import Known, Searcher

if TYPE_CHECKING:
    from headway.sweeps.file import Sweep

STARTUP = 10
"""Trials that come from chance before a model counts, where the file does not say."""

SLOW = ("gp",)
"""Searchers of ours that think for longer than a worker should wait."""


def create(sweep: Sweep, known: Sequence[Known] = ()) -> Searcher:
    """A new searcher.

    Args:
        sweep: whose space it searches, and whose seed it has.
        known: from earlier sweeps: models learn of it; the others begin with the best of it.

    Raises:
        BadInput: the user's own is not there, or does not take this space.
        SearcherFailed: it raised.
    """
    from headway.sweeps.search import density, draws, models, theirs

    space, search = sweep.searched, sweep.search
    known = [each for each in known if not space.fault(each.config)]
    if search.own:
        return theirs.brought(search.name, search.arguments, space, sweep.metric, sweep.mode, search.seed, known)
    if search.name == "density":
        startup = search.startup or density.startup_of(sweep.trials)
        return density.Density(space, search.seed, sweep.mode, startup, known)
    if search.name == "random":
        return draws.Random(space, search.seed, draws.firsts(known, sweep.mode))
    if search.name == "grid":
        return draws.Grid(space, draws.firsts(known, sweep.mode))
    if search.name == "sobol":
        return draws.Sobol(space, search.seed, draws.firsts(known, sweep.mode))
    startup = search.startup or STARTUP
    if search.name == "tpe":
        tpe = models.tpe(search.seed, startup, groups=space.conditional)
        return models.Modelled(space, tpe, False, sweep.mode, search.seed, known)
    sampler = models.gp if search.name == "gp" else models.cmaes
    return models.Modelled(space, sampler(search.seed, startup), True, sweep.mode, search.seed, known)


def ahead(sweep: Sweep) -> int:
    """How many suggestions are to be in stock before there is room for them: of a searcher that may take its time one,
    so that nobody waits for it. The others are asked when there is room, and have heard more by then."""
    return 1 if sweep.search.own or sweep.search.name in SLOW else 0
