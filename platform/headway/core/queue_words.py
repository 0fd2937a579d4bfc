"""Why the queue does what it does, in words: pure text."""

from __future__ import annotations

from collections.abc import Sequence

from headway.core.queued import Each, Queued


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def taking(each: Each) -> str:
    """What one worker takes."""
    parts = [plural_of(each.cpus, "CPU")] if each.cpus else []
    parts += [plural_of(each.gpus, "GPU")] if each.gpus else []
    parts += [f"{each.memory / 2**30:.3g} GiB"] if each.memory else []
    return ", ".join(parts) or "nothing"


def plural_of(amount: float, noun: str) -> str:
    return f"{amount:g} {noun}" if amount == 1 else f"{amount:g} {noun}s"


def some(names: Sequence[str]) -> str:
    """A few of them, and how many more."""
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def needs(job: Queued, least: int) -> str:
    return f"{job.job} needs {plural(least, 'worker')} of {taking(job.each)} at least"


def no_room(workers: int, each: Each, fit: int) -> str:
    wants = f"needs {plural(workers, 'worker')} of {taking(each)}"
    return f"{wants}, and room for {fit} can be had from jobs of its priority or lower"


def held_for(job: str) -> str:
    return f"room is held for {job}, which has waited longest"


def full(running: int) -> str:
    return f"{plural(running, 'job')} run, as many as may at a time"


def begins(size: int, least: int, most: int, after: Sequence[str]) -> str:
    how = f"there is room for {size} of at most {most}"
    if after:
        return f"{how} once {some(after)} gave up theirs"
    return how if size > least else f"there is room for its least, {size}"


def grows(size: int, most: int) -> str:
    return "as many as its job allows" if size >= most else f"there is room for {size} of at most {most}"


def shrinks(size: int, least: int, takers: Sequence[str], lost: int) -> str:
    if lost:
        return f"there is no room for {lost} that it was given, since nodes went or drain"
    whom = f"to make room for {some(takers)}" if takers else "more do not pay"
    return f"{whom}{', at its least now' if size == least else ''}"


def paused_for(job: str) -> str:
    return f"{job} of higher priority would have no place even if all of lower priority had their least"
