"""headway records export"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json, Run, Runs

app = typer.Typer(help="A run's records for other tools.", no_args_is_help=True)


@app.callback()
def records() -> None:
    """A run's records for other tools."""


@app.command()
def export(
    run: Run,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Where to write. [default: RUN-records]")
    ] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Write a run's steps, metrics, events, recoveries, nodes and checkpoints as Parquet files, at any time."""
    from headway.records import export as exported
    from headway.runs import Place, find

    found = find(Place.of(runs), run)
    done = exported(found, to or Path(f"{found.name}-records"))
    for name, lines in done.damaged.items():
        print(f"note: {lines} damaged lines of {name} were left out", file=sys.stderr)
    if json:
        from json import dumps

        print(dumps(vars(done)))
        return
    told = ", ".join(f"{name} {rows:,}" for name, rows in done.rows.items())
    print(f"{done.folder}: {done.bytes / 1e6:,.1f} MB of Parquet; rows: {told}")
