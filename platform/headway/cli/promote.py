"""headway promote"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headway.cli.options import Json, Run, Runs


def promote(
    run: Run,
    alias: Annotated[str, typer.Option("--alias", help="That is to lead to the model: production, say.")],
    step: Annotated[str, typer.Option("--step", help="best, last, or the number of one.")] = "best",
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Registered model; the job's name when not given.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Though the alias leads to another version.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Copy a run's model into MLflow, where an alias leads to it whatever becomes of the run."""
    from headway.models.promoting import promote as start

    done = start(run, alias=alias, step=step, model=model, replace=replace, runs_folder=runs)
    if json:
        from dataclasses import asdict
        from json import dumps

        print(dumps(asdict(done)))
        return
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in done.metrics.items())
    best = "; `best` leads there too" if done.best else ""
    print(f"{done.model} version {done.version}: {done.run}, step {done.step}{f'  ({metrics})' if metrics else ''}")
    before = f" (before: version {done.was})" if done.was else ""
    print(f"alias {done.alias} leads there{before}{best}")
    print(f"load it with mlflow.pyfunc.load_model({done.uri!r})")
    if done.page:
        print(done.page)
