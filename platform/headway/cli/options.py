"""Options and arguments that several verbs have, alike for each."""

from __future__ import annotations

from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(help="The run's name, or its folder or URL.")]
Runs = Annotated[
    str | None,
    typer.Option(
        "--runs",
        envvar="HEADWAY_RUNS",
        metavar="PLACE",
        show_default="runs",
        help="Where runs are kept: a folder, or a URL like s3://BUCKET/FOLDER (also gs://, az://).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="http://HOST:PORT",
        show_default=False,
        help="The cluster that is asked too. RAY_API_SERVER_ADDRESS, else RAY_ADDRESS, if not given; else none is.",
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is at an end.")]
Trials = Annotated[bool, typer.Option("--trials", help="A line for each trial of a sweep, too.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
