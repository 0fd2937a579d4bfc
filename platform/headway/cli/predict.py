"""headway predict"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headway.cli.options import Json, Run, Runs
from headway.errors import INTERRUPTED

Data = Annotated[str, typer.Argument(help="A dataset (folder or URL), or files: Parquet, CSV, JSON lines, images.")]
Step = Annotated[str, typer.Option("--step", metavar="STEP", help="Checkpoint: best, last or the number of a step.")]
Batch = Annotated[int | None, typer.Option("--batch", help="Rows at a time; by the job and their size if not given.")]


def predict(
    run: Run,
    data: Data,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Folder or URL to write. [default: predictions-RUN]")
    ] = None,
    step: Step = "best",
    keep: Annotated[
        str, typer.Option("--keep", metavar="COLUMN,...", help="Columns of DATA to write too; all for all.")
    ] = "",
    batch: Batch = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, however much it is.")] = False,
    address: Annotated[
        str | None,
        typer.Option("--address", help="local (an embedded Ray), auto, or HOST:PORT: there, however little it is."),
    ] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Use a run's model on rows: Parquet with the task's predictions, in the order of the rows.

    Below 100,000 rows in this process, else as a Ray Data job. After a crash the same command goes on where it was.
    """
    from headway.errors import BadInput
    from headway.models.predict import predict as predicted

    if local and address is not None:
        raise BadInput(f"--local and --address {address}", "they are two places", "Give one of them.")
    place = out or f"predictions-{run.rstrip('/').rpartition('/')[2]}"
    where = "in-process" if local else address
    keeping = [name.strip() for name in keep.split(",")] if keep not in ("", "all") else keep or ()
    lines = _Lines()
    try:
        made = predicted(
            run, data, place, step=step, keep=keeping, batch=batch, address=where, runs_folder=runs, say=lines
        )
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where this one ended.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    if json:
        from json import dumps

        found = {"run": made.run, "step": made.step, "rows": made.rows, "before": made.before, "out": made.out}
        print(dumps({**found, "seconds": round(made.seconds, 3)}))
        return
    before = f" ({made.before:,} of them were there)" if made.before else ""
    print(f"{made.out}: {made.rows:,} predictions{before} by step {made.step} of {made.run}, {made.seconds:.1f} s")


class _Lines:
    """How far it is: a line for each tenth."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self, done: int, of: int | None) -> None:
        tenth = 10 * done // of if of else 0
        if self._said < tenth < 10:
            self._said = tenth
            print(f"predicted: {10 * tenth} %, {done:,} rows", file=sys.stderr, flush=True)
