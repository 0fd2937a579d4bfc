"""One setting against what came of it, a point for each trial: a small picture that needs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from headway.report.page import numbers
from headway.report.page.markup import Markup, tag

WIDE, HIGH, LEFT, BELOW = 460.0, 190.0, 54.0, 22.0
RATIO = 30.0
"""Of the greatest to the least, from which on an axis is logarithmic."""
SLACK = 12.0
"""Between the outermost points and the frame."""
NAMES = 14
"""Values by name that get a place of their own."""

Point = tuple[Any, float, str]
"""The setting, the value, and whose it is; the best comes first."""


def scatter(points: Sequence[Point], metric: str) -> Markup:
    """The picture.

    Args:
        points: of which the first is shown as the best.
        metric: name of the values.
    """
    places, ticks = _across([setting for setting, _, _ in points])
    values = [value for _, value, _ in points]
    low, high = min(values), max(values)
    span = high - low or 1.0
    dots = []
    for (setting, value, whose), x in reversed(list(zip(points, places, strict=True))):
        y = SLACK + (HIGH - BELOW - 2 * SLACK) * (1 - (value - low) / span)
        told = f"{whose}: {numbers.number(setting)}, {metric} {numbers.number(value)}"
        dot = tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="5" if whose == points[0][2] else "4",
                  class_="top" if whose == points[0][2] else None)  # fmt: skip
        dots.append(tag("g", tag("title", told), dot))
    frame = [
        tag("line", x1=f"{LEFT}", x2=f"{WIDE}", y1=f"{HIGH - BELOW}", y2=f"{HIGH - BELOW}"),
        tag("line", x1=f"{LEFT}", x2=f"{LEFT}", y1="0", y2=f"{HIGH - BELOW}"),
    ]
    sides = [
        tag("text", numbers.number(_short(value)), x=f"{LEFT - 8}", y=f"{y:.1f}", text_anchor="end")
        for value, y in ((high, SLACK + 4), (low, HIGH - BELOW - SLACK + 4))
    ]
    below = [tag("text", text, x=f"{x:.1f}", y=f"{HIGH - 6}", text_anchor=side) for text, x, side in ticks]
    told = f"{metric} by this setting, {numbers.counted(len(points), 'trial')}"
    return tag(
        "svg",
        frame,
        sides,
        below,
        dots,
        class_="scatter",
        viewBox=f"0 0 {WIDE:.0f} {HIGH:.0f}",
        role="img",
        aria_label=told,
    )


def _across(settings: Sequence[Any]) -> tuple[list[float], list[tuple[str, float, str]]]:
    """Where each setting is from left to right; and words below, with where and by which side they stand."""
    numeric = all(isinstance(s, int | float) and not isinstance(s, bool) and math.isfinite(s) for s in settings)
    left, right = LEFT + SLACK, WIDE - SLACK
    if not numeric:
        names = list(dict.fromkeys(map(str, settings)))
        step = (right - left) / max(1, len(names))
        middle = {name: left + step * (at + 0.5) for at, name in enumerate(names)}
        shown = [(name[:16], x, "middle") for name, x in middle.items()] if len(names) <= NAMES else []
        return [middle[str(setting)] for setting in settings], shown
    low, high = min(settings), max(settings)
    scale = math.log if low > 0 and high / low > RATIO else float
    first, span = scale(low), (scale(high) - scale(low)) or 1.0
    places = [left + (right - left) * (scale(setting) - first) / span for setting in settings]
    return places, [(numbers.number(_short(low)), left, "start"), (numbers.number(_short(high)), right, "end")]


def _short(value: float) -> float:
    return float(f"{value:.3g}") if isinstance(value, float) else value
