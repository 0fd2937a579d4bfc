"""The option that says where runs are, alike for every verb."""

from __future__ import annotations

from typing import Annotated

import typer

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
