"""A fault of Headway's own: the report that is kept of it, to be sent, and the error that names it."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from headway.errors import HeadwayError, HeadwayFault, RunFailed
from headway.faults import blame, causes

TO = "Headway's maintainers"
REPORTS = 100
"""Kept in one folder at most."""


def fault(where: str, reason: str, traceback: str, folder: Path | None = None, then: str = "") -> HeadwayFault:
    """The error, with a report in the folder; where none can be written it carries the traceback itself.

    Args:
        where: it happened, in words.
        reason: in a line.
        traceback: with all frames.
        folder: of the run; None for the system's folder of temporary files.
        then: what can be done beside sending the report.
    """
    try:
        path: Path | None = _write(folder, f"{where}: {reason}", traceback)
    except OSError:
        path = None
    send = f"Send {path or 'the traceback above'} to {TO}"
    error = HeadwayFault(f"a fault of Headway's own, {where}", reason, f"{send}{f'; {then}' if then else ''}.")
    error.traceback = traceback if path is None else ""
    return error


def of(error: BaseException, where: str) -> HeadwayError:
    """What an error that nobody expected is: Ray's is told by its cause, and only what is ours by a report.

    Args:
        error: caught.
        where: in words, as "in `headway train`".
    """
    meant = causes.ours(error)
    if meant is not None:
        return meant
    if not type(error).__module__.startswith("ray."):
        at = blame.place(error)
        reason = blame.reason(error) + (f" ({at})" if at else "")
        return fault(where, reason, blame.whole_traceback(error))
    found = causes.of(error)
    if found.kind == causes.INTERNAL:
        return fault(where, found.reason, found.traceback)
    fact = f"Ray failed {where}" if found.kind == causes.MACHINES else f"what ran on the cluster raised, {where}"
    made = RunFailed(fact, found.reason, found.remedy)
    made.traceback, made.passes = found.traceback, found.passes
    return made


def _write(folder: Path | None, headline: str, traceback: str) -> Path:
    """Raises OSError."""
    from headway.tracking.environment import environment

    text = "\n".join(
        [
            "A fault of Headway's own. This file holds versions, the machine's size and a traceback; look it over",
            "before you send it: messages of errors may name files and values.",
            "",
            headline,
            time.strftime("%Y-%m-%d %H:%M:%S %z"),
            json.dumps(environment(), indent=1),
            "",
            traceback,
            "",
        ]
    )
    if folder is None:
        descriptor, name = tempfile.mkstemp(prefix="headway-fault-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="replace") as made:  # noqa: PTH123  no path, a descriptor
            made.write(text)
        return Path(name)
    for number in range(1, REPORTS):
        path = folder / f"fault-{number}.txt"
        try:
            with path.open("x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path
    raise OSError("there are enough of them")
