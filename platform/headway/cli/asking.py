"""What `stop` and `resize` have in common: whoever leads a run is asked, its answer waited for, and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import typer

from headway.cli.saying import say
from headway.errors import INTERRUPTED

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def answered(ask: Callable[[], T], lines: Callable[[T], Sequence[str]], json: bool) -> T:
    """Ask, and print the answer on standard output, as one JSON object or in lines for people; returns it.

    Raises:
        typer.Exit: it was interrupted while it waited; what was asked stays asked.
    """
    try:
        found = ask()
    except KeyboardInterrupt:
        say("Not waited for any more; what was asked stays asked.")
        raise typer.Exit(INTERRUPTED) from None
    if json:
        import json as encoder

        print(encoder.dumps(asdict(found)))
    else:
        for line in lines(found):
            print(line)
    return found
