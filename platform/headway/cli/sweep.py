"""headway sweep FILE, and sweep preview, status, stop, resume, best, retry, replay, schema"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from headway.cli.asking import answered
from headway.cli.options import Json, Runs
from headway.cli.replay import replay
from headway.core.ends import exit_code
from headway.errors import BadInput, HeadwayError, nearest

if TYPE_CHECKING:
    from headway.sweeps.report import SweepReport

RUN = "run"
"""The verb that is meant where none is said."""


class Verbs(TyperGroup):
    """Verbs, of which one is left out: `headway sweep FILE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With the verb put in where the first word is a file or an option of it."""
        verb = not args or args[0] in (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if verb else [RUN, *args])


app = typer.Typer(
    help="Run many trials of a job: headway sweep FILE. `headway sweep run --help` has its options.",
    cls=Verbs,
    no_args_is_help=True,
    subcommand_metavar="FILE | COMMAND [ARGS]...",
)
File = Annotated[Path, typer.Argument(help="The sweep's YAML file.", show_default=False)]
Sweep = Annotated[str, typer.Argument(help="The sweep's name, or its folder or URL.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the sweep (trials=8) or its job (job.epochs=1)."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="local (an embedded Ray), auto, or HOST:PORT of an existing Ray cluster. RAY_ADDRESS, else local, if not "
        "given.",
    ),
]
Pace = Annotated[
    str | None,
    typer.Option("--pace", metavar="SECONDS|RUN", help="Of one worker for a step; or a run that shows it."),
]


@app.command(RUN)
def run(
    file: File,
    name: Annotated[str | None, typer.Option("--name", help="Name of the sweep.")] = None,
    runs: Runs = None,
    setting: Set = None,
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, try the task on a few rows, and print what would run.")
    ] = False,
    pace: Pace = None,
    json: Json = False,
) -> None:
    """Run a sweep from its beginning (the same as `headway sweep FILE`)."""
    from headway.sweeps.file import load

    sweep = load(_file(file), setting)
    if dry_run:
        _look_ahead(file, sweep, runs, pace, json, try_out=True)
        return
    if pace is not None:
        raise BadInput("--pace", "it is for --dry-run and for `headway sweep preview`", "Leave it out.")
    from headway.sweeps.run import sweep as start

    _follow(lambda watch: start(sweep, name=name, runs_folder=runs, address=address, watch=watch), runs, json)


@app.command()
def preview(file: File, setting: Set = None, pace: Pace = None, runs: Runs = None, json: Json = False) -> None:
    """Say what a sweep will run before it costs anything: trials, rungs, workers, seconds and dollars at worst."""
    from headway.sweeps.file import load

    _look_ahead(file, load(_file(file), setting), runs, pace, json, try_out=False)


@app.command()
def status(sweep: Sweep, runs: Runs = None, json: Json = False) -> None:
    """Show how far a sweep is, or what it came to."""
    _show(_report(runs, sweep), json)


@app.command()
def stop(
    sweep: Sweep,
    now: Annotated[bool, typer.Option("--now", help="At once, without checkpoints.")] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """End a sweep; its trials take checkpoints, and `headway sweep resume` goes on with them."""
    from headway.cli.saying import say
    from headway.errors import PLATFORM_FAILED
    from headway.sweeps.control import stop as ended

    def lines(found: Any) -> list[str]:
        had = "" if found.asked else "had ended before: "
        told = [f"{found.sweep} {had}{found.state}" + (f" ({found.message})" if found.message else "")]
        return told if found.state == "finished" else [*told, f"headway sweep resume {found.path} goes on with it"]

    found = answered(lambda: ended(sweep, runs=runs, now=now, say=say), lines, json)
    if found.state == "running":
        raise typer.Exit(PLATFORM_FAILED)


@app.command()
def resume(
    sweep: Sweep,
    runs: Runs = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change what no decision so far hangs on: workers, budget, max_failures."
        ),
    ] = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Go on with a sweep where it was: no trial is lost, and none is run twice."""
    go_on(sweep, runs, setting, address, json)


@app.command()
def retry(sweep: Sweep, runs: Runs = None, address: Address = None, json: Json = False) -> None:
    """Run again the trials in which the task failed, and go on with the sweep."""
    from headway.cli.saying import say
    from headway.sweeps.control import retry as begun_again

    trials = begun_again(sweep, runs=runs)
    say(f"to be run again: {', '.join(map(str, trials))}")
    go_on(sweep, runs, None, address, json)


app.command()(replay)


@app.command()
def best(
    sweep: Sweep,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write a job that `headway train` takes.")
    ] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Show the best settings so far, or write them as a job, ready to train."""
    from dataclasses import asdict

    from headway.sweeps import control

    found = control.best(sweep, runs=runs) if write is None else control.write_best(sweep, write, runs=runs)
    if json:
        import json as encoder

        print(encoder.dumps(asdict(found), default=str))
        return
    from headway.sweeps.settings import shown

    print(f"trial {found.trial} of {found.sweep}: {found.metric} {found.value:.6g} at step {found.step}")
    print(shown(found.settings))
    if write is not None:
        print(f"headway train {write} trains it")


@app.command()
def schema() -> None:
    """Print the sweep's JSON Schema, for editors and other tools."""
    import json

    from headway.sweeps.file import schema as made

    print(json.dumps(made(), indent=2))


def go_on(sweep: str, runs: str | None, setting: list[str] | None, address: str | None, json: bool) -> None:
    """Take a sweep up again, and follow it."""
    from headway.sweeps.run import resume as again

    _follow(
        lambda watch: again(sweep, runs_folder=runs, address=address, watch=watch, settings=setting), runs, json, sweep
    )


def is_sweep(runs: str | None, name: str) -> bool:
    """Whether a sweep is called so, and no run."""
    from headway.sweeps import folder

    return folder.look(_place(runs), name) is not None


def _file(path: Path) -> Path:
    """The file, with a word for who has misspelt a verb."""
    if not path.exists() and path.suffix == "" and len(path.parts) == 1:
        known = [each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands]
        raise BadInput(f"no sweep at {path}", "there is no such file, and no such command", nearest(str(path), known))
    return path


def _place(runs: str | None) -> Any:
    from headway.runs import Place

    return Place.of(runs)


def _follow(start: Callable[[Any], SweepReport], runs: str | None, json: bool, named: str | None = None) -> None:
    from headway.cli.live_sweep import SweepLive
    from headway.cli.screen import followed

    report = followed(start, SweepLive(), (lambda sweep: _show(_report(runs, named or sweep), json)) if json else None)
    _show(report, json)
    if report.state in ("interrupted", "stopped"):
        print(f"{report.state.title()}. Go on with: headway resume {report.path}", file=sys.stderr)
    if report.state != "finished":
        raise typer.Exit(exit_code(report.state))


def _report(runs: str | None, name: str) -> SweepReport:
    """What a sweep has come to by now."""
    from headway.sweeps import conclusion, folder

    return conclusion.load(folder.find(_place(runs), name))


def _show(report: SweepReport, json: bool) -> None:
    if json:
        print(report.model_dump_json())
        return
    from headway.cli.sweep_report import show

    show(report)


def _look_ahead(file: Path, sweep: Any, runs: str | None, pace: str | None, json: bool, try_out: bool) -> None:
    from headway.cli.sweep_preview import show
    from headway.sweeps.preview import preview as look

    found = look(sweep, _pace(pace, runs))
    if try_out:
        _tried(sweep, runs)
    if json:
        import json as encoder

        print(encoder.dumps({**found.as_json(), "ok": True}))
        return
    show(str(file), found)


def _tried(sweep: Any, runs: str | None) -> None:
    """The job of a trial in the middle of the space, on a few rows."""
    from headway import tryout, variables

    place, job = _place(runs), sweep.example
    try:
        with variables.in_force(job):
            tryout.check(job, None if place.url else place.folder)
    except HeadwayError as error:
        from headway.sweeps.settings import shown

        middle = sweep.searched.at(dict.fromkeys(sweep.searched.order, 0.5))
        print(f"tried with {shown(middle)}", file=sys.stderr)
        raise error


def _pace(asked: str | None, runs: str | None) -> float | None:
    """Seconds that one worker takes for a step."""
    if asked is None:
        return None
    try:
        pace_s = float(asked)
    except ValueError:
        from headway.report import load
        from headway.runs import find
        from headway.sweeps.preview import pace_of

        return pace_of(load(find(_place(runs), asked)))
    if not 0 < pace_s < float("inf"):
        raise BadInput(f"--pace {asked}", "it is no length of time", "Give seconds of one worker for a step.")
    return pace_s
