"""`headway sync`: send the records of a run that MLflow could not be given while it ran."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from headway.cli.options import Run, Runs
from headway.cli.saying import say
from headway.errors import PLATFORM_FAILED


def sync(
    run: Run,
    runs: Runs = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to try.")] = 300,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send a run's, or a sweep's own, waiting records to MLflow. One whose leader is gone is closed there, too."""
    from dataclasses import asdict

    from headway.runs import Place, find, telling
    from headway.sweeps import folder

    place = Place.of(runs)
    summary = telling.tell(folder.look(place, run) or find(place, run), timeout_s, say)
    # All points may be there while what came after them (the run's end, a checkpoint) is not: then there is an error.
    failed = bool(summary.error or summary.waiting or not summary.whole)
    if json_output:
        print(json.dumps(asdict(summary)))
    else:
        print(f"{run}: {summary.sent} points sent, {summary.waiting} waiting ({summary.page or summary.uri})")
        if failed:
            print(
                f"headway: {summary.error or 'out of time'}. Run `headway sync {run}` again.",
                file=typer.get_text_stream("stderr"),
            )
    if failed:
        raise typer.Exit(PLATFORM_FAILED)
