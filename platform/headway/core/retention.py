"""When a checkpoint is due, and which ones stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Kept:
    """A committed checkpoint as the policy sees it: the step it was taken before, and the metric it is judged by."""

    step: int
    metric: float | None = None


def due(
    step: int, now_s: float, last_step: int, last_s: float, every_steps: int | None, every_s: float | None
) -> str | None:
    """Why a checkpoint is due before `step`, or None. Times are seconds on any one clock."""
    if step == last_step:
        return None
    if every_steps and step // every_steps > last_step // every_steps:
        return f"{every_steps} steps"
    if every_s and now_s - last_s >= every_s:
        return f"{every_s:g} s"
    return None


def surplus(checkpoints: list[Kept], last: int, best: int, mode: Literal["min", "max"]) -> list[int]:
    """Steps of the checkpoints to delete: all but the `last` newest and the `best` by metric (of equals the newer)."""
    newest = sorted(checkpoints, key=lambda c: c.step, reverse=True)[: max(1, last)]
    stay = {c.step for c in newest} | set(ranked(checkpoints, mode)[:best])
    return sorted(c.step for c in checkpoints if c.step not in stay)


def ranked(checkpoints: list[Kept], mode: Literal["min", "max"]) -> list[int]:
    """Steps of those that were judged, the best first (of equals the newer); one whose metric is NaN was not."""
    sign = 1.0 if mode == "max" else -1.0
    judged = [c for c in checkpoints if c.metric is not None and c.metric == c.metric]
    judged.sort(key=lambda c: (sign * (c.metric or 0.0), c.step), reverse=True)
    return [c.step for c in judged]
