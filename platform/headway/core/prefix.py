"""How long two runs are the same run.

Two runs that differ in nothing but their schedule and their length have the same state after s steps if the factors on
their learning rates agree for the updates 0 to s: that of update s too, for the optimiser holds it already. A schedule
that follows from the run's length shares its warm-up with one of another length, and nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headway.core.schedules import BY_LENGTH, Shape


@dataclass(frozen=True)
class Course:
    """What a run computes.

    Args:
        steps: of all of it.
        rest: the same for runs that differ in nothing but schedule and length.
        shape: of its learning rate; None where that is not known: code of the user's own, or evaluations, decide.
    """

    steps: int
    rest: str
    shape: Shape | None


def common(one: Course, other: Course) -> int:
    """After how many steps both have the same state, at most; 0: they share nothing."""
    if one.rest != other.rest:
        return 0
    if one == other:
        return one.steps
    if one.shape is None or other.shape is None:
        return 0
    most = min(one.steps, other.steps)
    if one.shape.name not in BY_LENGTH and _endless(one.shape) == _endless(other.shape):
        return most
    first, second = one.shape.factor, other.shape.factor
    return max(0, next((step for step in range(most + 1) if first(step) != second(step)), most + 1) - 1)


def _endless(shape: Shape) -> tuple[object, ...]:
    """All that a schedule follows from which does not know the run's length."""
    return shape.name, shape.warmup_steps, shape.options


@dataclass(frozen=True)
class Beginning:
    """What a run need not compute itself.

    Args:
        source: which run's it is, by its place among all.
        steps: of them.
    """

    source: int
    steps: int


def beginnings(courses: Sequence[Course]) -> list[Beginning | None]:
    """Of each run, in order: the longest beginning that it shares with one before it; of several the first's."""
    found: list[Beginning | None] = []
    alike: dict[str, list[int]] = {}
    for number, course in enumerate(courses):
        before = alike.setdefault(course.rest, [])
        shared = [(common(courses[other], course), -other) for other in before]
        steps, source = max(shared, default=(0, 0))
        found.append(Beginning(-source, steps) if steps else None)
        before.append(number)
    return found
