"""What shows how far a sweep is, on stderr: a table that fits the terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from headway.cli.clock import lasting
from headway.cli.screen import Screen

if TYPE_CHECKING:
    from headway.sweeps.seen.view import Trial, View

PLAIN_EVERY_S = 5.0
AROUND = 4
"""Lines of the terminal that are no trial's: what the sweep is at, the table's head, those left out, the cursor."""
COLUMNS = (
    ("trial", 0),
    ("state", 0),
    ("rung", 60),
    ("step", 40),
    ("metric", 0),
    ("workers", 50),
    ("settings", 110),
    ("why", 70),
)
"""With the width of the terminal from which on there is room for them."""
NARROW = 12
"""Characters that a column of numbers has at least, where it needs them; settings and reasons share what is left."""
RIGHT = ("trial", "rung", "step", "metric", "workers")
BUSY = ("running", "standing")
PLACES = {state: place for place, state in enumerate((*BUSY, "waiting", "paused", "finished", "stopped"))}


class SweepLive(Screen):
    """Give its `update` to `headway.sweep(..., watch=...)`."""

    def __init__(self, console: Console | None = None, plain: bool = False, whole: bool = False) -> None:
        super().__init__(console, overflow="crop", plain=plain, whole=whole)
        self._shown_at = 0.0
        self._shown: tuple[object, ...] = ()

    def update(self, view: View) -> None:
        """Show it, and its messages above it. A reader who has gone away does not end the sweep."""
        self.name = view.subject.sweep
        with suppress(OSError):
            for message in view.messages:
                self.console.print(message, markup=False)
            if self.plain:
                self._line(view)
            else:
                width, height = self.console.size
                self.live.update(drawn(view, width, height), refresh=True)

    def _line(self, view: View) -> None:
        now = time.monotonic()
        shown = (view.state, view.over, view.counts["running"], view.workers, _value(view))
        ended = view.state != "running"
        if shown != self._shown and (ended or now - self._shown_at >= PLAIN_EVERY_S):
            self._shown_at, self._shown = now, shown
            self.console.print(heading(view), markup=False)


def heading(view: View) -> str:
    """How far the sweep is, in a line."""
    counts, wanted = view.counts, view.subject.trials
    parts = [f"{view.subject.sweep}: {view.over}{f' of {wanted}' if wanted else ''} trials over"]
    if view.best is not None:
        parts.append(f"best {view.subject.metric} {_value(view)} (trial {view.best.number})")
    parts += [f"{counts[state]} {state}" for state in ("running", "paused", "failed", "diverged") if counts[state]]
    parts.append(f"{view.workers} worker{'s' if view.workers != 1 else ''}")
    parts.append(f"{lasting(view.seconds)}, {view.worker_s:,.0f} worker-seconds")
    if view.goodput is not None:
        parts.append(f"goodput {view.goodput:.0%}")
    if view.dollars is not None:
        parts.append(f"${view.dollars:,.2f}")
    if view.state != "running":
        parts.append(view.state + (f": {view.message}" if view.message else ""))
    return "  ".join(parts)


def drawn(view: View, width: int, height: int) -> Group:
    """The sweep, in a terminal of that many columns and lines."""
    shown, left = chosen(view, max(1, height - AROUND))
    columns = [name for name, least in COLUMNS if width >= least]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    lines = [_cells(trial) for trial in shown]
    for name in columns:
        title = view.subject.metric if name == "metric" else name
        wide = name in ("why", "settings")
        least = max(len(text) for text in (title, *(cells[name] for cells in lines)))
        table.add_column(
            title,
            justify="right" if name in RIGHT else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if wide else None,
            min_width=None if wide else min(least, NARROW),
        )
    for trial, cells in zip(shown, lines, strict=True):
        style = "bold" if trial is view.best else "dim" if trial.over else ""
        table.add_row(*(Text(cells[name], style=style) for name in columns))
    head = Text(heading(view), style="bold", no_wrap=True, overflow="ellipsis")
    foot = [Text(f"and {left}", style="dim", no_wrap=True, overflow="ellipsis")] if left else []
    return Group(head, table, *foot)


def chosen(view: View, most: int) -> tuple[list[Trial], str]:
    """The trials that are shown: those that train, then those that may go on, then the others, each best first; and
    those that are not, in words."""
    sign = -1.0 if view.subject.mode == "max" else 1.0

    def place(trial: Trial) -> tuple[int, bool, float, int]:
        value = trial.best
        rest = (value is None, sign * value if value is not None else 0.0, trial.number)
        return 0 if trial.state in BUSY else PLACES.get(trial.state, len(PLACES)), *rest

    everyone = sorted(view.trials.values(), key=place)
    if view.best in everyone[most:]:  # it is always to be seen
        everyone.remove(view.best)
        everyone.insert(most - 1, view.best)
    counts: dict[str, int] = {}
    for trial in everyone[most:]:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    return everyone[:most], ", ".join(f"{count} more {state}" for state, count in counts.items())


def _cells(trial: Trial) -> dict[str, str]:
    from headway.sweeps.seen.view import number, settings_in_words

    return {
        "trial": str(trial.number),
        "state": trial.state,
        "rung": str(trial.rung) if trial.rung else "",
        "step": f"{trial.step}/{trial.until}" if trial.state in BUSY else str(trial.step),
        "metric": "" if trial.value is None else number(trial.value),
        "workers": str(trial.workers) if trial.workers else "",
        "settings": settings_in_words(trial.settings),
        "why": trial.why,
    }


def _value(view: View) -> str:
    from headway.sweeps.seen.view import number

    return "" if view.best is None or view.best.best is None else number(view.best.best)
