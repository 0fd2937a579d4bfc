"""The scheduler that a sweep's file names."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from headway.core.rungs import steps_of
from headway.errors import BadInput
from headway.sweeps.events import Config
from headway.sweeps.schedule.plain import Plain
from headway.sweeps.schedule.promoting import Promoting
from headway.sweeps.schedule.protocol import Lengths, Scheduler

if TYPE_CHECKING:
    from headway.sweeps.file import Sweep

HALVINGS = 3
"""So many rungs before the end, where the file does not say where the first is."""
OCCASIONS = 10
"""So often a population's settings change, where the file does not say."""


def create(sweep: Sweep, lengths: Lengths) -> Scheduler:
    """A new scheduler.

    Args:
        sweep: that it is of.
        lengths: of its trials.
    """
    from headway.sweeps.schedule import kinds

    of, mode = sweep.scheduler, sweep.mode
    first = first_of(sweep, lengths)
    if of.name == "none":
        return Plain()
    if of.name == "asha" and of.promote:
        return Promoting(rungs_of(sweep, lengths), of.factor, mode)
    if of.name == "asha":
        return kinds.stopping(first, of.factor, mode, lengths, of.seed)
    if of.name == "hyperband":
        return kinds.hyperband(first, of.factor, mode, lengths, sweep.trials, of.seed)
    if of.name == "median":
        return kinds.median(first, of.least, mode, lengths, of.seed)
    every, trials = of.every or _evaluated(lengths.steps / OCCASIONS, lengths.every), sweep.trials or 1
    if of.name == "pbt":
        how = every, of.quantile, of.resample
        population = kinds.pbt(sweep.searched, *how, sweep.mutated, mode, lengths, trials, of.seed)
    else:
        population = kinds.pb2(sweep.searched, every, of.quantile, sweep.mutated, mode, lengths, trials, of.seed)
    population.sound = partial(_is_sound, sweep)
    return population


def _is_sound(sweep: Sweep, config: Config) -> bool:
    """Whether a job can be made of settings."""
    try:
        sweep.job_of(config)
    except BadInput:
        return False
    return True


def first_of(sweep: Sweep, lengths: Lengths) -> int:
    """The step of the first rung."""
    of = sweep.scheduler
    return of.first or _evaluated(lengths.steps / of.factor**HALVINGS, lengths.every)


def rungs_of(sweep: Sweep, lengths: Lengths) -> tuple[int, ...]:
    """Steps of the rungs of a sweep by ASHA, before a trial's end."""
    return steps_of(first_of(sweep, lengths), sweep.scheduler.factor, lengths.steps, lengths.every)


def _evaluated(step: float, every: int) -> int:
    """The evaluation at or after a step."""
    return max(1, math.ceil(step / every)) * every
