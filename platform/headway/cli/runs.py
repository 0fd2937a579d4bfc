"""headway report, headway runs, headway runs prune, headway runs cp"""

from __future__ import annotations

import json as encoder
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headway.cli.options import Json, Run, Runs, Trials
from headway.cli.trials import without_trials
from headway.errors import BadInput

if TYPE_CHECKING:
    from headway.report import Report
    from headway.runs import Place

ROWS, COLUMNS = 40, 20
"""Of a table that is printed."""

app = typer.Typer(help="List runs, remove and copy them.", invoke_without_command=True)


def report(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or a sweep: names, folders or URLs.")],
    runs: Runs = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page that needs nothing else; of several, side by side."),
    ] = None,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave paths, hosts, people and environment out of the page.")
    ] = False,
    draw: Annotated[
        Path | None, typer.Option("--draw", metavar="FOLDER", help="Draw a sweep's pictures there, as it is now.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what a run or a sweep came to, at any time; or write a page of it, or of several runs."""
    from headway.runs import Place

    place = Place.of(runs)
    if html is not None:
        from headway.report import documents, page

        written = page.write(documents.of(place, names, redact), html)
        size = written.stat().st_size
        print(encoder.dumps({"page": str(written), "bytes": size}) if json else f"{written}: {size / 1e6:.2f} MB")
        return
    if redact:
        raise BadInput("--redact", "it is about a page that is sent round", "Name the page too: --html FILE.")
    if len(names) > 1:
        raise BadInput(f"{len(names)} runs", "they are compared on a page", "Name its file: --html FILE.")
    _one(place, names[0], draw, json)


def _one(place: Place, name: str, draw: Path | None, json: bool) -> None:
    from headway.report import load
    from headway.runs import find
    from headway.sweeps import folder

    sweep = folder.look(place, name)
    if sweep is not None:
        from headway.cli.sweep_report import show as show_sweep
        from headway.sweeps import conclusion

        told = conclusion.load(sweep)
        for path in conclusion.draw(sweep, draw) if draw is not None else ():
            print(path, file=sys.stderr)
        print(told.model_dump_json()) if json else show_sweep(told)
        return
    found = load(find(place, name))
    if draw is not None:
        raise BadInput(f"--draw {draw}", f"{found.run} is no sweep, and only sweeps have pictures", "Leave it out.")
    if json:
        print(found.model_dump_json())
    else:
        show(found)


@app.callback()
def runs(context: typer.Context, runs: Runs = None, trials: Trials = False, json: Json = False) -> None:
    """List the runs of a folder or an object store, oldest first."""
    context.obj = runs
    if context.invoked_subcommand is not None:
        return
    from headway.runs import Place, outline, telling

    place = Place.of(runs)
    found = outline(place)
    telling.tell_left(place, found)
    found = found if trials else without_trials(found)
    if json:
        shown = ("run", "state", "message", "cause", "steps", "total_steps", "metrics", "path", "kind", "sweep")
        print(encoder.dumps({"runs": [{name: getattr(brief, name) for name in shown} for brief in found]}))
        return
    if not found:
        print(f"No runs in {place}. Start one with `headway train JOB`.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for column in ("run", "state", "steps", "loss", "metrics"):
        table.add_column(column, justify="right" if column in ("steps", "loss") else "left")
    for brief in found:
        loss = f"{brief.loss:.4f}" if brief.loss is not None else ""
        steps = f"{brief.steps}/{brief.total_steps or '?'}{' trials' if brief.kind == 'sweep' else ''}"
        early = brief.state == "finished" and brief.message.startswith("early")
        table.add_row(brief.run, f"{brief.state}{' early' if early else ''}", steps, loss, _metrics(brief.metrics))
    Console().print(table)


@app.command()
def prune(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs to remove.")] = None,
    runs: Runs = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Those that ended so long ago: 12h, 30d.")
    ] = None,
    keep: Annotated[int | None, typer.Option("--keep", min=0, help="All but the newest so many.")] = None,
    checkpoints_only: Annotated[
        bool, typer.Option("--checkpoints-only", help="Remove their checkpoints, and keep the records.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    unsent: Annotated[
        bool, typer.Option("--unsent", help="Also those whose records MLflow does not take; there they stay open.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove runs, or their checkpoints. One that is led by a process is never touched."""
    from headway.runs import Place
    from headway.runs.pruning import age_s
    from headway.runs.pruning import prune as remove

    place = Place.of(_chosen(context, runs))
    limit_s = age_s(older_than) if older_than is not None else None
    done = remove(place, names or [], limit_s, keep, checkpoints_only, dry_run, unsent)
    if json:
        print(encoder.dumps({"removed": done.removed, "left": done.left, "bytes": done.bytes, "dry_run": dry_run}))
        return
    what = "the checkpoints of " if checkpoints_only else ""
    for name in done.removed:
        print(f"{'would remove' if dry_run else 'removed'} {what}{name}")
    for name, why in done.left.items():
        print(f"left {name}: {why}", file=sys.stderr)
    print(f"{len(done.removed)} runs, {done.bytes / 1e6:,.1f} MB{' (nothing was removed)' if dry_run else ''}")


@app.command("cp")
def copy(
    context: typer.Context,
    run: Run,
    to: Annotated[str, typer.Argument(metavar="PLACE", help="Folder or URL that is to hold the copy, among its runs.")],
    runs: Runs = None,
    name: Annotated[str | None, typer.Option("--name", help="Of the copy; the run's when not given.")] = None,
    json: Json = False,
) -> None:
    """Copy a run, whole, to another folder or object store, where it can be resumed. All bytes are verified."""
    from headway.runs import Place, find
    from headway.runs.copying import copy as start

    done = start(find(Place.of(_chosen(context, runs)), run), Place.of(to), name)
    if json:
        told = {name: getattr(done, name) for name in ("run", "path", "files", "bytes", "left")}
        print(encoder.dumps(told))
        return
    for why in done.left:
        print(f"left out a damaged checkpoint: {why}", file=sys.stderr)
    print(f"{done.path}: {done.files} files, {done.bytes / 1e6:,.1f} MB, verified")


def _chosen(context: typer.Context, runs: str | None) -> str | None:
    """`--runs` of `headway runs prune` itself, else of `headway runs` before it."""
    own = context.get_parameter_source("runs")
    return runs if own is not None and own.name == "COMMANDLINE" else context.obj


def show(report: Report) -> None:
    """Print a report for people, on standard output."""
    from headway.core import footprints
    from headway.plan_words import size

    peak = footprints.sentence(report.memory.get("workers") or {}, report.memory.get("planned"))
    rows = [
        ("run", f"{report.run}  {report.state}" + (f" ({report.message})" if report.message else "")),
        ("steps", f"{report.steps} of {report.total_steps}  (epoch {report.epoch}, {report.samples_seen:,} samples)"),
        ("loss", f"{report.losses[-1]:.4f}" if report.losses else "-"),
        ("validation", _metrics(report.metrics) or "-"),
        ("workers", ", ".join(f"{w['workers']} from step {w['step']}" for w in report.workers) or "-"),
        ("changes", _changes(report) or "none"),
        ("goodput", _goodput(report) or "-"),
        ("cost", _cost(report) or "-"),
        *([("sent", f"{size(report.exchanged_bytes)} between workers")] if report.exchanged_bytes else []),
        *([("memory", f"at most {peak}")] if peak else []),
        *([("lanes", report.lanes_apart)] if report.lanes_apart else []),
        ("samples", report.samples_sha256 or "-"),
        ("weights", report.weights_sha256 or "-"),
        ("checkpoints", ", ".join(f"step {c['step']}" for c in report.checkpoints) or "none"),
        ("tracking", _tracking(report)),
        ("folder", report.path),
        *(("note", note) for note in report.notes),
    ]
    for name, value in rows:
        print(f"{name:>12}  {value}")
    for table in _tables(report):
        print(table)


def _tables(report: Report) -> Iterator[str]:
    """What the newest evaluation gave that is more than a number, a row a line."""
    newest = next((e for e in reversed(report.evaluations) if e.get("tables")), None)
    for name, table in (newest["tables"] if newest else {}).items():
        rows = table if any(isinstance(row, list) for row in table) else [table]
        texts = [[_entry(each) for each in row] if isinstance(row, list) else [_entry(row)] for row in rows[:ROWS]]
        width = max((len(text) for row in texts for text in row), default=0)
        yield f"\n{name}, after step {newest['step'] if newest else 0}:"
        yield from ("  " + "  ".join(f"{text:>{width}}" for text in row[:COLUMNS]) for row in texts)
        if len(rows) > ROWS or max(map(len, texts), default=0) > COLUMNS:
            yield "  (all of it: headway report RUN --json)"


def _entry(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _metrics(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _changes(report: Report) -> str:
    return ", ".join(f"{' '.join(r['workers'])} {r['cause']} ({r['pause_s']:.2f} s)" for r in report.recoveries)


def _cost(report: Report) -> str:
    """Dollars, and what most of them went to."""
    if report.dollars is None:
        return ""
    most = sorted(report.dollars_by.items(), key=lambda each: -each[1])
    whole = report.dollars or 1.0
    causes = "  ".join(f"{cause} {dollars / whole:.1%}" for cause, dollars in most if dollars)
    return f"${report.dollars:,.4g}" + (f"  ({causes})" if causes else "")


def _goodput(report: Report) -> str:
    if report.goodput is None:
        return ""
    everything = sum(report.ledger_s.values()) or 1.0
    causes = "  ".join(f"{cause} {seconds / everything:.1%}" for cause, seconds in report.ledger_s.items() if seconds)
    return f"{report.goodput:.1%} of worker-seconds  ({causes})"


def _tracking(report: Report) -> str:
    found = report.tracking
    if not found:
        return "-"
    text = found.get("page") or f"MLflow run {found.get('run_id')} at {found.get('uri')}"
    if found.get("waiting") or found.get("error"):
        text += f"; {found.get('waiting', 0)} points wait ({found.get('error')}): headway sync {report.run}"
    return text
