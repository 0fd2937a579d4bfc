"""Curves of a run for its page: thinned, with the lowest and highest of each stretch kept."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.thinning import kept
from headway.report.shape import Series
from headway.runs.columns import Measured, Measurements, Steps

POINTS = 4000
"""Of a curve at most."""
ALL = 32_000
"""Points of all curves together, about; but for what `FEW` asks."""
FEW = 400
NAMES = 60
"""Curves; those of names that came first."""
WINDOWS = 1000
"""Of the rate."""
DIGITS = 7
THEIRS = re.compile(r"train/")
"""Names of what training itself measured, in runs of releases that did not mark it."""


def series(steps: Steps, measured: Measurements, created: float) -> list[Series]:
    """All curves: loss, what evaluations found, what the task recorded, learning rate, samples per second."""
    names = list(measured.by_name)[:NAMES]
    limit = max(FEW, min(POINTS, ALL // (3 + len(names))))
    found = list(_of_steps(steps, created, max(limit, POINTS // 2)))
    for name in names:
        each = measured.by_name[name]
        group = "recorded" if each.recorded or THEIRS.match(name) else "validation"
        found.append(_series(name, group, "", each.step, each.time - created, each.value, limit))
    return found


def _of_steps(steps: Steps, created: float, limit: int) -> Iterator[Series]:
    if not len(steps.step):
        return
    seconds = steps.time - created
    yield _series("loss", "loss", "", steps.step + 1, seconds, steps.loss, limit)
    if not np.isnan(steps.lr).all():
        changes = np.diff(steps.lr) != 0
        ends = np.ones(len(steps.lr), bool)  # first, last, and both sides of each change
        ends[1:-1] = changes[:-1] | changes[1:]
        few = np.flatnonzero(ends)
        yield _series("lr", "recorded", "", steps.step[few] + 1, seconds[few], steps.lr[few], limit // 2)
    rate = _rate(steps)
    if rate is not None:
        ends, value = rate
        yield _series("samples per second", "rate", "samples/s", steps.step[ends] + 1, seconds[ends], value, limit)


def _rate(steps: Steps) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Where windows of the same number of steps end, and rows per second in each; the first step has no beginning."""
    count = len(steps.step)
    if count < 2 or np.isnan(steps.time).any() or np.isnan(steps.rows).any():
        return None
    ends = np.unique(np.linspace(0, count - 1, min(WINDOWS, count)).round().astype(np.int64))
    rows, time = np.cumsum(steps.rows)[ends], steps.time[ends]
    passed = np.diff(time)
    value = np.divide(np.diff(rows), passed, out=np.full(len(passed), np.nan), where=passed > 0)
    return ends[1:], value


def _series(
    name: str,
    group: Any,
    unit: str,
    step: NDArray[np.int64],
    seconds: NDArray[np.float64],
    value: NDArray[np.float64],
    limit: int,
) -> Series:
    index = kept(value, limit)
    return Series(
        name=name,
        group=group,
        unit=unit,
        step=step[index].tolist(),
        seconds=[round_s(each) for each in seconds[index].tolist()],
        value=[number(each) for each in value[index].tolist()],
        of=len(value),
    )


def best(measured: Measured, mode: str) -> tuple[float, int] | None:
    """The best value and its step, the first of equals; None where there is no number."""
    there = np.isfinite(measured.value)
    if not there.any():
        return None
    value = np.where(there, measured.value if mode == "min" else -measured.value, np.inf)
    at = int(value.argmin())
    return float(measured.value[at]), int(measured.step[at])


def number(value: float | None) -> float | None:
    """To as many digits as can be seen; None where it is no number."""
    return float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None


def round_s(value: float | None) -> float | None:
    return round(value, 2) if value is not None and math.isfinite(value) else None
