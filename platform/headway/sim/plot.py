"""One picture of a comparison: nodes there, workers that train, and what was committed, over time."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

from headway.errors import BadInput
from headway.sim.compare import Comparison

PIXELS = 600


def plot(comparison: Comparison, path: Path) -> None:
    """Draw to a file; the ending says the format.

    Raises:
        BadInput: matplotlib is not there, or does not know the ending.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInput("the plot needs matplotlib", str(error), "Run `pip install matplotlib`.") from error
    figure = Figure(figsize=(10, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    until = comparison.trace.until
    hours = [until * i / PIXELS / 3600 for i in range(PIXELS + 1)]
    for i, (name, account) in enumerate(comparison.accounts.items()):
        times = [at for at, *_ in account.points]
        if not i:
            above.step(
                hours, [_at(account.points, times, h * 3600, 1) for h in hours], "k", where="post", label="nodes"
            )
        if name == "live":
            members = [_at(account.points, times, h * 3600, 2) for h in hours]
            above.step(hours, members, where="post", label="members")
        below.plot(hours, _mean_speed(account.points, until), label=f"{account.policy} ({account.goodput:.3f})")
    above.set_ylabel("nodes, members")
    below.set_ylabel("throughput, share of full strength")
    below.set_xlabel("hours")
    above.set_title(f"{comparison.trace.name}: {comparison.trace.losses} losses, at most {comparison.workers} workers")
    above.legend()
    below.legend(title="policy (goodput)")
    try:
        figure.savefig(path)
    except (ValueError, OSError) as error:
        raise BadInput(
            f"the plot cannot be written to {path}", str(error), "Name a .png in a folder that is there."
        ) from error


def _at(points: list[tuple[float, int, int, float]], times: list[float], at: float, column: int) -> float:
    index = bisect_right(times, at) - 1
    return points[index][column] if index >= 0 else 0.0


def _mean_speed(points: list[tuple[float, int, int, float]], until: float) -> list[float]:
    """Mean of what was going on in each of the picture's stretches, shape [PIXELS + 1]."""
    width = until / PIXELS
    sums = [0.0] * (PIXELS + 1)
    for (start, *_, speed), (end, *_) in zip(points, [*points[1:], (until, 0, 0, 0.0)], strict=True):
        at = start
        while at < end and speed:
            cell = min(int(at / width), PIXELS)
            stop = end if cell == PIXELS else min(end, max((cell + 1) * width, at + width * 1e-6))
            sums[cell] += speed * (stop - at)
            at = stop
    sums[PIXELS] = sums[PIXELS - 1]
    return [s / width for s in sums]
