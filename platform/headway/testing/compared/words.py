"""A comparison as text: a table of what each strategy came to, and one of the loss over steps, seconds and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headway.plan_words import size
from headway.testing.compared.outcome import Comparison

DASH = "-"


def lines(found: Comparison) -> Iterator[str]:
    """All of it."""
    yield headline(found)
    yield ""
    yield from _aligned(table(found))
    after = losses(found)
    if after:
        yield ""
        yield from _aligned(after)
    for each in found.results:
        for run in each.runs:
            if run.state != "finished":
                yield f"note: {each.name}, seed {run.seed}: {run.state}: {run.message}"
            yield from (f"note: {each.name}, seed {run.seed}: {missing}" for missing in run.missing)
    yield from (f"note: {note}" for note in found.notes)


def headline(found: Comparison) -> str:
    """What was done, in a sentence."""
    seeds = f"seed {found.seeds[0]}" if len(found.seeds) == 1 else f"means over {len(found.seeds)} seeds"
    link = f", each on a link of {found.link}" if found.link else ""
    faults = f", under {found.faults}" if found.faults else ", undisturbed"
    nodes = f"{found.nodes} nodes" if found.nodes > 1 else "1 node"
    return f"{found.job} under {len(found.results)} strategies on {nodes}{link}{faults}; {seeds}"


def table(found: Comparison) -> list[list[str]]:
    """Rows of cells, titles first."""
    metric = found.metric or "metric"
    titles = ["strategy", "state", "steps", "seconds", "sent", "a step", "fewer", "loss", metric, "goodput", "lost"]
    return [titles, *(_cells(row) for row in found.rows())]


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        str(row["strategy"]),
        str(row["state"]),
        str(row["steps"]),
        _spread(row, "seconds", ".1f"),
        DASH if row["sent_bytes"] is None else size(row["sent_bytes"]),
        DASH if row["bytes_per_step"] is None else size(row["bytes_per_step"]),
        DASH if row["times_fewer"] is None else f"{row['times_fewer']:.3g} x",
        _spread(row, "loss", ".4f"),
        _spread(row, "metric", ".4f"),
        _spread(row, "goodput", ".1%"),
        str(row["lost"]),
    ]


def losses(found: Comparison) -> list[list[str]]:
    """Of the loss, where each had come to; none where nothing is known."""
    told = found.losses()
    if not told:
        return []
    titles, columns = ["loss after"], []
    for column, by in told.items():
        for at, place in enumerate(by["at"]):
            titles.append(_place(column, place or 0.0))
            columns.append((by, at))
    rows = [titles]
    for each in found.results:
        cells = [by[each.name][at] for by, at in columns]
        rows.append([each.name, *(DASH if value is None else f"{value:.4f}" for value in cells)])
    return rows


def _place(column: str, place: float) -> str:
    if column == "step":
        return f"{place:,.0f} steps"
    return f"{place:.1f} s" if column == "seconds" else size(place)


def _spread(row: dict[str, Any], name: str, how: str) -> str:
    value, deviation = row[name], row[f"{name}_sd"]
    if value is None:
        return DASH
    return format(value, how) + (f" ± {format(deviation, how)}" if deviation is not None else "")


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells beneath each other: the first column's to the left, the others' to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
