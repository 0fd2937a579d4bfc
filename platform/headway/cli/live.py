"""What shows how far a run is, on stderr: redrawn on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.text import Text

from headway.cli.screen import Screen

if TYPE_CHECKING:
    from rich.console import Console

    from headway.driver.progress import Progress

PLAIN_EVERY_S = 5.0


class Live(Screen):
    """Give its `update` to `headway.train(watch=...)`.

    Args:
        plain, console: see `Screen`.
    """

    def __init__(self, plain: bool = False, console: Console | None = None) -> None:
        super().__init__(console, plain=plain)
        self._shown_at = 0.0
        self._shown_step = -1
        self._began = time.monotonic()
        self._metrics: dict[str, float] = {}

    def update(self, progress: Progress) -> None:
        """Show the progress, and its messages above it. A reader who has gone away does not end the run."""
        self.name = progress.run
        with suppress(OSError):
            self._show(progress)

    def _show(self, progress: Progress) -> None:
        for message in progress.messages:
            self.console.print(message, markup=False)
        if progress.metrics != self._metrics and progress.step:
            self._metrics = progress.metrics
            shown = "  ".join(f"{name} {value:.4f}" for name, value in progress.metrics.items())
            self.console.print(f"step {progress.measured}: validation  {shown}", markup=False)
        line = self._line(progress)
        if not self.plain:
            self.live.update(Text(line), refresh=True)
            return
        now = time.monotonic()
        ended = progress.step == progress.total_steps and self._shown_step != progress.step
        if progress.step != self._shown_step and (now - self._shown_at >= PLAIN_EVERY_S or ended):
            self._shown_at, self._shown_step = now, progress.step
            self.console.print(line, markup=False)

    def _line(self, progress: Progress) -> str:
        if not progress.workers and (not progress.step or progress.step < progress.total_steps):
            waited = time.monotonic() - self._began
            return f"{progress.run}: waiting {progress.waits or f'for workers ({waited:.0f} s)'}"
        loss = "-" if progress.loss is None else f"{progress.loss:.4f}"
        parts = [
            f"{progress.run}: step {progress.step}/{progress.total_steps}",
            f"epoch {progress.epoch}",
            f"loss {loss}",
            f"{progress.samples_per_s:,.0f} samples/s",
            f"{progress.workers} worker{'s' if progress.workers != 1 else ''}",
            f"goodput {progress.goodput:.0%}",
            _left(progress),
        ]
        return "  ".join(parts)


def _left(progress: Progress) -> str:
    if not progress.steps_per_s or progress.step >= progress.total_steps:
        return ""
    seconds = int((progress.total_steps - progress.step) / progress.steps_per_s)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02} left"
