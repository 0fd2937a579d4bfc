"""headway logs"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from headway.cli.options import Address, Follow, Run, Runs
from headway.cli.saying import say
from headway.errors import INTERRUPTED

Worker = Annotated[str | None, typer.Option("--worker", metavar="NAME", help="Only of this worker (w3), or `driver`.")]
Tail = Annotated[int | None, typer.Option("--tail", min=0, metavar="N", help="Only the last N lines, and what comes.")]
Times = Annotated[bool, typer.Option("--times", help="Show when each line was printed.")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON object for each line.")]


def logs(
    run: Run,
    runs: Runs = None,
    address: Address = None,
    follow: Follow = False,
    worker: Worker = None,
    tail: Tail = None,
    times: Times = False,
    json: Json = False,
) -> None:
    """Show what a run's driver and workers printed, in every start of it, also when its cluster is gone."""
    import json as encoder

    from headway.cli.clock import moment
    from headway.jobs.look.printed import logs as printed

    found = printed(run, runs=runs, address=address, follow=follow, worker=worker, tail=tail, say=say)
    try:
        for line in found:
            if json:
                text = encoder.dumps(asdict(line))
            else:
                at = f"{moment(line.time) if line.time is not None else '':19}  " if times else ""
                whose = f"{line.source.removeprefix('worker-'):>6} | " if worker is None else ""
                text = f"{at}{whose}{line.text}"
            print(text, flush=follow)
    except KeyboardInterrupt:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(INTERRUPTED)  # a request that hangs in a thread is not waited for
