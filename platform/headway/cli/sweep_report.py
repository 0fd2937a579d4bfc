"""A sweep's report for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headway.cli.clock import lasting

if TYPE_CHECKING:
    from headway.sweeps.report import SweepReport, TrialReport

BEST = 10
"""Trials that are listed."""
WIDE = 160


def show(report: SweepReport) -> None:
    """Print it, on standard output."""
    for name, value in lines(report):
        print(f"{name:>12}  {value}")
    _trials(report)


def lines(report: SweepReport) -> list[tuple[str, str]]:
    """What is told above the trials: names, and words."""
    from headway.sweeps.seen.view import number

    return [
        ("sweep", f"{report.sweep}  {report.state}" + (f" ({report.message})" if report.message else "")),
        ("trials", _counts(report)),
        ("best", _best(report)),
        *(("" if at else "settings", f"{key}: {number(value)}") for at, (key, value) in enumerate(_settings(report))),
        ("rungs", "  ".join(f"step {step}: {len(trials)}" for step, trials in report.rungs.items()) or "-"),
        ("held", f"{report.worker_s:,.0f} worker-seconds in {lasting(report.seconds)}{_dollars(report)}"),
        ("goodput", _goodput(report) or "-"),
        *([("strict", f"cost {report.idle_s:,.0f} worker-seconds of waiting")] if report.order == "strict" else []),
        ("importance", _importance(report)),
        ("pictures", ", ".join(report.pictures) or "-"),
        ("tracking", _tracking(report)),
        ("folder", report.path),
    ]


def _counts(report: SweepReport) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in report.counts.items())
    return f"{len(report.trials)}{f' of {report.wanted}' if report.wanted else ''}" + (f": {counts}" if counts else "")


def _best(report: SweepReport) -> str:
    from headway.sweeps.seen.view import number

    best = report.best
    if best is None or best.best is None:
        return "-"
    return f"trial {best.trial}: {report.metric} {number(best.best)} at step {best.best_step}  (run {best.run})"


def _settings(report: SweepReport) -> list[tuple[str, object]]:
    return list(report.best.best_settings.items()) if report.best is not None else []


def _dollars(report: SweepReport) -> str:
    return f", ${report.dollars:,.2f}" if report.dollars is not None else ""


def _goodput(report: SweepReport) -> str:
    if report.goodput is None:
        return ""
    everything = sum(report.ledger_s.values()) or 1.0
    causes = "  ".join(f"{cause} {seconds / everything:.1%}" for cause, seconds in report.ledger_s.items() if seconds)
    return f"{report.goodput:.1%} of worker-seconds  ({causes})"


def _importance(report: SweepReport) -> str:
    shares = "  ".join(f"{key} {share:.0%}" for key, share in report.importance.items())
    return f"{shares}  ({report.importance_note})" if shares else report.importance_note or "-"


def _tracking(report: SweepReport) -> str:
    found = report.tracking
    if not found:
        return "-"
    text = f"MLflow run {found.get('run_id')} at {found.get('uri')}"
    if found.get("waiting") or found.get("error"):
        text += f"; {found.get('waiting', 0)} points wait ({found.get('error')}): headway sync {report.sweep}"
    return text


def _trials(report: SweepReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from headway.sweeps.seen.view import number, settings_in_words

    chosen = order(report)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "state", "rungs", "steps", report.metric, "worker-s", "settings", "why"):
        right = title in ("trial", "rungs", "steps", report.metric, "worker-s")
        table.add_column(title, justify="right" if right else "left", no_wrap=title not in ("settings", "why"))
    for trial in chosen[:BEST]:
        value = "" if trial.best is None else number(trial.best)
        cells = [str(trial.trial), trial.state, str(trial.rungs), str(trial.step), value, f"{trial.worker_s:.1f}"]
        table.add_row(*map(Text, [*cells, settings_in_words(trial.settings), trial.why]))
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    if chosen:
        print()
        console.print(table)
    if len(chosen) > BEST:
        print(f"and {len(chosen) - BEST} more: --json tells of all")


def order(report: SweepReport) -> list[TrialReport]:
    """The trials, best first; those without a value last."""
    sign = -1.0 if report.mode == "max" else 1.0

    def place(trial: TrialReport) -> tuple[bool, float, int]:
        lost = trial.best is None or trial.state == "diverged"
        return lost, 0.0 if lost or trial.best is None else sign * trial.best, trial.trial

    return sorted(report.trials, key=place)
