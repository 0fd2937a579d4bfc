"""The first lines of a page: what was trained, on what, how well, how long, for how much, what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.report.page import numbers
from headway.report.page.markup import Inside, Markup, tag, together

WORDS = {
    "what": "Trained",
    "data": "On",
    "how_well": "How well",
    "how_long": "How long",
    "cost": "Cost",
    "trouble": "What went wrong",
    "again": "Once more",
    "differences": "Differences",
}
"""The names of the first lines, in order."""
PILLS = {
    "finished": "good",
    "running": "busy",
    "waiting": "busy",
    "stopped": "calm",
    "interrupted": "warn",
    "failed": "bad",
}

Tile = tuple[str, str, str]
"""A number for people: what it is of, the number, and a word on it."""


def opening(
    eyebrow: str, name: str, state: str, line: str, words: Mapping[str, str], tiles: list[Tile], what: str = "Trained"
) -> Markup:
    """The head of a page.

    Args:
        eyebrow: above the name: of what this is the report.
        state: of a run or sweep; empty for none.
        line: beneath the name.
        words: the first lines, by the names of WORDS.
        tiles: the numbers.
        what: the name of the first of the words.
    """
    pill = tag("span", state.capitalize(), class_=f"pill {PILLS.get(state, 'calm')}") if state else None
    told = [(title, words[key]) for key, title in {**WORDS, "what": what}.items() if words.get(key)]
    return tag(
        "header",
        tag("p", tag("span", eyebrow), pill, class_="eyebrow"),
        tag("h1", name),
        tag("p", line, class_="line") if line else None,
        tag("dl", ((tag("dt", title), tag("dd", prose(text))) for title, text in told), class_="words"),
        tag("ul", map(_tile, tiles), class_="tiles") if tiles else None,
    )


def of_run(story: Mapping[str, Any]) -> Markup:
    """The head of a run's page."""
    run = story["run"]
    when = " · ".join(
        text
        for text in (
            numbers.moment(run.get("created")),
            f"for {numbers.duration(run['seconds'])}" if run.get("seconds") else "",
            f"by {run['by']}" if run.get("by") else "",
        )
        if text and text != numbers.DASH
    )
    words = story.get("words") or {}
    made = opening("Training report", str(run["name"]), str(run["state"]), when, words, tiles(story))
    return together(made, (tag("p", str(note), class_="aside") for note in run.get("notes") or ()))


def tiles(story: Mapping[str, Any]) -> list[Tile]:
    """A run in numbers."""
    head: Mapping[str, Any] = story.get("headline") or {}
    made = [*_best(head), _steps(head), *_time(story), *_workers(story, head), *_goodput(head), *_changes(head)]
    if head.get("exchanged_bytes"):
        each = f"{numbers.size(head['exchanged_bytes'] / head['steps'])} a step" if head.get("steps") else ""
        made.append(("Sent", numbers.size(head["exchanged_bytes"]), f"between workers, {each}".rstrip(", ")))
    if head.get("memory_bytes"):
        planned = head.get("memory_planned")
        word = f"of one worker; the plan said {numbers.size(planned)}" if planned else "of one worker"
        made.append(("Peak memory", numbers.size(head["memory_bytes"]), word))
    if head.get("dollars") is not None:
        made.append(("Cost", numbers.dollars(head["dollars"]), f"{number_of_seconds(head)} paid"))
    return made


def number_of_seconds(head: Mapping[str, Any]) -> str:
    """Worker-seconds in words."""
    hours = (head.get("worker_seconds") or 0.0) / numbers.HOUR
    return f"{hours:,.1f} worker-hours" if hours >= 1 else f"{head.get('worker_seconds') or 0:,.0f} worker-seconds"


def _best(head: Mapping[str, Any]) -> list[Tile]:
    best = head.get("best") or {}
    if best.get("value") is None:
        return []
    word = "best" if best.get("mode") in ("max", "min", None) else str(best["mode"])
    at = f"{word}, at step {numbers.number(best['step'])}" if best.get("step") is not None else word
    return [(str(best.get("metric", "best")), numbers.number(best["value"]), at)]


def _steps(head: Mapping[str, Any]) -> Tile:
    done, wanted = head.get("steps") or 0, head.get("total_steps")
    of = f"of {numbers.number(wanted)}" if wanted and wanted != done else ""
    walks = f"{numbers.counted(round(head['epochs'], 2), 'epoch')}" if head.get("epochs") else ""
    rows = f"{numbers.number(head['samples'])} samples" if head.get("samples") else ""
    return ("Steps", numbers.number(done), ", ".join(text for text in (of, walks, rows) if text))


def _time(story: Mapping[str, Any]) -> list[Tile]:
    seconds, head = story["run"].get("seconds"), story.get("headline") or {}
    if not seconds:
        return []
    rate = f"{numbers.number(round(head['samples'] / seconds))} samples a second" if head.get("samples") else ""
    return [("Time", numbers.duration(seconds), rate)]


def _workers(story: Mapping[str, Any], head: Mapping[str, Any]) -> list[Tile]:
    sizes = [entry["workers"] for entry in story.get("workers") or () if entry.get("workers") is not None]
    if not sizes and head.get("workers_max") is None:
        return []
    low, high = (min(sizes), max(sizes)) if sizes else (head["workers_max"],) * 2
    return [("Workers", numbers.several(low, high), number_of_seconds(head))]


def _goodput(head: Mapping[str, Any]) -> list[Tile]:
    if head.get("goodput") is None:
        return []
    return [("Goodput", numbers.share(head["goodput"]), "of worker-seconds in committed steps")]


def _changes(head: Mapping[str, Any]) -> list[Tile]:
    again = numbers.counted(head.get("repeated_steps") or 0, "step")
    return [
        (
            "Workers lost",
            numbers.number(head.get("losses") or 0),
            f"{head.get('joins') or 0:,} joined, {again} repeated",
        )
    ]


def prose(text: str) -> list[Inside]:
    """A sentence, in which what stands between backticks is a command."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one is not closed
        return [text]
    return [tag("code", part) if at % 2 else part for at, part in enumerate(parts)]


def _tile(tile: Tile) -> Markup:
    name, value, word = tile
    return tag(
        "li", tag("span", name, class_="name"), tag("b", value), tag("span", word, class_="word") if word else None
    )
