"""Where the worker-seconds went: in sum, over time, in dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.core.ledger import CAUSES, PRODUCTIVE
from headway.report.page import numbers, plots
from headway.report.page.markup import Inside, Markup, tag
from headway.report.page.sheet import Section
from headway.report.page.tables import HEAD, Row, table

MEANS = {
    "start": "until a worker could train: its process, imports, the model",
    "compute": "forward, backward and the update, in steps that count",
    "communication": "exchanging gradients with the others",
    "data": "waiting for rows",
    "checkpoint": "held up by a checkpoint",
    "regroup": "finding the others again after a change",
    "repeated": "work on steps that did not count and were done again",
    "spare": "standing by, to take a lost worker's place",
    "idle": "waiting with nothing to do",
    "head": "the head's machine",
    "storage": "what checkpoints take in the store",
}
"""Dollars of start and idle are of machines too, before they carry a worker and after."""
WIDE = 1000.0


def account(story: Mapping[str, Any], drawn: dict[str, Any]) -> Section | None:
    """The section; none where nothing was counted."""
    ledger: Mapping[str, Any] = story.get("ledger") or {}
    seconds = {cause: float(spent) for cause, spent in (ledger.get("seconds") or {}).items() if spent}
    total = sum(seconds.values())
    if total <= 0:
        return None
    dollars = (story.get("headline") or {}).get("dollars")
    spent = {cause: float(each) for cause, each in (ledger.get("dollars") or {}).items()}
    inside: list[Inside] = [bar(seconds), _table(seconds, dollars, spent)]
    chart = _over_time(ledger.get("over_time") or {})
    if chart is not None:
        drawn.setdefault("plots", []).append(chart)
        note = "worker-seconds so far, by cause"
        inside.append(plots.frame(chart, "Over time", note, f"{note}: {numbers.duration(total)} in all", "wide"))
    good = sum(seconds.get(cause, 0.0) for cause in PRODUCTIVE)
    price = f", {numbers.dollars(dollars)} in all" if dollars is not None else ""
    note = f"{numbers.share(good / total)} of {total:,.0f} worker-seconds ended in steps that count{price}."
    return Section("seconds", "Where the worker-seconds went", inside, note)


def bar(seconds: Mapping[str, float]) -> Markup:
    """All causes in one line."""
    total, at, parts = sum(seconds.values()) or 1.0, 0.0, []
    for cause in order(seconds):
        width = WIDE * seconds[cause] / total
        words = f"{cause}: {numbers.duration(seconds[cause])}, {numbers.share(seconds[cause] / total)}"
        rect = tag("rect", x=f"{at:.2f}", y="0", width=f"{max(width, 0.6):.2f}", height="22", class_=f"cause {cause}")
        parts.append(tag("g", tag("title", words), rect))
        at += width
    told = ", ".join(f"{cause} {numbers.share(seconds[cause] / total)}" for cause in order(seconds))
    return tag(
        "svg",
        parts,
        class_="bar",
        viewBox=f"0 0 {WIDE:.0f} 22",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"Worker-seconds: {told}",
    )


def order(seconds: Mapping[str, float]) -> list[str]:
    """Causes, what counts first; those of other releases last."""
    known = [*PRODUCTIVE, *(cause for cause in CAUSES if cause not in PRODUCTIVE)]
    there = [cause for cause in known if seconds.get(cause)]
    return there + sorted(cause for cause in seconds if cause not in known and seconds[cause])


def _table(seconds: Mapping[str, float], dollars: float | None, spent: Mapping[str, float]) -> Markup:
    """spent: dollars by cause; where they are not known, those of all are divided as the seconds are."""
    total = sum(seconds.values())
    each = spent or {cause: (dollars or 0.0) * seconds[cause] / total for cause in seconds}
    priced = {"cost": "n"} if dollars is not None else {}
    columns = {"": "sign", "cause": HEAD, "worker-seconds": "n", "share": "n", **priced, "what it was": "soft means"}
    rows: list[Row] = [
        (
            tag("i", class_=f"dot {cause}"),
            cause,
            f"{seconds[cause]:,.1f}" if cause in seconds else numbers.DASH,
            numbers.share(seconds[cause] / total) if cause in seconds else numbers.DASH,
            *([numbers.dollars(each.get(cause, 0.0))] if dollars is not None else []),
            MEANS.get(cause, ""),
        )
        for cause in [*order(seconds), *(cause for cause in spent if cause not in seconds)]
    ]
    return table(columns, rows)


def _over_time(over: Mapping[str, Any]) -> dict[str, Any] | None:
    seconds, causes = over.get("seconds") or [], over.get("causes") or {}
    there = order({c: max((v or 0.0 for v in values), default=0.0) for c, values in causes.items()})
    if len(seconds) < 2 or not there:
        return None
    lines = [{"label": cause, "value": plots.floats(causes[cause])} for cause in there]
    return {"id": "account", "kind": "stack", "unit": "s", "height": 240, "at": plots.floats(seconds), "series": lines}
