"""What is drawn, as data: charts over steps and time, packed small, with a frame in the page for each.

A chart is {"id", "kind", "unit", "height", "series": [...]}; its kind says how the scripts draw it:

    lines    series over steps or time, each with points of its own
    steps    a number that holds until it changes: how many workers there are
    stack    causes on top of one another
    lanes    who carries which lane, from one change to the next

Numbers travel as base64 of little-endian 32-bit values: 5.3 characters each, and read in no time.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.thinning import kept
from headway.report.page.markup import Inside, Markup, tag

POINTS = 60_000
"""Points that a page holds at most: half a million characters for each of step, time and value."""
FEWEST = 200
"""So many a series keeps in any case."""
MARKS = 400
HUGE = 3e38
"""What 32 bits do not hold is a gap."""
RANK = ("lost", "restart", "joined", "resize", "stop", "end", "start", "quarantine", "slow", "warned", "checkpoint")
"""Kinds of marks, those first that a page keeps where there are too many."""

MANY, RESTLESS = 80, 6.0
"""Points, and ways up and down by the height of a curve, from which on it is noisy."""

Pack = dict[str, str]


def floats(values: Iterable[float | None]) -> Pack:
    """Numbers with 24 bits of precision; None, and what is no number, is a gap."""
    numbers = _numbers(values)
    numbers[~(np.abs(numbers) < HUGE)] = np.nan
    return {"f": b64encode(numbers.astype("<f4").tobytes()).decode()}


def whole(values: Iterable[float]) -> Pack:
    """Steps: whole numbers from 0 on."""
    return {"u": b64encode(np.maximum(_numbers(values), 0).astype("<u4").tobytes()).decode()}


def line(name: str, series: Mapping[str, Any], colour: int = 0, most: int = POINTS) -> dict[str, Any]:
    """A series of a chart.

    Args:
        name: for people.
        series: step, seconds, value: lists of one length.
        colour: its place among the page's colours.
        most: points that it may have.
    """
    step, seconds, value = thinned(series, most)
    return {
        "label": name,
        "colour": colour,
        "smooth": noisy(value),
        "step": whole(step),
        "seconds": floats(seconds),
        "value": floats(value),
    }


def noisy(values: Sequence[float | None]) -> bool:
    """Whether a curve goes up and down so much that a moving mean over it shows more than it does."""
    numbers = _numbers(values)
    known = numbers[np.abs(numbers) < HUGE]
    return len(known) > MANY and float(np.abs(np.diff(known)).sum()) > RESTLESS * float(np.ptp(known))


def thinned(series: Mapping[str, Any], most: int) -> tuple[list[Any], list[Any], list[Any]]:
    """A series' lists with at most so many points; of what lies together the least and the greatest stay."""
    step, value = list(series["step"]), list(series["value"])
    seconds = list(series.get("seconds") or [])
    seconds = seconds if len(seconds) == len(step) else [0.0] * len(step)
    if len(value) <= most:
        return step, seconds, value
    chosen = kept(_numbers(value), most).tolist()
    return [step[at] for at in chosen], [seconds[at] for at in chosen], [value[at] for at in chosen]


def shared(series: Sequence[Mapping[str, Any]]) -> int:
    """How many points each of so many series may have."""
    return max(FEWEST, POINTS // max(1, len(series)))


def marks(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What happened, for the charts: where, of which kind, in words."""
    rank = {kind: at for at, kind in enumerate(RANK)}
    chosen = sorted(found, key=lambda mark: rank.get(str(mark.get("kind")), len(RANK)))[:MARKS]
    return [
        {
            "step": mark.get("step"),
            "seconds": mark.get("seconds"),
            "kind": str(mark.get("kind", "")),
            "words": str(mark.get("words") or mark.get("kind", "")),
        }
        for mark in sorted(chosen, key=lambda mark: mark.get("seconds") or 0.0)
        if isinstance(mark.get("step"), int | float)
    ]


def clock(series: Sequence[Mapping[str, Any]]) -> dict[str, Pack]:
    """Which step was at which second: for what is known by one of them."""
    whole_series = max(series, key=lambda one: len(one["step"]), default=None)
    if whole_series is None or not whole_series.get("seconds"):
        return {}
    step, seconds, _ = thinned({**whole_series, "value": list(range(len(whole_series["step"])))}, 1000)
    return {"step": whole(step), "seconds": floats(seconds)}


def frame(chart: Mapping[str, Any], title: str, note: Inside = None, told: str = "", class_: str = "") -> Markup:
    """The place of a chart in the page.

    Args:
        told: what it shows, for who does not see it.
    """
    caption = tag("figcaption", tag("span", title, class_="title"), tag("span", note, class_="note") if note else None)
    return tag(
        "figure",
        caption,
        tag("div", class_="keys", role="group", aria_label=f"Series of {title}"),
        tag("div", class_="canvas", tabindex="0", role="img", aria_label=told or title),
        class_=f"plot {class_}".strip(),
        id=f"plot-{chart['id']}",
        data_plot=str(chart["id"]),
    )


def _numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
