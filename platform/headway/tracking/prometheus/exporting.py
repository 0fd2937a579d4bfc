"""What a recorder needs to have its run's figures exported: nothing is opened, and no library imported, where none are
asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from headway.core.cost import Terms
from headway.core.figures import Figures
from headway.tracking.prometheus.way import Exported, Mute

if TYPE_CHECKING:
    from headway.runs import RunFolder
    from headway.tracking.mlflow_writer import Writer


def of_run(
    exported: Exported | None,
    run: RunFolder,
    facts: Mapping[str, Any],
    terms: Terms,
    step: int,
    writer: Writer | None,
    say: Callable[[str], None],
) -> Mute:
    """The figures of a run, to be opened.

    Args:
        exported: how; None: not at all.
        run: with the records of its earlier starts.
        facts: of run.json.
        terms: by which it is said what it costs.
        step: steps committed so far.
        writer: that sends its records; None where they are not tracked.
        say: takes a line for people.
    """
    if exported is None:
        return Mute()
    from headway.tracking.prometheus.exporter import RunExporter

    figures = Figures(exported.subject, terms, facts, _events(run), step)
    spool_bytes = (lambda: writer.waiting_bytes) if writer is not None else None
    return RunExporter(run.name, figures, exported.way, spool_bytes, say)


def _events(run: RunFolder) -> Iterator[Mapping[str, Any]]:
    """Of its starts before, as far as they can be read: figures are nothing that a run ends for."""
    with suppress(OSError, ValueError):
        yield from run.events()
