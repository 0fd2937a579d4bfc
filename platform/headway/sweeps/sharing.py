"""What trials of a sweep have in common, before it runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from headway.carried import code
from headway.core.prefix import beginnings
from headway.sweeps import prefixes
from headway.sweeps.events import Config
from headway.sweeps.file import Sweep
from headway.sweeps.ways import Ways

LOOKED_AT = 64
"""Trials that are compared; each with all before it, step by step."""


@dataclass(frozen=True)
class Shared:
    """Beginnings that are the same.

    Args:
        trials: that were compared.
        alike: those of them that begin as one before them.
        steps: that are the same in all of these.
        of: steps of all that were compared.
    """

    trials: int = 0
    alike: int = 0
    steps: int = 0
    of: int = 0

    @property
    def said(self) -> str:
        """In words; empty where nothing is shared."""
        if not self.steps:
            return ""
        return f"{self.alike} of {self.trials} trials begin as another does: {self.steps:,} of {self.of:,} steps"

    def notes(self, sweep: Sweep) -> Iterator[str]:
        """What the file may say otherwise."""
        if self.steps and not sweep.share_prefix:
            yield "share_prefix: true would run what trials have in common once"
        if sweep.share_prefix and not self.steps:
            yield "share_prefix: trials have nothing in common: they differ from their first step on"


def configurations(sweep: Sweep) -> Iterator[Config]:
    """Those of a grid; else as many as one likes, by chance."""
    space = sweep.searched
    if sweep.search.name == "grid":
        yield from space.grid()
        return
    rng = random.Random(sweep.search.seed)
    while True:
        yield space.walk(lambda _, of: of.at(rng.random()))


def shared(sweep: Sweep, ways: Ways, trials: int | None) -> Shared:
    """Compare the first trials, as the searcher or chance has them.

    Args:
        trials: of the sweep; None where only its budget says.

    Raises:
        BadInput: the task's code is not there.
    """
    if not _may_share(sweep):
        return Shared()
    own = prefixes.own_of(code.locate(sweep.example.task))
    configs = islice(configurations(sweep), min(trials or LOOKED_AT, LOOKED_AT))
    jobs = [sweep.job_of(config) for config in configs]
    courses = [prefixes.course(job, ways.of(job).length, own) for job in jobs]
    found = [each for each in beginnings(courses) if each is not None]
    return Shared(len(jobs), len(found), sum(each.steps for each in found), sum(each.steps for each in courses))


def _may_share(sweep: Sweep) -> bool:
    """Whether two trials may differ in nothing but what comes later: all else is chosen from lists."""
    keys = sweep.searched.distributions
    late = [key for key in keys if key.partition(".")[0] in prefixes.APART]
    return bool(late) and all(of.listed is not None for key, of in keys.items() if key not in late)
