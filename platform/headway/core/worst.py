"""What a run can cost at most, as far as can be said before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headway.core.offers import times

HOUR_S = 3600.0


@dataclass(frozen=True)
class Worst:
    """Args:
    per_hour: dollars, with as many workers as may be, all on the dearest machines that it may get.
    hours: that it can last; None where nothing says.
    dollars: the product; None likewise.
    why: what the hours are, in words.
    """

    per_hour: float
    hours: float | None
    dollars: float | None
    why: str


def worst(
    machines: int,
    machine_per_hour: float,
    head_per_hour: float = 0.0,
    deadline_s: float | None = None,
    steps: int | None = None,
    step_worker_s: float | None = None,
    fewest: int = 1,
) -> Worst:
    """With all machines from the beginning to the end.

    A run of so many steps lasts longest with the fewest workers, and costs most with the most: both are taken, since
    machines may be paid that do not train. So nothing that is bought for it while it goes on comes to more, but for
    steps that are done again.

    Args:
        machines: as many as carry the most workers.
        machine_per_hour, head_per_hour: dollars.
        deadline_s: seconds after which it ends in any case.
        steps: of the run.
        step_worker_s: seconds of one worker for a step.
        fewest: workers.
    """
    per_hour = machines * machine_per_hour + head_per_hour
    found: list[tuple[float, str]] = []
    if deadline_s is not None:
        found.append((deadline_s / HOUR_S, "until its deadline"))
    if steps is not None and step_worker_s is not None:
        each = step_worker_s / fewest
        found.append((steps * each / HOUR_S, f"for {steps:,} steps of {each:.3g} s, with {fewest} at work"))
    if not found:
        return Worst(per_hour, None, None, "neither a deadline nor the pace of a step is known")
    hours, why = min(found)
    return Worst(per_hour, hours, hours * per_hour, why)


def machines_for(workers: int, each: dict[str, float], has: dict[str, float]) -> int | None:
    """How many machines carry so many workers; None where none fits.

    Args:
        workers: how many.
        each: what one takes, by Ray's names.
        has: what a machine gives out.
    """
    fits = min((times(has.get(name, 0.0), amount) for name, amount in each.items() if amount > 0), default=workers)
    return math.ceil(workers / fits) if fits > 0 else None
