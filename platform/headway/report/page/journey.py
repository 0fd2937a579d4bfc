"""How a run went: its curves, its workers and its lanes over one axis, with what happened marked on all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headway.report.page import numbers, plots
from headway.report.page.markup import Inside, Markup, tag, together
from headway.report.page.sheet import Section

Chart = dict[str, Any]
Series = Mapping[str, Any]
OPEN, MOST = 6, 40
"""Measured things with a chart that is seen at once; and with one at all."""
KINDS = {
    "lost": ("▼", "worker lost"),
    "joined": ("▲", "worker joined"),
    "restart": ("◆", "went on from a saved state"),
    "resize": ("■", "resized"),
    "stop": ("●", "stop"),
    "start": ("●", "start"),
    "end": ("●", "end"),
    "slow": ("◐", "slow worker"),
    "quarantine": ("✕", "rows set aside"),
    "warned": ("!", "warning"),
    "checkpoint": ("∘", "checkpoint"),
}
"""Kinds of marks: the sign, which tells them apart without their colours, and the words."""

SWITCHES = {"smooth": ("Smooth", True), "marks": ("Marks", True), "log": ("Log loss", False)}
"""Their words, and whether they are on at first."""
HOW = "Drag over a chart to zoom all of them, double-click to go back; the arrow keys, plus, minus and 0 do the same."
WHO = "The cluster decides how fast, never what: lanes move between workers, and the updates stay the same."
PLAIN = ("start", "end")
"""Kinds that need no word in a legend."""


def journey(story: Mapping[str, Any], drawn: dict[str, Any]) -> list[Section]:
    """Sections of the curves, and of workers and lanes.

    Args:
        drawn: takes what the scripts draw.
    """
    series = [one for one in story.get("series") or () if one.get("step")]
    drawn["marks"] = plots.marks(story.get("marks") or ())
    drawn["clock"] = plots.clock(series)
    charts: list[Chart] = []
    most = plots.shared(series)
    curves = _curves(series, charts, most)
    crew = _crew(story, charts)
    drawn.setdefault("plots", []).extend(charts)
    sections = []
    ribbon = [legend(drawn["marks"]), tag("div", class_="ribbon", aria_label="What happened, in order", role="group")]
    if curves:
        sections.append(Section("curves", "How it went", [switches(*SWITCHES), ribbon, curves], HOW))
    if crew:
        sections.append(Section("workers", "Workers", [None if curves else ribbon, crew], WHO))
    return sections


def switches(*names: str) -> Markup:
    """What the curves are drawn with, by the names of SWITCHES."""
    each = [
        tag("button", words, type="button", data_switch=name, aria_pressed=str(on).lower())
        for name, (words, on) in SWITCHES.items()
        if name in names
    ]
    return tag("div", each, class_="switches", role="group", aria_label="How curves are drawn")


def legend(marks: Sequence[Mapping[str, Any]]) -> Markup | None:
    """The signs that are there, with their words."""
    there = [kind for kind in KINDS if kind not in PLAIN and any(mark["kind"] == kind for mark in marks)]
    if not there:
        return None
    each = [
        tag("li", tag("i", KINDS[kind][0], class_=f"sign {kind}", aria_hidden="true"), KINDS[kind][1]) for kind in there
    ]
    return tag("ul", each, class_="signs", aria_label="Signs")


def _curves(series: Sequence[Series], charts: list[Chart], most: int) -> Markup | None:
    """The loss at large, what was measured beside one another, and the rate."""
    losses = [*(one for one in series if one.get("group") == "loss"), *map(_judged, filter(_beside, series))]
    rates = [one for one in series if one.get("group") == "rate"]
    measured = [one for one in series if one.get("group") not in ("loss", "rate") and not _beside(one)]
    found: list[Inside] = []
    if losses:
        chart = _chart("loss", losses, most, 300) | {"log": True}
        charts.append(chart)
        found.append(plots.frame(chart, "Loss", _last(losses[0]), _told("Loss", losses[0]), "wide"))
    small = [_small(one, f"measured-{at}", charts, most) for at, one in enumerate(measured[:MOST])]
    found.append(tag("div", small[:OPEN], class_="pair") if small else None)
    if len(small) > OPEN:
        more = f"{numbers.counted(len(small) - OPEN, 'more curve')}"
        found.append(tag("details", tag("summary", more), tag("div", small[OPEN:], class_="pair")))
    for at, one in enumerate(rates):
        found.append(_small(one, f"rate-{at}", charts, most, "wide"))
    return together(found) if charts else None


def _beside(one: Series) -> bool:
    """Whether it is the loss on the validation data, which is looked at beside that of training."""
    return one.get("group") == "validation" and one.get("name") == "loss"


def called(one: Series) -> str:
    """What a series is called where others of its name may be near: the loss on the validation data says so."""
    return "validation loss" if _beside(one) else str(one["name"])


def _judged(one: Series) -> Series:
    return {**one, "name": called(one)}


def _small(one: Series, name: str, charts: list[Chart], most: int, class_: str = "") -> Markup:
    rate = one.get("group") == "rate"
    chart = _chart(name, [one], most, 150 if rate else 190, 5 if rate else 2) | {"zero": rate}
    charts.append(chart)
    title = str(one.get("name", "")) + (f", {one['unit']}" if one.get("unit") and not rate else "")
    return plots.frame(chart, title, _last(one), _told(title, one), class_)


def _chart(name: str, series: Sequence[Series], most: int, height: int, colour: int = 0) -> Chart:
    lines = [plots.line(str(one["name"]), one, colour + at, most) for at, one in enumerate(series)]
    return {"id": name, "kind": "lines", "unit": str(series[0].get("unit") or ""), "height": height, "series": lines}


def _last(one: Series) -> str:
    known = [value for value in one.get("value") or () if value is not None]
    return f"last {numbers.number(known[-1])}" if known else ""


def _told(title: str, one: Series) -> str:
    known = [value for value in one.get("value") or () if value is not None]
    if not known:
        return title
    low, high = numbers.number(min(known)), numbers.number(max(known))
    return f"{title}: from {numbers.number(known[0])} to {numbers.number(known[-1])}, least {low}, greatest {high}"


def _crew(story: Mapping[str, Any], charts: list[Chart]) -> Markup | None:
    found: list[Inside] = []
    sizes = [entry for entry in story.get("workers") or () if entry.get("workers") is not None]
    if sizes:
        line = plots.line("workers", columns(sizes, "step", "seconds") | {"value": [e["workers"] for e in sizes]})
        chart: Chart = {"id": "workers", "kind": "steps", "unit": "", "height": 170, "series": [line]}
        charts.append(chart)
        told = ", ".join(f"{e['workers']} from step {e['step']}" for e in sizes[:20])
        found.append(plots.frame(chart, "How many trained", _causes(sizes), f"Workers: {told}", "wide"))
    lanes = [entry for entry in story.get("lanes") or () if entry.get("lanes")]
    if lanes:
        carried = _lanes(lanes)
        charts.append(carried)
        count = len(carried["members"])
        note = f"{numbers.counted(carried['lanes'], 'lane')} on {numbers.counted(count, 'worker')} over time"
        found.append(plots.frame(carried, "Who carried which lane", note, note, "wide"))
    return together(found) if found else None


def columns(entries: Iterable[Mapping[str, Any]], *names: str) -> dict[str, list[Any]]:
    """Lists by name, of entries."""
    whole = list(entries)
    return {name: [entry.get(name) or 0 for entry in whole] for name in names}


def _causes(sizes: Sequence[Mapping[str, Any]]) -> str:
    most = max(entry["workers"] for entry in sizes)
    changes = len(sizes) - 1
    return f"at most {most}, {numbers.counted(changes, 'change')}" if changes else f"{most} all the time"


def _lanes(entries: Sequence[Mapping[str, Any]]) -> Chart:
    """Who carries what, from each change on: for each lane the number of its worker, -1 for nobody."""
    members: dict[str, int] = {}
    for entry in entries:
        for member in entry.get("members") or ():
            members.setdefault(str(member), len(members))
    count = 1 + max((lane for entry in entries for own in entry["lanes"] for lane in own), default=0)
    carried = []
    for entry in entries:
        by = [-1] * count
        for member, own in zip(entry.get("members") or (), entry["lanes"], strict=False):
            for lane in own:
                by[lane] = members[str(member)]
        carried.append(by)
    return {
        "id": "lanes",
        "kind": "lanes",
        "height": max(120, min(360, 26 * count + 40)),
        "lanes": count,
        "members": list(members),
        "step": [entry.get("step") or 0 for entry in entries],
        "seconds": [entry.get("seconds") or 0 for entry in entries],
        "carried": carried,
    }
