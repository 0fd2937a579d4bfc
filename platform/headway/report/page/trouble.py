"""What went wrong and what became of it: changes of membership with their pauses, and everything that happened, folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headway.core.chronicle import CAUSES
from headway.core.incidents import PLANNED
from headway.report.page import numbers
from headway.report.page.markup import Inside, Markup, tag
from headway.report.page.sheet import Section

SEEN, EVENTS = 12, 2000
"""Changes that are seen at once; events that a page holds."""
WIDE = 160.0
SAID = {
    "joined": "joined between two steps",
    "drained": "left before its machine was taken away",
    "resized": "left, as was asked for",
    "rebalanced": "lanes were shared anew",
}


def recoveries(story: Mapping[str, Any]) -> Section:
    """The section of losses, joins and their pauses; there too where nothing happened, which is worth a word."""
    found = list(story.get("recoveries") or ())
    lost = [change for change in found if change["cause"] not in PLANNED]
    if not found:
        return Section("trouble", "Losses and recoveries", tag("p", "No worker was lost, and none joined later."))
    again = sum(change.get("lost_steps") or 0 for change in found)
    held = sum(change.get("pause_s") or 0.0 for change in found)
    note = (
        f"{numbers.counted(len(lost), 'loss', 'losses')}, {numbers.counted(len(found) - len(lost), 'planned change')}; "
        f"training stood still for {numbers.duration(held)} in all, and {numbers.counted(again, 'step')} "
        f"{'was' if again == 1 else 'were'} done again."
    )
    most = max((change.get("pause_s") or 0.0 for change in found), default=0.0) or 1.0
    rows = [_row(change, most) for change in found]
    inside: list[Inside] = [_table(rows[:SEEN])]
    if len(rows) > SEEN:
        more = numbers.counted(len(rows) - SEEN, "more change")
        inside.append(tag("details", tag("summary", more), _table(rows[SEEN:])))
    return Section("trouble", "Losses and recoveries", inside, note)


def events(story: Mapping[str, Any]) -> Section | None:
    """All that happened, in order; shut until somebody wants it."""
    found = list(story.get("events") or ())
    if not found:
        return None
    rows = [
        tag(
            "li",
            tag("span", numbers.duration(event.get("seconds")), class_="when"),
            tag("span", f"step {event['step']:,}" if isinstance(event.get("step"), int) else "", class_="step"),
            tag("span", str(event.get("words", "")), class_="said"),
            tag("span", f"× {event['count']:,}", class_="count") if (event.get("count") or 1) > 1 else None,
        )
        for event in found[:EVENTS]
    ]
    left = len(found) - EVENTS
    more = tag("p", f"{left:,} later ones are not on this page.", class_="note") if left > 0 else None
    folded = tag(
        "details", tag("summary", numbers.counted(len(found), "event")), tag("ol", rows, class_="events"), more
    )
    return Section("events", "Everything that happened", folded)


def _row(change: Mapping[str, Any], most: float) -> Markup:
    cause = str(change["cause"])
    kind = "joined" if cause == "joined" else "resize" if cause in PLANNED else "lost"
    sign = {"joined": "▲", "resize": "■", "lost": "▼"}[kind]
    silent, pause = change.get("silent_s"), change.get("pause_s")
    return tag(
        "tr",
        tag("td", tag("i", sign, class_=f"sign {kind}", aria_hidden="true"), class_="sign"),
        tag("td", numbers.number(change.get("step")), class_="n"),
        tag("td", numbers.duration(change.get("seconds")), class_="n soft"),
        tag("th", ", ".join(map(str, change.get("workers") or ())) or numbers.DASH, scope="row"),
        tag("td", SAID.get(cause) or CAUSES.get(cause, cause.replace("_", " "))),
        tag("td", numbers.duration(silent), class_="n soft"),
        tag("td", tag("span", numbers.duration(pause)), _pause(pause or 0.0, most), class_="n pause"),
        tag("td", _again(change), class_="n"),
    )


def _pause(pause: float, most: float) -> Markup:
    wide = max(1.0, WIDE * pause / most)
    rect = tag("rect", x="0", y="1", width=f"{wide:.1f}", height="6", rx="2")
    return tag("svg", rect, class_="pause", viewBox=f"0 0 {WIDE:.0f} 8", aria_hidden="true")


def _again(change: Mapping[str, Any]) -> str:
    steps = change.get("lost_steps") or 0
    return f"{steps:,}{' (kept in memory)' if change.get('kept') else ''}" if steps or change.get("kept") else "0"


def _table(rows: Sequence[Markup]) -> Markup:
    heads = ("", "step", "after", "workers", "what happened", "silent", "training paused", "steps repeated")
    numeric = ("step", "after", "silent", "training paused", "steps repeated")
    head = tag("tr", (tag("th", name, scope="col", class_="n" if name in numeric else None) for name in heads))
    return tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll")
