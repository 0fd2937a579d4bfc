"""headway train, headway resume"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.errors import INTERRUPTED, HeadwayError

if TYPE_CHECKING:
    from headway.report import Report

Runs = Annotated[Path, typer.Option("--runs", envvar="HEADWAY_RUNS", help="Folder that holds the runs.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="local (an embedded Ray), auto, or HOST:PORT of an existing Ray cluster. RAY_ADDRESS, else local, if not "
        "given.",
    ),
]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job.")]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="KEY[,KEY]", help="Go on with other bits: threads, torch or device may differ."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object on standard output.")]


def train(
    job: Annotated[Path, typer.Argument(help="The job's YAML file.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the run.")] = None,
    runs: Runs = Path("runs"),
    setting: Set = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Run a job from its beginning."""
    from headway.job import load
    from headway.run import train as start

    checked = load(job, setting)
    _follow(lambda watch: start(checked, name=name, runs_folder=runs, address=address, watch=watch), runs, json)


def resume(
    run: Annotated[str, typer.Argument(help="The run's name, or the path of its folder.")],
    runs: Runs = Path("runs"),
    setting: Set = None,
    allow: Allow = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Go on with a run from its newest sound checkpoint, as if nothing had happened."""
    from headway.run import resume as again

    def start(watch: Any) -> Report:
        return again(run, runs_folder=runs, address=address, watch=watch, settings=setting, allow=allow or ())

    _follow(start, runs, json)


def _follow(start: Callable[[Any], Report], runs: Path, json: bool) -> None:
    from headway.cli.live import Live
    from headway.cli.runs import show

    live = Live()
    try:
        # Ray and the user's code may print to standard output, which belongs to the report.
        with contextlib.redirect_stdout(sys.stderr), live:
            report = start(live.update)
    except KeyboardInterrupt:  # a run that has begun hears of it otherwise, and is closed
        print("Interrupted before it began; nothing was started.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except HeadwayError:
        if json and live.run is not None:
            _print_failed(runs, live.run)
        raise
    if json:
        print(report.model_dump_json())
    else:
        show(report)
    if report.state == "interrupted":
        kept = Path(report.path).parent
        where = "" if kept == Path("runs").resolve() else f" --runs {runs if kept == runs.resolve() else kept}"
        print(f"Interrupted. Go on with: headway resume {report.run}{where}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def _print_failed(runs: Path, name: str) -> None:
    from headway.rayjob import runs_folder
    from headway.report import load
    from headway.runs import find

    print(load(find(runs_folder(runs)[0], name)).model_dump_json())
