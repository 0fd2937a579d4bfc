"""What went wrong and what became of it: changes of membership with their pauses; and all that happened, folded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.core.chronicle import CAUSES
from headway.core.incidents import PLANNED
from headway.report.page import numbers
from headway.report.page.journey import KINDS
from headway.report.page.markup import Markup, tag
from headway.report.page.sheet import Section
from headway.report.page.tables import HEAD, Row, folded, table

SEEN, EVENTS = 12, 2000
"""Changes that are seen at once; events that a page holds."""
TITLE = "Losses and recoveries"
COLUMNS = {
    "": "sign",
    "step": "n",
    "after": "n soft",
    "workers": HEAD,
    "what happened": "",
    "silent": "n soft",
    "training paused": "n pause",
    "steps repeated": "n",
}
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
        return Section("trouble", TITLE, tag("p", "No worker was lost, and none joined later."))
    again = sum(change.get("lost_steps") or 0 for change in found)
    held = sum(change.get("pause_s") or 0.0 for change in found)
    note = (
        f"{numbers.counted(len(lost), 'loss', 'losses')}, {numbers.counted(len(found) - len(lost), 'planned change')}; "
        f"training stood still for {numbers.duration(held)} in all, and {numbers.counted(again, 'step')} "
        f"{'was' if again == 1 else 'were'} done again."
    )
    most = max((change.get("pause_s") or 0.0 for change in found), default=0.0) or 1.0
    rows = [_row(change, most) for change in found]
    return Section("trouble", TITLE, folded(rows, SEEN, "change", lambda some: table(COLUMNS, some)), note)


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
            tag("span", f"{numbers.TIMES}{event['count']:,}", class_="count")
            if (event.get("count") or 1) > 1
            else None,
        )
        for event in found[:EVENTS]
    ]
    left = len(found) - EVENTS
    more = tag("p", f"{left:,} later ones are not on this page.", class_="note") if left > 0 else None
    folded = tag(
        "details", tag("summary", numbers.counted(len(found), "event")), tag("ol", rows, class_="events"), more
    )
    return Section("events", "Everything that happened", folded)


def _row(change: Mapping[str, Any], most: float) -> Row:
    cause = str(change["cause"])
    kind = "joined" if cause == "joined" else "resize" if cause in PLANNED else "lost"
    silent, pause = change.get("silent_s"), change.get("pause_s")
    return (
        tag("i", KINDS[kind][0], class_=f"sign {kind}", aria_hidden="true"),
        numbers.number(change.get("step")),
        numbers.duration(change.get("seconds")),
        ", ".join(map(str, change.get("workers") or ())) or numbers.DASH,
        SAID.get(cause) or CAUSES.get(cause, cause.replace("_", " ")),
        numbers.duration(silent),
        [tag("span", numbers.duration(pause)), _pause(pause or 0.0, most)],
        _again(change),
    )


def _pause(pause: float, most: float) -> Markup:
    wide = max(1.0, WIDE * pause / most)
    rect = tag("rect", x="0", y="1", width=f"{wide:.1f}", height="6", rx="2")
    return tag("svg", rect, class_="pause", viewBox=f"0 0 {WIDE:.0f} 8", aria_hidden="true")


def _again(change: Mapping[str, Any]) -> str:
    steps = change.get("lost_steps") or 0
    return f"{steps:,}{' (kept in memory)' if change.get('kept') else ''}" if steps or change.get("kept") else "0"
