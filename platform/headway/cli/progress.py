"""How far `headway data prepare` is: a bar where standard error is a terminal, a line for each tenth elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def shown() -> Iterator[Callable[[Any], None]]:
    """Gives what is to be called with each `Progress`."""
    if sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield _Lines()


class _Lines:
    def __init__(self) -> None:
        self._said = ("", 0)

    def __call__(self, progress: Any) -> None:
        tenth = 10 * progress.done // max(1, progress.total)
        if tenth and (progress.stage, tenth) != self._said:
            self._said = (progress.stage, tenth)
            print(f"{progress.stage}: {10 * tenth} %, {progress.rows:,} rows", file=sys.stderr, flush=True)


@contextmanager
def _bar() -> Iterator[Callable[[Any], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        stages: dict[str, Any] = {}

        def tell(progress: Any) -> None:
            if progress.stage not in stages:
                stages[progress.stage] = bar.add_task(progress.stage, total=progress.total, rows=0)
            bar.update(stages[progress.stage], completed=progress.done, total=progress.total, rows=progress.rows)

        yield tell
