"""headway ls, headway status"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from headway.cli import sweep
from headway.cli.clock import lasting, moment, when
from headway.cli.options import Address, Json, Run, Runs, Trials
from headway.cli.saying import say
from headway.cli.trials import or_sweep, without_trials

if TYPE_CHECKING:
    from headway.jobs.look.asking import Unread
    from headway.jobs.look.closeup import Status
    from headway.jobs.look.rows import Row

WIDE = 160
"""Columns where standard output is no terminal."""
COLUMNS = ("run", "state", "why it waits", "step", "workers", "goodput", "recoveries", "since", "time left")


def ls(runs: Runs = None, address: Address = None, trials: Trials = False, json: Json = False) -> None:
    """List runs, and what was submitted to a cluster, oldest first: how far each is, and what it waits for."""
    from headway.jobs.look.listing import ls as listed
    from headway.runs import Place

    found = listed(runs=runs, address=address)
    if not trials:
        found = replace(found, runs=tuple(without_trials(found.runs)))
    if json:
        import json as encoder

        told = {"runs": [asdict(row) for row in found.runs], "unread": [asdict(each) for each in found.unread]}
        print(encoder.dumps(told))
        return
    _unread(found.unread)
    if not found.runs:
        where = f" in {Place.of(runs)}" if found.unread else ""
        print(f"No runs{where}." if where else "No runs. Start one with `headway train JOB` or `headway submit JOB`.")
        return
    _table([_cells(row) for row in found.runs])


def status(
    run: Run,
    runs: Runs = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Show all that is known of a run (or a sweep): from its own records and from the cluster's list of jobs."""
    from headway.jobs.look.closeup import status as asked

    with or_sweep(run, runs, lambda: sweep.status(run, runs, json)):
        _show(asked(run, runs=runs, address=address, say=say), json)


def _show(found: Status, json: bool) -> None:
    if json:
        import json as encoder

        tree = asdict(found)
        print(encoder.dumps({**tree.pop("row"), **tree}))
        return
    _unread(found.unread)
    for name, value in _lines(found):
        print(f"{name:>12}  {value}")


def _unread(unread: tuple[Unread, ...]) -> None:
    for each in unread:
        say(str(each))


def _cells(row: Row) -> list[str]:
    goodput = "" if row.goodput is None else f"{row.goodput:.0%}"
    numbers = ["" if number is None else str(number) for number in (row.workers, row.recoveries)]
    why = row.waits or row.message
    return [row.run, row.state, why, _steps(row), numbers[0], goodput, numbers[1], when(row.since), lasting(row.left_s)]


def _steps(row: Row) -> str:
    unit = " trials" if row.kind == "sweep" else ""
    return "" if row.step is None else f"{row.step} of {row.total_steps or '?'}{unit}"


def _table(rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        right = column in ("step", "workers", "goodput", "recoveries", "time left")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "why it waits")
    for cells in rows:
        table.add_row(*map(Text, cells))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(table)


def _lines(found: Status) -> list[tuple[str, str]]:
    row = found.row
    state = f"{row.state} since {when(row.since)}" if row.since else row.state
    if row.cause:
        state += " (the task's fault)" if row.cause == "task" else " (the platform's fault)"
    rows = [
        ("run", row.run),
        ("state", f"{state}: {row.message}" if row.message else state),
        ("waits", row.waits),
        ("trouble", found.trouble),
        ("step", _steps(row) + (f", {lasting(row.left_s)} left" if row.left_s is not None else "")),
        ("loss", "" if found.loss is None else f"{found.loss:.4f}"),
        ("validation", "  ".join(f"{name} {value:.4f}" for name, value in found.metrics.items())),
        ("workers", "" if row.workers is None else f"{row.workers}{_asked_for(row)}"),
        ("goodput", "" if row.goodput is None else f"{row.goodput:.1%} of worker-seconds"),
        ("recoveries", "" if row.recoveries is None else str(row.recoveries)),
        ("checkpoint", _checkpoint(found)),
        ("led by" if row.state == "running" else "was led by", found.leader),
        ("heard", when(row.heard)),
        ("submitted", _submitted(row)),
        ("place", row.path),
    ]
    told = [(name, value) for name, value in rows if value]
    for number, (at, text) in enumerate(found.lately):
        told.append(("lately" if not number else "", f"{moment(at)}  {text}"))
    return told


def _asked_for(row: Row) -> str:
    if row.least is None or row.most is None:
        return ""
    return f" of {row.most}" + (f", at least {row.least}" if row.least < row.most else "")


def _checkpoint(found: Status) -> str:
    if found.checkpoint is None:
        return ""
    at = f", written {when(found.checkpoint_at)}" if found.checkpoint_at is not None else ""
    return f"of step {found.checkpoint}{at}"


def _submitted(row: Row) -> str:
    if not row.submission:
        return ""
    told = f"by {row.by}, as {row.submission}" if row.by else f"as {row.submission}"
    return f"{told} (Ray: {row.ray})" if row.ray else told
