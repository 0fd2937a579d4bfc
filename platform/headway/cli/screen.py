"""What goes on is shown on stderr: redrawn on a terminal, in plain lines elsewhere. Standard output is the report's."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import typer
from rich.console import Console
from rich.live import Live

from headway.errors import INTERRUPTED, BadInput, HeadwayError

T = TypeVar("T")


class Screen(ABC):
    """Use it as a context manager while it is written to.

    Args:
        console: another than stderr's.
        overflow: what becomes of lines for which the terminal is not high enough.
        plain: lines alone, also on a terminal: somebody else may be writing there.
        whole: on a page of its own, which is gone afterwards: it may be drawn anew in any size.

    Attributes:
        name: of the run or the sweep that is shown; None before anything is.
        plain: it is no terminal, or as good as none.
    """

    def __init__(
        self,
        console: Console | None = None,
        overflow: Literal["crop", "ellipsis"] = "ellipsis",
        plain: bool = False,
        whole: bool = False,
    ) -> None:
        self.name: str | None = None
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False, vertical_overflow=overflow, screen=whole)
        self.plain = plain or not self.console.is_terminal

    def __enter__(self) -> Self:
        if not self.plain:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.plain:
            with suppress(OSError):
                self.live.stop()

    @abstractmethod
    def update(self, seen: Any) -> None:
        """Show it; for `watch=`. A reader who has gone away ends nothing."""


def followed(
    start: Callable[[Callable[[Any], None]], T],
    screen: Screen,
    failed: Callable[[str], None] | None,
    aside: bool = True,
) -> T:
    """What `start` gives, which is called with what shows how far it is.

    Args:
        failed: called with the name of what began and failed, before the error is raised again.
        aside: what is printed to standard output meanwhile goes to standard error.

    Raises:
        typer.Exit: it was interrupted before it began; what has begun hears of it otherwise, and is closed.
    """
    try:
        # Ray and the user's code may print to standard output.
        with redirect_stdout(sys.stderr) if aside else nullcontext(), screen:
            return start(screen.update)
    except KeyboardInterrupt:
        print("Interrupted before it began; nothing was started.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except HeadwayError:
        if failed is not None and screen.name is not None:
            with suppress(BadInput):  # nothing is left of one that never began
                failed(screen.name)
        raise
