"""headway init"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headway.init.beginning import Begun


def init(
    source: Annotated[
        Path,
        typer.Argument(help="A table (CSV, Parquet, JSON lines), a folder of images by class, text; or a dataset."),
    ],
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a table to predict.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the job; after the source by default.")] = None,
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for task.py, job.yaml and data/NAME.")] = Path(),
    image_size: Annotated[str | None, typer.Option(metavar="HxW", help="That images become. [default: 64x64]")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a task and a job for data of your own, to be run as they are and edited: task.py, job.yaml, data/NAME.

    Rows are split by a hash of each: 80 % to train on, 10 % for validation, 10 % for a test. Nothing is overwritten.
    """
    from headway.cli.progress import shown
    from headway.init.beginning import begin

    with shown() as progress:
        begun = begin(source, target, name, to, image_size, progress, _say)
    if json:
        _print_json(begun)
        return
    print(f"{source}: {begun.kind}")
    if begun.roles is not None:
        for line in _roles(begun.roles):
            print(line)
    for note in begun.notes:
        print(f"{'look at':>12}  {note}")
    for folder, rows in begun.parts.items():
        print(f"{'data':>12}  {folder}: {rows:,} rows")
    print(f"{'wrote':>12}  {', '.join(map(str, begun.files))}")
    print("Next:")
    for command in begun.commands:
        print(f"  {command}")


def _roles(roles: Any) -> list[str]:
    shares = ", ".join(f"{value} {share:.1%}" for value, share in list(roles.classes.items())[:5])
    what = f"{len(roles.classes)} classes: {shares}" if roles.kind == "classes" else "a number"
    lines = [f"{'target':>12}  {roles.target}, {what}"]
    places = {kind: getattr(roles, kind) for kind in ("numbers", "dates", "categories")}
    lines += [f"{kind:>12}  {', '.join(found)}" for kind, found in places.items() if found]
    lines += [f"{'left out':>12}  {name}: {reason}" for name, reason in roles.left.items()]
    return lines


def _print_json(begun: Begun) -> None:
    import json
    from dataclasses import asdict

    print(json.dumps(asdict(begun), default=str))


def _say(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
