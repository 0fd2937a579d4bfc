"""Curves and shares in a line of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS, PLAIN = "▁▂▃▄▅▆▇█", "_.,-=+*#"
WIDE = 30.0
"""Between the least and the largest value, from which on a curve of what is above zero is drawn by its logarithm."""

Points = Sequence[tuple[int, float]]


def sparkline(points: Points, width: int, unicode: bool = True) -> str:
    """A curve.

    Args:
        points: (step, value), by step; what is no number is left out.
        width: characters, at most; each stands for as many steps.
        unicode: whether the terminal shows more than ASCII.
    """
    known = [(step, value) for step, value in points if math.isfinite(value)]
    if not known or width < 1:
        return ""
    columns = _columns(known, min(width, len(known)))
    values = [value for value in columns if value is not None]
    least, most = min(values), max(values)
    scale = math.log if least > 0 and most / least > WIDE else float
    low, high = scale(least), scale(most)
    marks = BARS if unicode else PLAIN
    drawn, last = [], ""
    for value in columns:
        if value is not None:
            share = (scale(value) - low) / (high - low) if high > low else 0.0
            last = marks[min(len(marks) - 1, int(share * len(marks)))]
        drawn.append(last)
    return "".join(drawn)


def _columns(points: Points, width: int) -> list[float | None]:
    """The mean of each part of the steps; None where there is nothing."""
    first, last = points[0][0], points[-1][0]
    sums, counts = [0.0] * width, [0] * width
    for step, value in points:
        at = min(width - 1, (step - first) * width // max(1, last - first + 1))
        sums[at] += value
        counts[at] += 1
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def cells(shares: Sequence[float], width: int) -> list[int]:
    """How many of a line's characters each share has: all of them together the whole width, unless nobody has any."""
    whole = sum(shares)
    if whole <= 0:
        return [0] * len(shares)
    exact = [share / whole * width for share in shares]
    found = [int(each) for each in exact]
    largest = sorted(range(len(shares)), key=lambda at: found[at] - exact[at])
    for at in largest[: width - sum(found)]:
        found[at] += 1
    return found
