"""A run that goes on elsewhere, in a terminal of any size; and in plain lines where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.text import Text

from headway.cli.clock import lasting, moment
from headway.cli.live import Live
from headway.cli.screen import Screen
from headway.cli.sparkline import cells, sparkline
from headway.core.chronicle import CAUSES

if TYPE_CHECKING:
    from headway.jobs.look.watching import Watched, Worker

LABEL = 12
"""Characters of what a line is about."""
COLOURS = {
    "compute": "green",
    "communication": "cyan",
    "data": "blue",
    "checkpoint": "magenta",
    "start": "yellow",
    "regroup": "bright_red",
    "repeated": "red",
    "spare": "bright_black",
    "idle": "white",
}
STATES = {"running": "green", "finished": "bold green", "failed": "bold red"}
METRICS = 4
LINES = 3
EARLIER = 3
"""Events of before that are shown to begin with, in plain lines."""
LEAST_EVENTS = 2


class RunLive(Screen):
    """Draws `Watched`."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, overflow="crop", whole=True)

    def update(self, seen: Watched) -> None:
        self.name = seen.brief.run
        with suppress(OSError):
            width, height = self.console.size
            self.live.update(drawn(seen, width, height, "utf" in self.console.encoding.lower()), refresh=True)


class RunLines(Screen):
    """Tells `Watched` in lines, as `headway train` tells of a run where there is no terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, plain=True)
        self._lines = Live(plain=True, console=console)
        self._begun = False
        self._lacks = self._trouble = ""

    def update(self, seen: Watched) -> None:
        from headway.driver.progress import Progress

        brief = seen.brief
        self.name = brief.run
        events = seen.fresh if self._begun else seen.fresh[-EARLIER:]
        messages = [f"{moment(event.time)}  {event.text}" for event in events]
        for name, before, said in (("lacks", self._lacks, seen.lacks), ("trouble", self._trouble, brief.trouble)):
            if said != before and said:
                messages.append(f"{'its place cannot be read: ' if name == 'lacks' else ''}{said}")
        self._begun, self._lacks, self._trouble = True, seen.lacks, brief.trouble
        if brief.state != "running":  # nobody trains, and nobody is waited for
            for message in messages:
                self.console.print(message, markup=False)
            return
        self._lines.update(
            Progress(
                run=brief.run,
                step=brief.steps,
                total_steps=brief.total_steps or 0,
                epoch=seen.epoch or 0,
                loss=brief.loss,
                samples_per_s=seen.samples_per_s or 0.0,
                steps_per_s=brief.steps_per_s or 0.0,
                workers=brief.workers or 0,
                goodput=brief.goodput or 0.0,
                metrics=dict(brief.metrics),
                messages=messages,
                evaluated=seen.evaluated,
                waits=_waits(seen),
            )
        )


def drawn(seen: Watched, width: int, height: int, unicode: bool = True) -> Group:
    """The run, in a terminal of that many columns and lines."""
    head = [_head(seen), _bar(seen, width, unicode)]
    body = [_line(name, text, width) for name, text in _rows(seen, width - LABEL, unicode)]
    foot = [Text("q or Ctrl-C: leave; the run goes on", style="dim")]
    room = height - len(head) - len(foot)
    body = body[: max(0, room - LEAST_EVENTS)] if len(body) + LEAST_EVENTS > room else body
    free = room - len(body) - 1
    events = [_event(event.time, event.text) for event in seen.events[-free:]] if free > 0 else []
    rule = [Text(("─" if unicode else "-") * width, style="dim")] if events else []
    lines = [*head, *body, *rule, *events, *foot][:height]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def ended(seen: Watched) -> str:
    """Its end, in a line."""
    brief = seen.brief
    return f"run {brief.run} is at its end: {state_of(seen)} (step {brief.steps} of {brief.total_steps or '?'})"


def state_of(seen: Watched) -> str:
    """Its state in words, with why."""
    brief = seen.brief
    if brief.unheard:
        return f"not heard of since {moment(brief.last)}"
    return f"{brief.state}: {brief.message}" if brief.message else brief.state


def _head(seen: Watched) -> Text:
    brief = seen.brief
    text = Text.assemble((brief.run, "bold"), "  ", (state_of(seen), STATES.get(brief.state, "bold yellow")))
    begun = brief.created or seen.at
    text.append(f"  for {lasting(seen.at - begun)}" if not seen.over else f"  after {lasting(brief.last - begun)}")
    return text


def _bar(seen: Watched, width: int, unicode: bool) -> Text:
    brief = seen.brief
    told = [f"{brief.steps:,} of {brief.total_steps or '?'} steps"]
    if brief.total_steps:
        told.append(f"{brief.steps / brief.total_steps:.0%}")
    if seen.epoch is not None:
        told.append(f"epoch {seen.epoch}")
    if brief.steps_per_s and not seen.over:
        told.append(f"{brief.steps_per_s:,.2f} steps/s")
    if seen.samples_per_s and not seen.over:
        told.append(f"{seen.samples_per_s:,.0f} samples/s")
    if brief.left_s is not None:
        told.append(f"{lasting(brief.left_s)} left")
    words = "  ".join(told)
    length = max(0, min(60, width - len(words) - 2))
    done = round(length * min(1.0, brief.steps / brief.total_steps)) if brief.total_steps else 0
    full, empty = ("━", "─") if unicode else ("=", "-")
    return Text.assemble((full * done, "green"), (empty * (length - done), "dim"), "  " if length else "", words)


def _rows(seen: Watched, width: int, unicode: bool) -> Iterator[tuple[str, Text]]:
    """What there is to be said, by what it is about."""
    brief = seen.brief
    if seen.lacks:
        yield "place", Text(f"cannot be read: {seen.lacks}; what is shown is older", style="bold red")
    if brief.trouble:
        yield "trouble", Text(brief.trouble, style="bold red")
    if waits := _waits(seen):
        yield "waits", Text(waits, style="bold yellow")
    yield "loss", _curve(seen.loss, width, unicode, brief.loss)
    for name, points in list(seen.metrics.items())[:METRICS]:
        yield name, _curve(points, width, unicode)
    if len(seen.metrics) > METRICS:
        yield "", Text(f"and {len(seen.metrics) - METRICS} more metrics", style="dim")
    yield from _workers(seen, width, unicode)
    yield from _shares(seen, width, unicode)
    yield "losses", Text(_losses(seen))
    yield "checkpoint", Text(_checkpoint(seen))


def _waits(seen: Watched) -> str:
    brief = seen.brief
    if brief.state != "running" or not brief.waits:
        return ""
    return brief.waits + (f" ({lasting(seen.at - brief.since)})" if brief.since else "")


def _curve(points: tuple[tuple[int, float], ...], width: int, unicode: bool, newest: float | None = None) -> Text:
    value = newest if newest is not None else points[-1][1] if points else None
    if value is None:
        return Text("-")
    known = [each for _, each in points]
    ends = f"{min(known):.4g} to {max(known):.4g}" if len(known) > 1 else ""
    room = max(0, min(60, width - 12 - len(ends) - 4))
    return Text.assemble((f"{value:<12.5g}", "bold"), sparkline(points, room, unicode), "  ", (ends, "dim"))


def _workers(seen: Watched, width: int, unicode: bool) -> Iterator[tuple[str, Text]]:
    brief = seen.brief
    if brief.workers is None and not seen.workers:
        return
    asked = f" of {brief.least}..{brief.most}" if brief.least != brief.most else f" of {brief.most}"
    head = Text.assemble((f"{brief.workers or 0}", "bold"), asked if brief.most is not None else "")
    yield from _flowing("workers", [head, *(_worker(worker, unicode) for worker in seen.workers)], width)


def _worker(worker: Worker, unicode: bool) -> Text:
    """Its name with a mark for each lane; what it does where it carries none."""
    marks = ("■" if unicode else "#") * len(worker.lanes)
    slow = f" {worker.slow:.1f}x slow" if worker.slow > 1.0 else ""
    style = "yellow" if slow else "green" if marks else "dim"
    return Text.assemble((worker.name, style), " ", (marks or worker.phase, style), (slow, "yellow"))


def _shares(seen: Watched, width: int, unicode: bool) -> Iterator[tuple[str, Text]]:
    spent: Mapping[str, float] = {cause: seconds for cause, seconds in seen.ledger_s.items() if seconds > 0}
    whole = sum(spent.values())
    if not whole:
        return
    length = max(0, min(60, width))
    text = Text()
    for cause, count in zip(spent, cells(list(spent.values()), length), strict=True):
        text.append(("█" if unicode else cause[0]) * count, COLOURS.get(cause, "white"))
    yield "seconds", text
    words = [Text(f"{whole:,.0f} of workers")]
    if seen.brief.goodput is not None:
        words.append(Text(f"goodput {seen.brief.goodput:.0%}", "bold"))
    if seen.dollars is not None:
        words.append(Text(f"${seen.dollars:,.2f}"))
    for cause, seconds in sorted(spent.items(), key=lambda each: -each[1]):
        words.append(Text(f"{cause} {seconds / whole:.0%}", COLOURS.get(cause, "white")))
    yield from _flowing("", words, width)


def _flowing(name: str, items: list[Text], width: int) -> Iterator[tuple[str, Text]]:
    """Items one after the other, on as many lines as they need, but no more than LINES."""
    line, lines = items[0], 1
    for item in items[1:]:
        if line.cell_len + 2 + item.cell_len <= width or lines == LINES:
            line.append("  ").append_text(item)
        else:
            yield name, line
            name, line, lines = "", item, lines + 1
    yield name, line


def _losses(seen: Watched) -> str:
    if not seen.lost:
        told = "none"
    else:
        causes = ", ".join(f"{CAUSES.get(cause, cause)} ({count})" for cause, count in seen.lost.items())
        told = f"{sum(seen.lost.values())}: {causes}; {seen.lost_s:.2f} s in all"
    if seen.lost_steps:
        told += f"; {seen.lost_steps} steps were done again"
    return told + (f"; {seen.planned} joined, left or were moved" if seen.planned else "")


def _checkpoint(seen: Watched) -> str:
    brief = seen.brief
    if brief.checkpoint is None:
        return "none yet" if not seen.over else "none"
    ago = f", {lasting(seen.at - brief.checkpoint_at)} ago" if brief.checkpoint_at is not None else ""
    return f"of step {brief.checkpoint}{ago}"


def _line(name: str, text: Text, width: int) -> Text:
    label = name if len(name) < LABEL else name[: LABEL - 2] + "~"
    return Text.assemble((f"{label:<{LABEL}}", "dim"), text)


def _event(at: float, text: str) -> Text:
    return Text.assemble((moment(at)[11:], "dim"), "  ", text.replace("\n", " "))
