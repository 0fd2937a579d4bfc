"""When a run has learnt what it will: early stopping by a validation metric (Prechelt 1998, "Early stopping - but
when?", the rule by a count of evaluations without an improvement)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Args:
    metric: by name.
    patience: evaluations without an improvement after which it is over; at least 1.
    mode: min or max: whether less or more of the metric is better.
    min_delta: a change that is not larger than this is no improvement.
    """

    metric: str
    patience: int
    mode: str = "min"
    min_delta: float = 0.0


@dataclass(frozen=True)
class Course:
    """What evaluations have shown so far.

    Args:
        best: value; None before the first that is a number.
        best_step: that it was of.
        waited: evaluations since then.
    """

    best: float | None = None
    best_step: int = -1
    waited: int = 0


def judged(rule: Rule, course: Course, step: int, value: float) -> Course:
    """The course after an evaluation. A value that is no number is no improvement."""
    if value == value and (course.best is None or _better(rule, value, course.best)):
        return Course(value, step, 0)
    return Course(course.best, course.best_step, course.waited + 1)


def over(rule: Rule, course: Course) -> str:
    """Why it is over, in words; empty: it is not."""
    if course.waited < rule.patience:
        return ""
    times = "evaluation" if course.waited == 1 else f"{course.waited} evaluations"
    if course.best is None:
        return f"{rule.metric} was no number in the last {times}"
    least = f" by more than {rule.min_delta:g}" if rule.min_delta else ""
    return (
        f"{rule.metric} has not improved{least} in the last {times}: its best is {course.best:g}, "
        f"of step {course.best_step}"
    )


def _better(rule: Rule, value: float, best: float) -> bool:
    gain = best - value if rule.mode == "min" else value - best
    return gain > rule.min_delta
