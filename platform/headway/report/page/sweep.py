"""The page of a sweep: the best settings first, then all trials, their curves, what mattered, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway.report.page import account, again, numbers, opening, plots, run, scatter
from headway.report.page.markup import Inside, Markup, tag
from headway.report.page.sheet import Page, Section
from headway.report.page.tables import HEAD, folded, pairs, table

Report = Mapping[str, Any]
SEEN, LINES, BEST = 12, 200, 6
"""Trials in the table that is seen at once; with a line of their own; and with a colour of their own."""


def page(document: Mapping[str, Any]) -> Page:
    """The page of a sweep.

    Args:
        document: of kind `sweep`; its `report` is a `headway.sweeps.report.SweepReport` as plain data.
    """
    report: Report = document["report"]
    drawn: dict[str, Any] = {"plots": []}
    when = [numbers.moment(document["created"])] if document.get("created") is not None else []
    when += [f"for {numbers.duration(report['seconds'])}"] if report.get("seconds") else []
    sections = [
        _best(report),
        _curves(report, drawn),
        _settings(report),
        _trials(report),
        _crew(report, drawn),
        account.account(
            {"ledger": {"seconds": report.get("ledger_s")}, "headline": {"dollars": report.get("dollars")}}, drawn
        ),
        again.again(document),
    ]
    return Page(
        title=f"{report['sweep']} · sweep report",
        opening=opening.opening(
            "Sweep report",
            str(report["sweep"]),
            str(report["state"]),
            " · ".join(when),
            document.get("words") or {},
            _tiles(report),
            "Tried",
        ),
        sections=[section for section in sections if section is not None],
        drawn=drawn,
        footer=run.footer(bool(document.get("redacted"))),
    )


def ranked(report: Report) -> list[Mapping[str, Any]]:
    """The trials, best first; those without a value last."""
    sign = -1.0 if report["mode"] == "max" else 1.0
    known = [trial for trial in report["trials"] if trial.get("best") is not None]
    return sorted(known, key=lambda trial: sign * trial["best"]) + [
        trial for trial in report["trials"] if trial.get("best") is None
    ]


def _tiles(report: Report) -> list[opening.Tile]:
    best, counts = report.get("best") or {}, report.get("counts") or {}
    made: list[opening.Tile] = []
    if best.get("best") is not None:
        made.append(
            (
                str(report["metric"]),
                numbers.number(best["best"]),
                f"trial {best['trial']}, best of {len(report['trials'])}",
            )
        )
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    made.append(("Trials", numbers.number(len(report["trials"])), states))
    made.append(("Time", numbers.duration(report.get("seconds")), f"{report.get('worker_s') or 0:,.0f} worker-seconds"))
    if report.get("goodput") is not None:
        made.append(("Goodput", numbers.share(report["goodput"]), "of worker-seconds in committed steps"))
    if report.get("dollars") is not None:
        made.append(("Cost", numbers.dollars(report["dollars"]), ""))
    return made


def _best(report: Report) -> Section | None:
    best = report.get("best")
    if not best:
        return None
    facts = [(key, tag("code", numbers.number(value))) for key, value in (best.get("best_settings") or {}).items()]
    note = f"Trial {best['trial']}, run {best['run']}."
    return Section("best", "The best settings", pairs(facts), note)


def _curves(report: Report, drawn: dict[str, Any]) -> Section | None:
    order = [trial for trial in ranked(report) if len(trial.get("evaluations") or ()) > 0][:LINES]
    if not order:
        return None
    lines = []
    for place, trial in enumerate(reversed(order)):  # the best is drawn last, over the others
        at = len(order) - 1 - place
        steps, values = zip(*trial["evaluations"], strict=True)
        one = plots.line(f"trial {trial['trial']}", {"step": steps, "value": values}, min(at, BEST))
        lines.append(one | {"quiet": at >= BEST})
    chart = {"id": "trials", "kind": "lines", "unit": "", "height": 340, "backwards": True, "series": lines}
    drawn["plots"].append(chart)
    frame = plots.frame(
        chart, str(report["metric"]), "the six best in colour", f"{report['metric']} of each trial", "wide"
    )
    return Section("curves", "How the trials went", frame)


def _settings(report: Report) -> Section | None:
    shares = report.get("importance") or {}
    trials = [trial for trial in ranked(report) if trial.get("best") is not None]
    keys = sorted({key for trial in trials for key in trial["settings"]}, key=lambda key: -shares.get(key, 0.0))
    varied = [key for key in keys if len({str(trial["settings"].get(key)) for trial in trials}) > 1]
    if not varied:
        return None
    made: list[Markup] = []
    for key in varied[:12]:
        points = [
            (t["best_settings"].get(key, t["settings"].get(key)), t["best"], f"trial {t['trial']}") for t in trials
        ]
        weight = f"{numbers.share(shares[key])} of the differences" if key in shares else ""
        caption = tag("figcaption", tag("span", key, class_="title"), tag("span", weight, class_="note"))
        made.append(tag("figure", caption, scatter.scatter(points, str(report["metric"])), class_="plot"))
    return Section(
        "settings", "What mattered", tag("div", made, class_="pair"), str(report.get("importance_note") or "")
    )


def _trials(report: Report) -> Section:
    order = ranked(report)
    keys = list(dict.fromkeys(key for trial in order for key in trial["settings"]))[:8]
    columns = {"trial": f"n {HEAD}", "state": "", f"{report['metric']}\u200b": "n", "steps": "n", "worker-s": "n"}
    columns |= {f"{key}\u200b\u200b": "" for key in keys}  # whatever they are called, they have columns of their own
    columns |= {"why": "soft"}
    rows: list[Sequence[Inside]] = [
        (
            numbers.number(trial["trial"]),
            str(trial["state"]),
            numbers.number(trial.get("best")),
            numbers.number(trial.get("step")),
            numbers.number(trial.get("worker_s")),
            *(numbers.number(trial["settings"].get(key)) for key in keys),
            str(trial.get("why") or ""),
        )
        for trial in order
    ]
    return Section("trials", "All trials", folded(rows, SEEN, "trial", lambda some: table(columns, some)))


def _crew(report: Report, drawn: dict[str, Any]) -> Section | None:
    sizes = report.get("workers") or ()
    if len(sizes) < 2:
        return None
    seconds, workers = zip(*sizes, strict=True)
    series = plots.line("workers", {"step": seconds, "seconds": seconds, "value": workers})
    chart = {"id": "workers", "kind": "steps", "unit": "", "height": 170, "own": "time", "series": [series]}
    drawn["plots"].append(chart)
    return Section(
        "workers", "Workers", plots.frame(chart, "How many trained, over time", None, "Workers over time", "wide")
    )
