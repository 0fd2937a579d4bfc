"""What is found wrong with a sweep before it costs anything, and needs its data or torch to be found."""

from __future__ import annotations

from itertools import islice

from headway.errors import BadInput
from headway.sweeps.events import Config
from headway.sweeps.file import Sweep
from headway.sweeps.settings import shown
from headway.sweeps.ways import Ways

CORNERS = 64
"""Settings at the space's edges that are looked at."""


def admit(sweep: Sweep, ways: Ways) -> None:
    """Look at trials at the edges of the space.

    Raises:
        BadInput: the budget is below one trial; an optimiser does not take its options; or the data cannot be used.
    """
    _check_budget(sweep, ways)
    if any(key.startswith("optimizer") for key in sweep.space):
        for config in corners(sweep):
            _check_optimizer(sweep, config)


def corners(sweep: Sweep) -> list[Config]:
    """Settings at the space's edges."""
    return list(islice(sweep.searched.corners(), CORNERS))


def _check_budget(sweep: Sweep, ways: Ways) -> None:
    if sweep.budget.steps is None:
        return
    shortest = min(ways(config).length for config in corners(sweep)) * sweep.repeats
    if sweep.budget.steps < shortest:
        raise BadInput(
            f"budget.steps={sweep.budget.steps} is below one trial",
            f"the shortest has {shortest} steps{f' in its {sweep.repeats} runs' if sweep.repeats > 1 else ''}",
            f"Set it to {shortest} or more, or make trials shorter.",
        )


def _check_optimizer(sweep: Sweep, config: Config) -> None:
    from torch import nn

    from headway.optim import named_optimizer

    section = sweep.job_of(config).optimizer
    if section is None:
        return
    try:
        named_optimizer(section, nn.Linear(1, 1))
    except BadInput as error:
        remedy = "Give the key a condition, like when: {optimizer.name: sgd}, and leave it out of the job."
        raise BadInput(f"{error.fact} (with {shown(config)})", error.reason, remedy) from None
