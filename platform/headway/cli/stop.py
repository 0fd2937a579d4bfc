"""headway stop"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headway.cli import sweep
from headway.cli.asking import answered
from headway.cli.options import Address, Json, Run, Runs
from headway.cli.saying import say
from headway.cli.trials import or_sweep
from headway.errors import PLATFORM_FAILED

if TYPE_CHECKING:
    from headway.jobs.look.stopping import Stopped


def stop(
    run: Run,
    now: Annotated[bool, typer.Option("--now", help="At once, without a checkpoint.")] = False,
    runs: Runs = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """End a run (or a sweep) after a checkpoint, wherever it is led, and say where it can be gone on from."""
    from headway.jobs.look.stopping import stop as ended

    with or_sweep(run, runs, lambda: sweep.stop(run, now, runs, json)):
        found = answered(lambda: ended(run, runs=runs, address=address, now=now, say=say), _lines, json)
        if found.state == "running":
            raise typer.Exit(PLATFORM_FAILED)


def _lines(found: Stopped) -> list[str]:
    had = "" if found.asked else "had ended before: "
    lines = [f"{found.run} {had}{found.state}" + (f" ({found.message})" if found.message else "")]
    if found.checkpoint is not None:
        lines.append(f"its newest checkpoint is of step {found.checkpoint}: {found.checkpoint_path}")
    elif found.step is not None and found.state != "finished":
        lines.append("it has no checkpoint: a resume begins anew")
    if found.path and found.state != "finished":
        lines.append(f"headway resume {found.path} goes on with it")
    return lines
