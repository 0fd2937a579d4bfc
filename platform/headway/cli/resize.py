"""headway resize"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.asking import answered
from headway.cli.options import Address, Json, Run, Runs
from headway.cli.saying import say
from headway.errors import PLATFORM_FAILED

if TYPE_CHECKING:
    from headway.jobs.look.resizing import Resized


def resize(
    run: Run,
    workers: Annotated[
        str, typer.Option("--workers", metavar="N|N..M", help="How many are to train; 2..4: at least 2, at most 4.")
    ],
    runs: Runs = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Let a run have more workers, or fewer, while it runs. What it computes does not change."""
    from headway.jobs.look.resizing import resize as resized

    found = answered(lambda: resized(run, workers, runs=runs, address=address, say=say), _lines, json)
    if not found.heard and found.waits != "it has not begun":
        raise typer.Exit(PLATFORM_FAILED)


def _lines(found: Resized) -> list[str]:
    from headway.jobs.look.resizing import words

    other = "somebody else asked meanwhile: " if found.by_other else ""
    lines = [f"{other}{found.run} is to have {words(found.min, found.max)}"]
    if found.heard and found.workers is not None:
        lines.append(f"{found.workers} {'trains' if found.workers == 1 else 'train'} now")
    if found.waits:
        lines.append(f"it waits: {found.waits}" if found.heard else f"not heard so far: {found.waits}")
    lines.append(f"headway status {found.run} shows how it goes")
    return lines
