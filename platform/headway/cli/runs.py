"""headway report, headway runs"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headway.report import Report

Runs = Annotated[Path, typer.Option("--runs", envvar="HEADWAY_RUNS", help="Folder that holds the runs.")]


def report(
    run: Annotated[str, typer.Argument(help="The run's name, or the path of its folder.")],
    runs: Runs = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a run came to, at any time."""
    from headway.report import load
    from headway.runs import find

    found = load(find(runs, run))
    if json:
        print(found.model_dump_json())
    else:
        show(found)


def runs(
    runs: Runs = Path("runs"), json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """List the runs of a folder, oldest first."""
    import json as encoder

    from rich.console import Console
    from rich.table import Table

    from headway.report import load
    from headway.runs import every

    found = [load(run) for run in every(runs)]
    if json:
        brief = {"run", "state", "message", "steps", "total_steps", "metrics", "path"}
        print(encoder.dumps({"runs": [r.model_dump(include=brief) for r in found]}))
        return
    if not found:
        print(f"No runs in {runs}. Start one with `headway train JOB`.")
        return
    table = Table(box=None)
    for column in ("run", "state", "steps", "loss", "metrics"):
        table.add_column(column, justify="right" if column in ("steps", "loss") else "left")
    for r in found:
        loss = f"{r.losses[-1]:.4f}" if r.losses else ""
        table.add_row(r.run, r.state, f"{r.steps}/{r.total_steps or '?'}", loss, _metrics(r.metrics))
    Console().print(table)


def show(report: Report) -> None:
    """Print a report for people, on standard output."""
    rows = [
        ("run", f"{report.run}  {report.state}" + (f" ({report.message})" if report.message else "")),
        ("steps", f"{report.steps} of {report.total_steps}  (epoch {report.epoch}, {report.samples_seen:,} samples)"),
        ("loss", f"{report.losses[-1]:.4f}" if report.losses else "-"),
        ("validation", _metrics(report.metrics) or "-"),
        ("workers", ", ".join(f"{w['workers']} from step {w['step']}" for w in report.workers) or "-"),
        ("changes", _changes(report) or "none"),
        ("goodput", _goodput(report) or "-"),
        ("samples", report.samples_sha256 or "-"),
        ("weights", report.weights_sha256 or "-"),
        ("checkpoints", ", ".join(f"step {c['step']}" for c in report.checkpoints) or "none"),
        ("tracking", _tracking(report)),
        ("folder", report.path),
    ]
    for name, value in rows:
        print(f"{name:>12}  {value}")


def _metrics(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _changes(report: Report) -> str:
    return ", ".join(f"{' '.join(r['workers'])} {r['cause']} ({r['pause_s']:.2f} s)" for r in report.recoveries)


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
    text = f"MLflow run {found.get('run_id')} at {found.get('uri')}"
    if found.get("waiting") or found.get("error"):
        text += f"; {found.get('waiting', 0)} points wait ({found.get('error')}): headway sync {report.run}"
    return text
