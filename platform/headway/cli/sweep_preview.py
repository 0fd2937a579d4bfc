"""What `headway sweep preview` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headway.cli.clock import lasting

if TYPE_CHECKING:
    from headway.sweeps.preview import Cost, Preview


def show(file: str, found: Preview) -> None:
    """Print it on standard output."""
    print(f"{file}: good")
    for name, value in lines(found):
        print(f"{name:>18}  {value}")


def lines(found: Preview) -> Iterator[tuple[str, str]]:
    """Names and what they are, in words."""
    trials = "as many as the budget allows" if found.trials is None else f"{found.trials:,}"
    repeats = f", {found.repeats} runs of each" if found.repeats > 1 else ""
    yield "trials", f"{trials}{repeats}"
    yield "search", found.search
    yield "scheduler", found.scheduler
    shortest, longest = found.length
    yield "steps of a trial", f"{shortest:,}" if shortest == longest else f"{shortest:,} to {longest:,}"
    yield "evaluated", "at its end" if found.every is None else f"every {found.every:,} steps"
    yield "workers", f"{_range(*found.workers)}, of which a trial has {_range(*found.trial_workers)}"
    yield "at once", f"{found.at_once:,} trials" if found.at_once > 1 else "1 trial"
    yield "order", found.order
    for rung in found.rungs:
        yield f"step {rung.step:,}", f"at most {rung.most:,} trials come there, by chance {rung.about:,}"
    for name, cost in (("every trial whole", found.whole), ("at worst", found.most), ("by chance", found.about)):
        if cost is not None:
            yield name, _cost(cost)
    if found.seconds is not None:
        yield "takes at worst", f"{lasting(found.seconds)} with {found.workers[1]} workers that are always busy"
    if found.shared:
        yield "in common", found.shared
    for note in found.notes:
        yield "note", note


def _range(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _cost(cost: Cost) -> str:
    said = f"{cost.steps:,} steps"
    if cost.worker_s is not None:
        said += f", {cost.worker_s:,.0f} worker-seconds ({cost.worker_s / 3600:,.2f} worker-hours)"
    return said if cost.dollars is None else f"{said}, {_dollars(cost.dollars)} dollars"


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.2g}"
