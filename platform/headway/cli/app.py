"""`headway`: all verbs, and what happens when one fails.

Exit codes: 0 finished, 1 the run failed, 2 bad input, 130 interrupted and resumable.
"""

from __future__ import annotations

import sys

import typer

from headway.cli import data, doctor, drill, jobs, runs, simulate, sync, train, ui
from headway.driver import signals
from headway.errors import BAD_INPUT, INTERRUPTED, RUN_FAILED, HeadwayError

app = typer.Typer(
    help="Elastic PyTorch training on Ray. The cluster decides how fast, never what.",
    epilog="Exit codes: 0 finished, 1 the run failed, 2 bad input, 130 interrupted and resumable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(train.train)
app.command()(train.resume)
app.command()(runs.report)
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="job")
app.command()(ui.ui)
app.command()(sync.sync)
app.command()(doctor.doctor)
app.command()(drill.drill)
app.command()(simulate.simulate)


def main() -> None:
    """Entry point of the `headway` command."""
    signals.begin()
    try:
        app()
    except HeadwayError as error:
        say_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(BAD_INPUT)
    except Exception as error:  # what nothing in Headway expected
        from headway.faults import internal

        say_error(internal.of(error, f"in `headway {' '.join(sys.argv[1:2])}`"))
        sys.exit(RUN_FAILED)


def say_error(error: HeadwayError) -> None:
    """Print an error in the user's words, with their own traceback where their code raised."""
    if error.traceback:
        print(error.traceback, file=sys.stderr)
    print(f"headway: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
