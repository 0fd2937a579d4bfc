"""Strategies beside one another: what each came to, and its loss over steps, over seconds and over bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway.report.page import numbers, opening, plots
from headway.report.page.comparison import swatch
from headway.report.page.markup import Inside, tag
from headway.report.page.sheet import Page, Section
from headway.report.page.tables import HEAD, table

Document = Mapping[str, Any]
AXES = (("step", "step", "Steps"), ("seconds", "time", "Seconds"), ("sent", "bytes", "Bytes between workers"))
"""Columns of a curve, what the scripts call an axis of it, and its title."""


def page(document: Document) -> Page:
    """The page of a comparison of strategies.

    Args:
        document: of kind `strategies`, as `headway.testing.compared.outcome.Comparison.shown` gives it.
    """
    drawn: dict[str, Any] = {"plots": []}
    results: Sequence[Document] = document["results"]
    sections = [_table(document), _curves(results, drawn), _after(document), _told(document)]
    seeds = document["seeds"]
    line = [numbers.counted(document["nodes"], "node"), numbers.counted(len(seeds), "seed")]
    line += [f"links of {document['link']}"] if document["link"] else []
    line += [f"under {document['faults']}"] if document["faults"] else ["undisturbed"]
    return Page(
        title=f"{document['job']} · strategies",
        opening=opening.opening("Comparison of strategies", str(document["job"]), "", " · ".join(line), {}, []),
        sections=[section for section in sections if section is not None],
        drawn=drawn,
        footer="Made by Headway. This file holds all it needs and asks for nothing over a network.",
    )


def _table(document: Document) -> Section:
    metric = document["metric"] or "metric"
    columns = {"strategy": HEAD, "state": "", "steps": "n", "seconds": "n", "sent": "n", "a step": "n", "fewer": "n"}
    columns |= {"loss": "n", f"{metric}\u200b": "n", "goodput": "n", "lost": "n", "repeated": "n"}
    rows: list[Sequence[Inside]] = []
    for at, row in enumerate(document["rows"]):
        fewer = row["times_fewer"]
        rows.append(
            (
                swatch(at, str(row["strategy"])),
                str(row["state"]),
                numbers.number(row["steps"]),
                _spread(row, "seconds"),
                numbers.size(row["sent_bytes"]),
                numbers.size(row["bytes_per_step"]),
                numbers.DASH if fewer is None else f"{fewer:.3g}{numbers.TIMES}",
                _spread(row, "loss"),
                _spread(row, "metric"),
                numbers.share(row["goodput"]),
                numbers.number(row["lost"]),
                numbers.number(row["repeated"]),
            )
        )
    note = "Means over the seeds. The loss is in training, over the last twentieth of the steps; seconds are from "
    note += "the moment at which workers began to train until the last step; fewer bytes than the first strategy."
    return Section("results", "What became of them", table(columns, rows), note)


def _spread(row: Document, name: str) -> str:
    value, deviation = row[name], row[f"{name}_sd"]
    return numbers.number(value) + (f" ± {deviation:.2g}" if deviation is not None else "")


def _curves(results: Sequence[Document], drawn: dict[str, Any]) -> Section | None:
    frames: list[Inside] = []
    most = plots.shared(results)
    for column, axis, title in AXES:
        lines = []
        for at, each in enumerate(results):
            curve = each["curve"]
            known = [(x, y) for x, y in zip(curve[column], curve["loss"], strict=True) if x is not None]
            if known:
                xs, ys = zip(*known, strict=True)
                series = {"step": xs, "seconds": xs, "value": ys} if column == "step" else _apart(xs, ys)
                lines.append(plots.line(str(each["name"]), series, at, most))
        if lines:
            chart = {"id": f"loss-{column}", "kind": "lines", "unit": "", "height": 240, "own": axis, "log": True}
            drawn["plots"].append(chart | {"series": lines})
            wide = "" if frames else "wide"
            frames.append(
                plots.frame(chart, f"Over {title.lower()}", None, f"Training loss over {title.lower()}", wide)
            )
    if not frames:
        return None
    from headway.report.page.journey import switches

    inside = [switches("smooth", "log"), frames[0], tag("div", frames[1:], class_="pair")]
    return Section("curves", "Training loss", inside, "Click a strategy to hide it; with Shift, all others.")


def _apart(xs: Sequence[float], ys: Sequence[float | None]) -> dict[str, Sequence[Any]]:
    """A series over something that is no step: the scripts take `seconds` for it."""
    return {"step": range(len(xs)), "seconds": xs, "value": ys}


def _after(document: Document) -> Section | None:
    told: Mapping[str, Mapping[str, Sequence[float | None]]] = document["losses"]
    if not told:
        return None
    columns = {"strategy": HEAD}
    for name, by in told.items():
        for number, place in enumerate(by["at"]):
            columns[_place(name, place) + "\u200b" * number] = "n"
    rows: list[Sequence[Inside]] = []
    for at, each in enumerate(document["results"]):
        cells = [numbers.number(value) for by in told.values() for value in by[each["name"]]]
        rows.append((swatch(at, str(each["name"])), *cells))
    note = "The last place of each is as far as all of them came."
    return Section("after", "The loss after as much", table(columns, rows), note)


def _place(column: str, place: float | None) -> str:
    if column == "step":
        return f"{numbers.number(place)} steps"
    return numbers.duration(place) if column == "seconds" else numbers.size(place)


def _options(tree: Mapping[str, Any]) -> str:
    """As a job has them, on one line."""
    inside = (
        f"{key}: {f'{{{_options(value)}}}' if isinstance(value, Mapping) else value}" for key, value in tree.items()
    )
    return ", ".join(inside)


def _told(document: Document) -> Section | None:
    """The options of each, and what is to be known."""
    said = [tag("li", str(note)) for note in document["notes"]]
    for each in document["results"]:
        for one in each["runs"]:
            if one["state"] != "finished":
                said.append(tag("li", f"{each['name']}, seed {one['seed']}: {one['state']}: {one['message']}"))
            said += [tag("li", f"{each['name']}, seed {one['seed']}: {missing}") for missing in one["missing"]]
    rows = [
        (swatch(at, str(each["name"])), tag("code", _options(each["strategy"])))
        for at, each in enumerate(document["results"])
    ]
    inside: list[Inside] = [table({"strategy": HEAD, "options": ""}, rows)]
    return Section("options", "Options", [*inside, tag("ul", said) if said else None])
