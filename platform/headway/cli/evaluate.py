"""headway evaluate"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli.options import Json, Run, Runs
from headway.cli.predict import Batch, Data, Step

if TYPE_CHECKING:
    from headway.models.evaluate import Evaluated

SHOWN = 30
"""Classes that are shown, and of a confusion half as many."""


def evaluate(
    run: Run,
    data: Data,
    step: Step = "best",
    label: Annotated[str | None, typer.Option("--label", help="Column of the true class; the dataset's own.")] = None,
    predicted: Annotated[
        str | None, typer.Option("--predicted", metavar="NAME", help="What predict calls the class; guessed.")
    ] = None,
    batch: Batch = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """What a run's model is worth on rows with labels: the task's metrics, and which classes it takes for which."""
    from headway.models.evaluate import evaluate as evaluated

    found = evaluated(run, data, step=step, label=label, predicted=predicted, batch=batch, runs_folder=runs)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    if json:
        from json import dumps

        print(dumps(found.shown()))
        return
    print(f"step {found.step} of {found.run} on {found.rows:,} rows")
    for name, value in found.metrics.items():
        print(f"  {name}: {value:.6g}")
    if found.classes:
        _show(found)


def _show(found: Evaluated) -> None:
    from rich.console import Console

    from headway.cli.tables import rows_table

    classes = found.classes[:SHOWN]
    table = rows_table(
        [
            {
                "class": each.name,
                "rows": each.rows,
                "recall": each.recall,
                "precision": each.precision,
                "f1": each.f1,
            }
            for each in classes
        ]
    )
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(table)
    if len(found.classes) > SHOWN:
        print(f"  and {len(found.classes) - SHOWN:,} more classes: --json has all")
    if len(found.classes) <= SHOWN // 2:
        console.print("true class in rows, predicted in columns:")
        names = [each.name for each in classes]
        rows = zip(names, found.confusion, strict=True)
        console.print(rows_table([{"": name, **dict(zip(names, row, strict=True))} for name, row in rows]))
