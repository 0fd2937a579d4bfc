"""Which checkpoint of a run is meant: the best, the last, or that of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from headway.core.retention import Kept, ranked
from headway.errors import BadInput, nearest

BEST, LAST = "best", "last"
USUAL = "loss"
"""What a job's `checkpoint.metric` is where nobody has written one: no promise of its task's."""
Step = Literal["best", "last"] | int
"""How a checkpoint is asked for."""


@dataclass(frozen=True)
class Known:
    """A checkpoint that is there. metrics: of an evaluation of this very state; empty where there was none."""

    name: str
    step: int
    metrics: dict[str, float] = field(default_factory=dict)


def taken(step: str | int) -> Step:
    """What a person wrote for a step.

    Raises:
        BadInput: it is neither "best" nor "last" nor a number.
    """
    if step == BEST:
        return "best"
    if step == LAST:
        return "last"
    try:
        number = int(step)
    except (TypeError, ValueError):
        number = -1
    if isinstance(step, bool) or number < 0:
        raise BadInput(f"step={step!r}", "it is the number of a step, best or last", "Give one of these.")
    return number


def order(run: str, there: Sequence[Known], step: Step, metric: str, mode: Literal["min", "max"]) -> Iterator[Known]:
    """The checkpoint that is meant; of the last, those before it too, for one that is damaged is passed over.

    Where none was evaluated, or the job names no metric and none has the usual one, the best one is the last.

    Args:
        run: its name, for errors.
        there: its checkpoints, oldest first.
        step: which is asked for.
        metric: by which they are judged.
        mode: whether less or more of it is better.

    Raises:
        BadInput: there is none such; names those that are there.
    """
    if not there:
        raise BadInput(f"run {run} has no checkpoint", "its model is nowhere", "Resume it, and let it come to one.")
    if isinstance(step, int):
        named = [known for known in there if known.step == step]
        if not named:
            raise _gone(run, there, step)
        yield named[-1]
        return
    judged = best(there, metric, mode) if step == BEST else None
    if judged is not None:
        yield judged
        return
    if step == BEST and metric != USUAL and (names := metrics_of(there)):
        remedy = f"{nearest(metric, names)} Name a step, or last."
        raise BadInput(f"no checkpoint of run {run} has the metric {metric!r}", "best goes by it", remedy)
    yield from reversed(there)


def best(there: Sequence[Known], metric: str, mode: Literal["min", "max"]) -> Known | None:
    """The best of them by a metric; None: none has it, as a number."""
    judged = ranked([Kept(known.step, known.metrics.get(metric)) for known in there], mode)
    return next((known for known in reversed(there) if known.step == judged[0]), None) if judged else None


def metrics_of(there: Sequence[Known]) -> list[str]:
    """Names of the metrics that any of them has."""
    return sorted({name for known in there for name in known.metrics})


def _gone(run: str, there: Sequence[Known], step: int) -> BadInput:
    steps = ", ".join(str(number) for number in sorted({known.step for known in there}))
    return BadInput(
        f"run {run} has no checkpoint of step {step}",
        "it was never taken, or the job's policy (checkpoint.keep_last, keep_best) let it go",
        f"There are those of: {steps}.",
    )
