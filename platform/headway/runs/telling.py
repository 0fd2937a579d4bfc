"""Ends of runs that the tracking store was not told of: by whom their leader's death, or the store's, was found.

A leader tells the store itself. One that was killed cannot, and a store that was away was not told: there the run would
be under way for ever. Whoever looks at runs tells it (`headway sync`, `ui`, `ls`, `runs`, `runs prune`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from headway.core.ends import End
from headway.errors import BadInput, HeadwayError
from headway.runs.closing import close, nobody, seems_led
from headway.runs.finding import named
from headway.runs.folder import GLANCE_S, RunFolder
from headway.runs.listing import GONE, Brief
from headway.runs.place import SWEEP, SWEEP_FACTS, Place
from headway.tracking.spool import Spool
from headway.tracking.told import at_end

if TYPE_CHECKING:
    from headway.tracking.mlflow_writer import Summary

WITHIN_S = 15.0
"""For all runs of a place together, where somebody waits for a list of them."""


def tell(run: RunFolder, timeout_s: float, say: Callable[[str], None] = nobody, begin: bool = True) -> Summary:
    """Close a run whose leader is gone, and send what still waits of a run or a sweep. One that is led stays open.

    Args:
        run: as `headway.runs.find` or `headway.sweeps.folder.find` gives it.
        timeout_s: for the store.
        say: takes a line for people, where this takes a while.
        begin: whether a runs folder may get a tracking store of its own by this, where it has none.

    Raises:
        BadInput: there is nothing to send, or its tracking URI cannot be used.
        Led: it is in a store, and another process leads it.
        OutOfReach: that store does not answer.
    """
    from headway.tracking import mlflow_writer

    if not (run.path / SWEEP_FACTS).is_file():
        close(run, say=say, tracking_s=0.0)
    with run.led(say) if run.far else nullcontext():  # how far it got is kept in the store, too
        if run.far or not seems_led(run):
            _complete(run)
        return mlflow_writer.sync(run.path, timeout_s=timeout_s, begin=begin)


def tell_left(place: Place, briefs: Iterable[Brief], within_s: float = WITHIN_S) -> None:
    """Close the runs of a folder whose leaders are gone, and tell the store, for so long together. What cannot be done
    is left to the next who looks. (Runs in a store are left alone: their leases are watched for long.)"""
    if place.url is not None:
        return
    left = [named(place, brief.run) for brief in briefs if brief.unclosed and brief.kind != SWEEP]
    deadline = time.monotonic() + within_s
    for run in left:
        with suppress(HeadwayError, OSError):
            close(run, tracking_s=0.0)
    for run in left:
        if run.spool.exists() and time.monotonic() < deadline:
            with suppress(HeadwayError, OSError):
                tell(run, deadline - time.monotonic(), begin=False)


def untold(place: Place, brief: Brief, timeout_s: float, say: Callable[[str], None] = nobody) -> str:
    """Why the store does not know of a run's end, though it was tried to tell it now; empty where it does, or there is
    no need: the run keeps no such records, or is led."""
    if not (brief.unclosed or brief.unsent):
        return ""
    run = named(place, brief.run)
    if run.far:
        run.refresh()
    if not run.spool.exists():
        return ""
    try:
        told = tell(run, timeout_s, say, begin=False)
    except BadInput as error:
        return f"its records wait for MLflow: {error.reason or error.fact}"
    if not told.whole:
        return f"its records wait for MLflow: {told.error or 'they were not sent in time'}"
    return ""


def _complete(run: RunFolder) -> None:
    """Have the run's end among what waits for the store, where it was kept and not told: once."""
    try:
        with run.hold_records(GLANCE_S):
            facts, spool = _facts(run), Spool(run.spool)
            end = _end(facts)
            if end is None or spool.size() == 0 or spool.state() in (None, end.state):
                return
            told = {"state": end.state, "message": end.message, "cause": end.cause}
            at = float(facts.get("ended") or run.spool.stat().st_mtime)
            spool.append({"kind": "state", "time": at, **told, "tags": at_end(facts)})
            spool.close()
    except (BlockingIOError, ValueError):  # what kept the records lives: it tells its end itself
        return


def _facts(run: RunFolder) -> dict[str, Any]:
    """Of a run, or a sweep."""
    path = run.path / SWEEP_FACTS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else run.read()


def _end(facts: dict[str, Any]) -> End | None:
    """What became of it; None of a run that should be closed first. A sweep that nobody leads is interrupted."""
    state, message = str(facts.get("state", "running")), str(facts.get("message") or "")
    if state != "running":
        return End(state, message, facts.get("cause"))  # type: ignore[arg-type]
    return End("interrupted", GONE) if "run" not in facts else None
