"""headway events"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.clock import moment
from headway.cli.options import Address, Follow, Run, Runs
from headway.cli.saying import say

if TYPE_CHECKING:
    from headway.jobs.look.history import Event

Json = Annotated[bool, typer.Option("--json", help="Print a JSON object for each, a line each.")]


def events(
    run: Run,
    runs: Runs = None,
    address: Address = None,
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Tell what happened to a run, who or what did it, and what was done."""
    import json as encoder

    from headway.jobs.look.history import events as told

    found = told(run, runs=runs, address=address, follow=follow, say=say)
    if json:
        for event in found:
            print(encoder.dumps(asdict(event)), flush=True)
        return
    for event in found if follow else _without_each_checkpoint(found):
        if not event.quiet:
            print(f"{moment(event.time)}  {event.text}", flush=True)


def _without_each_checkpoint(found: Iterator[Event]) -> Iterator[Event]:
    """Of checkpoints with nothing between them only the newest, which says how many there were."""
    held: list[Event] = []
    for event in found:
        if held and event.kind != "checkpoint":
            yield _together(held)
            held = []
        if event.kind == "checkpoint":
            held.append(event)
        else:
            yield event
    if held:
        yield _together(held)


def _together(held: list[Event]) -> Event:
    last = held[-1]
    return last if len(held) == 1 else replace(last, text=f"{last.text}, after {len(held) - 1} earlier ones")
