"""headway export"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headway.cli.options import Json, Run, Runs
from headway.cli.predict import Step


def export(
    run: Run,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Folder to make. [default: export-RUN]")
    ] = None,
    step: Step = "best",
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Put a run's model into a folder of its own: safetensors, the task's code, a predict.py, a card."""
    from headway.models.export import export as exported

    made = exported(run, out or f"export-{run.rstrip('/').rpartition('/')[2]}", step=step, runs_folder=runs)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    if json:
        from json import dumps

        print(dumps(vars(made)))
        return
    print(f"{made.out}: step {made.step} of {made.run}, {made.bytes:,} bytes")
    if made.needs_headway:
        print(f"  Headway is needed to use it: the task's code uses {made.needs_headway}")
    print(f"  use it: python {made.out}/predict.py DATA [OUT.parquet]")
