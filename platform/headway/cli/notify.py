"""headway notify test"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.options import Json
from headway.errors import PLATFORM_FAILED

app = typer.Typer(help="Have people told of runs.", no_args_is_help=True)


@app.callback()
def notify() -> None:
    """Have people told of runs: `notify` in a job names addresses."""


@app.command("test")
def tried(
    job: Annotated[Path, typer.Argument(help="YAML file of a job, or of a sweep.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of it.")
    ] = None,
    json: Json = False,
) -> None:
    """Send one word to each address that a job names, from this machine, and say whether it was taken."""
    from headway.notify.trying import send

    found = send(job, settings)
    if json:
        import json as encoder

        print(encoder.dumps({"tried": [{"address": each.address, "error": each.error} for each in found]}))
    else:
        for each in found:
            print(f"{each.address}: {each.error or 'taken'}")
    if any(each.error for each in found):
        raise typer.Exit(PLATFORM_FAILED)
