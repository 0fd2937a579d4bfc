"""A sweep as a document for its page: its report, told in words first, and how it is run again."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from headway.report import words
from headway.report.shape import VERSION, Job, Part, Reproduce, Words
from headway.sweeps import conclusion
from headway.sweeps.report import SweepReport

if TYPE_CHECKING:
    from headway.runs import RunFolder

YAML_CHARS = 20_000
SETTINGS = 4
"""In a sentence."""


class SweepStory(Part):
    """A sweep, told."""

    version: int = VERSION
    kind: Literal["sweep"] = "sweep"
    words: Words
    report: SweepReport
    created: float | None
    """Unix seconds, as the next two."""
    started: float | None
    ended: float | None
    job: Job
    """Of which `yaml` is the sweep's file."""
    reproduce: Reproduce
    redacted: bool = False


def tell(sweep: RunFolder) -> SweepStory:
    """All there is to say of a sweep, at any time.

    Args:
        sweep: of `headway.sweeps.folder`.

    Raises:
        BadInput: nothing is known of it.
    """
    facts, report = sweep.read(), conclusion.load(sweep)
    text, place = "", sweep.where
    with suppress(OSError, UnicodeDecodeError):
        text = (sweep.path / conclusion.SWEEP_FILE).read_text(encoding="utf-8")[:YAML_CHARS]
    again = f"headway sweep {shlex.quote(f'{place}/{conclusion.SWEEP_FILE}')} --name {sweep.name}-again"
    commands = [again] if text else []
    if report.best is not None:
        commands.append(f"headway train {shlex.quote(f'{place}/best.yaml')}")
    if report.state != "finished":
        commands.append(f"headway resume {shlex.quote(sweep.name)}")
    return SweepStory(
        words=_words(report, again if text else ""),
        report=report,
        created=facts.get("created"),
        started=facts.get("started"),
        ended=facts.get("ended"),
        job=Job(yaml=text, digest="", code_digest=""),
        reproduce=Reproduce(commands=commands, digests={}, git={}),
    )


def _words(report: SweepReport, again: str) -> Words:
    count = len(report.trials)
    of = f" of {report.wanted}" if report.wanted and report.wanted != count else ""
    keys = list(dict.fromkeys(key for trial in report.trials for key in trial.settings))
    named = ", ".join(keys[:SETTINGS]) + (", ..." if len(keys) > SETTINGS else "")
    best = report.best
    how_well = f"No trial was evaluated for {report.metric}."
    if best is not None and best.best is not None:
        settings = ", ".join(f"{key} {_shown(value)}" for key, value in best.best_settings.items())
        how_well = f"The best {report.metric} was {best.best:.4g}, of trial {best.trial} after step {best.best_step}"
        how_well += f" with {settings}." if settings else "."
    important = list(report.importance)[:2]
    if important:
        how_well += f" What counted most was {' and then '.join(important)}."
    return Words(
        what=f"{count}{of} trials of one job were tried, each with its own {named}." if named else f"{count} trials.",
        data="",
        how_well=how_well,
        how_long=f"{words.ENDS.get(report.state, report.state)} after {words.time(report.seconds)}.",
        cost=_cost(report),
        trouble=_trouble(report),
        again=f"Run it again with `{again}`." if again else "",
    )


def _cost(report: SweepReport) -> str:
    said = f"It took {words.time(report.worker_s)} of workers' time"
    said += f", which is {words.dollars(report.dollars)}" if report.dollars is not None else ""
    return (
        f"{said}; {report.goodput:.1%} of it went into steps that count." if report.goodput is not None else f"{said}."
    )


def _trouble(report: SweepReport) -> str:
    counts: dict[str, int] = report.counts
    said = [f"{counts[state]} {state}" for state in ("failed", "diverged") if counts.get(state)]
    stopped = counts.get("stopped", 0)
    early = f" {stopped} were stopped early, since others did better." if stopped else ""
    ended = (
        f" It {report.state}: {report.message}." if report.state in ("failed", "interrupted") and report.message else ""
    )
    return (f"Of the trials {' and '.join(said)}." if said else "No trial failed.") + early + ended


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
