"""`headway sync`: send the records of a run that MLflow could not be given while it ran."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Annotated

import typer

from headway.cli.options import Run, Runs
from headway.errors import PLATFORM_FAILED


def sync(
    run: Run,
    runs: Runs = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to try.")] = 300,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send a run's, or a sweep's own, waiting records to MLflow."""
    from dataclasses import asdict

    from headway.runs import Place, find
    from headway.sweeps import folder
    from headway.tracking import mlflow_writer

    place = Place.of(runs)
    found = folder.look(place, run) or find(place, run)
    with found.led() if found.far else nullcontext():  # how far it got is kept in the store, too
        summary = mlflow_writer.sync(found.path, timeout_s=timeout_s)
    # All points may be there while what came after them (the run's end, a checkpoint) is not: then there is an error.
    failed = bool(summary.error or summary.waiting)
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
