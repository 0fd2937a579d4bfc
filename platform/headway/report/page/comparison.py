"""Runs beside one another: what differs between them first, then what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway.report.page import account, journey, numbers, opening, plots, run
from headway.report.page.markup import Inside, Markup, tag
from headway.report.page.sheet import Page, Section
from headway.report.page.tables import HEAD, folded, table

Story = Mapping[str, Any]
PARTS = {"job": "Job", "code": "Code", "data": "Data", "environment": "Environment"}
COLOURS = 8
SEEN = 30
"""Differences of a part that are seen at once."""


def page(document: Mapping[str, Any]) -> Page:
    """The page of a comparison.

    Args:
        document: of kind `comparison`: `runs` are stories, `differences` by part what has other values in each.
    """
    runs: list[Story] = list(document["runs"])
    names = [str(one["run"]["name"]) for one in runs]
    drawn: dict[str, Any] = {"plots": []}
    differences = document.get("differences") or {}
    sections = [
        _differences(differences, names),
        _results(runs),
        _curves(runs, drawn),
        _crews(runs, drawn),
        _seconds(runs),
    ]
    line = numbers.counted(len(runs), "run") + ", side by side"
    words = document.get("words") or {}
    return Page(
        title=f"{', '.join(names)} · comparison",
        opening=opening.opening("Comparison of training runs", " · ".join(names), "", line, words, [], "Compared"),
        sections=[section for section in sections if section is not None],
        drawn=drawn,
        footer=run.footer(any(one.get("redacted") for one in runs)),
    )


def swatch(at: int, name: str) -> list[Inside]:
    """A run's name with its colour."""
    return [tag("i", class_=f"swatch s{at % COLOURS}"), name]


def _differences(found: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]) -> Section:
    inside: list[Inside] = []
    for part, title in PARTS.items():
        entries = found.get(part) or ()
        if not entries:
            continue
        columns = {"what": HEAD, **{_unique(name, at + 1): "" for at, name in enumerate(names)}}
        rows = [(str(one["key"]), *map(_value, one["values"])) for one in entries]
        made = folded(rows, SEEN, "difference", lambda some, columns=columns: table(columns, some))  # type: ignore[misc]
        inside += [tag("h3", title), made]
    alike = [title.lower() for part, title in PARTS.items() if not found.get(part)]
    if alike:
        inside.append(tag("p", f"Alike: {', '.join(alike)}.", class_="note"))
    return Section("differences", "What differs", inside)


def _unique(name: str, at: int) -> str:
    return name + "\u200b" * at  # two runs of one name, of two places, have a column each; and so has one called "what"


def _value(value: Any) -> Inside:
    if value is None:
        return tag("span", "not there", class_="soft")
    if isinstance(value, dict | list):
        return str(value)
    return numbers.number(value) if isinstance(value, float) else str(value)


def _results(runs: Sequence[Story]) -> Section:
    metrics = list(dict.fromkeys(name for one in runs for name in (one.get("headline") or {}).get("metrics") or {}))[
        :12
    ]
    columns = {"run": HEAD, "state": "", "best": "n", **{_unique(metric, 1): "n" for metric in metrics}}
    columns |= {"steps": "n", "time": "n", "workers": "n", "goodput": "n", "lost": "n", "repeated": "n"}
    priced = any((one.get("headline") or {}).get("dollars") is not None for one in runs)
    columns |= {"cost": "n"} if priced else {}
    rows: list[Sequence[Inside]] = []
    for at, one in enumerate(runs):
        head: Mapping[str, Any] = one.get("headline") or {}
        best = head.get("best") or {}
        told = f"{best['metric']} {numbers.number(best['value'])}" if best.get("value") is not None else numbers.DASH
        values = [numbers.number((head.get("metrics") or {}).get(name)) for name in metrics]
        rows.append(
            (
                swatch(at, str(one["run"]["name"])),
                str(one["run"]["state"]),
                told,
                *values,
                numbers.number(head.get("steps")),
                numbers.duration(one["run"].get("seconds")),
                numbers.number(head.get("workers_max")),
                numbers.share(head.get("goodput")),
                numbers.number(head.get("losses")),
                numbers.number(head.get("repeated_steps")),
                *([numbers.dollars(head.get("dollars"))] if priced else []),
            )
        )
    return Section("results", "What became of them", table(columns, rows))


def _curves(runs: Sequence[Story], drawn: dict[str, Any]) -> Section | None:
    """A chart for each thing that was measured, with a line for each run."""
    by_name: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for at, one in enumerate(runs):
        for series in one.get("series") or ():
            if series.get("step"):
                by_name.setdefault(journey.called(series), []).append((at, series))
    if not by_name:
        return None
    most = plots.shared([series for each in by_name.values() for _, series in each])
    frames: list[Inside] = []
    for number, (name, each) in enumerate(list(by_name.items())[: journey.MOST]):
        first = each[0][1].get("group") == "loss" and number == 0
        loss = each[0][1].get("group") == "loss"
        lines = [plots.line(str(runs[at]["run"]["name"]), series, at, most) for at, series in each]
        chart = {"id": f"curve-{number}", "kind": "lines", "unit": "", "height": 300 if first else 200, "log": loss}
        drawn["plots"].append(chart | {"series": lines})
        frames.append(plots.frame(chart, name, None, f"{name}, of {len(each)} runs", "wide" if first else ""))
    drawn["clock"] = plots.clock([series for one in runs for series in one.get("series") or () if series.get("step")])
    inside = [journey.switches("smooth", "log"), frames[0], tag("div", frames[1:], class_="pair")]
    return Section("curves", "Curves", inside, "Click a run's name to hide it; with Shift, all others.")


def _crews(runs: Sequence[Story], drawn: dict[str, Any]) -> Section | None:
    lines = []
    for at, one in enumerate(runs):
        sizes = [entry for entry in one.get("workers") or () if entry.get("workers") is not None]
        if sizes:
            held = _held(sizes, one)
            lines.append(plots.line(str(one["run"]["name"]), held | {"value": held["workers"]}, at))
    if not lines:
        return None
    chart = {
        "id": "workers",
        "kind": "lines",
        "unit": "",
        "height": 170,
        "zero": True,
        "stepped": True,
        "series": lines,
    }
    drawn["plots"].append(chart)
    return Section("workers", "Workers", plots.frame(chart, "How many trained", None, "Workers of each run", "wide"))


def _held(sizes: Sequence[Mapping[str, Any]], one: Story) -> dict[str, list[Any]]:
    """The sizes, the last of them to the run's end."""
    end = {"step": (one.get("headline") or {}).get("steps"), "seconds": one["run"].get("seconds")}
    last = {**sizes[-1], **{name: at for name, at in end.items() if at is not None}}
    return journey.columns([*sizes, last], "step", "seconds", "workers")


def _seconds(runs: Sequence[Story]) -> Section | None:
    made: list[Markup] = []
    for at, one in enumerate(runs):
        seconds = {c: s for c, s in ((one.get("ledger") or {}).get("seconds") or {}).items() if s}
        if not seconds:
            continue
        told = ", ".join(f"{cause} {numbers.duration(seconds[cause])}" for cause in account.order(seconds))
        name = tag("h3", swatch(at, str(one["run"]["name"])))
        made.append(tag("article", name, account.bar(seconds), tag("p", told, class_="note")))
    return Section("seconds", "Where the worker-seconds went", made) if made else None
