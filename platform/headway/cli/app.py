"""`headway`: all verbs, and what happens when one fails.

Exit codes: 0 finished, 1 the task failed, 2 bad input, 3 the platform failed, 4 stopped on request, 130 interrupted;
a run that ended with 3, 4 or 130 can be resumed as it is, and one that ended with 1 once its task is mended.
"""

from __future__ import annotations

import atexit
import gc
import sys

import typer

from headway.cli import (
    audit,
    cluster,
    compare,
    cost,
    dashboards,
    data,
    doctor,
    drill,
    evaluate,
    events,
    export,
    init,
    jobs,
    logs,
    ls,
    notify,
    predict,
    promote,
    queue,
    records,
    resize,
    runs,
    simulate,
    stop,
    strategies,
    submit,
    sweep,
    sync,
    train,
    tunnel,
    ui,
    watch,
)
from headway.driver import signals
from headway.errors import BAD_INPUT, INTERRUPTED, PLATFORM_FAILED, HeadwayError

app = typer.Typer(
    help="Elastic PyTorch training on Ray. The cluster decides how fast, never what.",
    epilog="Exit codes: 0 finished, 1 the task failed, 2 bad input, 3 the platform failed, 4 stopped on request, "
    "130 interrupted; all runs but those that finished can be resumed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(init.init)
app.command()(train.train)
app.command()(train.resume)
app.command()(submit.submit)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(export.export)
app.command()(runs.report)
app.command()(cost.cost)
app.command()(ls.ls)
app.command()(ls.status)
app.command()(watch.watch)
app.command()(stop.stop)
app.command()(resize.resize)
app.add_typer(queue.app, name="queue")
app.command()(promote.promote)
app.command()(events.events)
app.command()(logs.logs)
app.add_typer(notify.app, name="notify")
app.add_typer(sweep.app, name="sweep")
app.add_typer(runs.app, name="runs")
app.add_typer(records.app, name="records")
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="job")
app.add_typer(cluster.app, name="cluster")
app.command()(ui.ui)
app.add_typer(dashboards.app, name="dashboards")
app.add_typer(audit.app, name="audit")
app.command()(tunnel.tunnel)
app.command()(sync.sync)
app.command()(doctor.doctor)
app.command()(drill.drill)
app.command()(compare.compare)
app.command()(simulate.simulate)
app.command()(strategies.strategies)


def main() -> None:
    """Entry point of the `headway` command."""
    atexit.register(gc.freeze)  # the interpreter's last collections would go through all that is loaded: a second
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
        sys.exit(PLATFORM_FAILED)


def say_error(error: HeadwayError) -> None:
    """Print an error in the user's words, with their own traceback where their code raised."""
    if error.traceback:
        print(error.traceback, file=sys.stderr)
    print(f"headway: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
