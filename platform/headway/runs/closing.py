"""The books of a run whose leader is gone: closed, with the reason, by whoever finds it.

A leader closes them itself (`headway.elastic.lead.recorder`). One that was killed cannot: then its run says for ever
that it is running, in the place where it is kept and in the tracking store. Who finds that leads the run for a moment,
as one alone can, and writes what became of it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headway.core.ends import End, failed
from headway.durable import Lines, last_line
from headway.errors import TASK_FAILED, BadInput, HeadwayError
from headway.runs import epochs
from headway.runs.folder import RunFolder
from headway.runs.listing import GONE
from headway.runs.refusals import Led
from headway.runs.requests import this_person
from headway.tracking.told import at_end

QUIET_S = 120.0
"""A folder that other machines write to: where locks may not reach, a run is given up after so long without news."""
TRACKING_S = 20.0
AGAIN_S = 1.0


def nobody(_: str) -> None:
    """Says nothing to anybody."""


def close(
    run: RunFolder,
    end: End | None = None,
    say: Callable[[str], None] = nobody,
    patience_s: float = 0.0,
    tracking_s: float = TRACKING_S,
) -> End | None:
    """Close a run that says it is running, and that nobody leads.

    Args:
        run: as `headway.runs.find` gives it.
        end: what became of it, where that is known; else it was interrupted, since its leader is gone.
        say: takes a line for people, where this takes a while: a lease in a store is watched for as long as it lasts.
        patience_s: of who saw its leader die: for so long it is waited until what that left behind is gone too.
        tracking_s: seconds for the tracking store; 0: what it is to be told waits for whoever looks next.

    Returns:
        What it was closed with; None where it was closed already, or somebody leads it.

    Raises:
        OutOfReach: the store does not answer.
        BadInput: it cannot be written.
    """
    deadline = time.monotonic() + patience_s
    if run.read().get("state", "running") != "running" or (not patience_s and seems_led(run)):
        return None
    who = run.leader()
    while True:
        try:
            with run.led(say):
                return _close(run, end or _gone(run, who), this_person(), tracking_s, who)
        except Led:  # it lives after all, or what it left does, or somebody else closes it
            if time.monotonic() >= deadline:
                return None
            time.sleep(AGAIN_S)


def _gone(run: RunFolder, leader: str) -> End:
    said = f"{GONE} ({leader})" if leader else GONE
    if not run.job_file.exists():
        said += f", before it could keep the job; remove it: headway runs prune {run.name}"
    return End("interrupted", said)


def seems_led(run: RunFolder) -> bool:
    """Whether somebody seems to lead a run. Where it is in a folder, and its leader was on another machine, a lock may
    tell nothing: then news in the folder do."""
    if run.is_led():
        return True
    if run.far is not None:
        return False
    host = epochs.host(run.path, epochs.newest(run.path))
    return host not in (None, socket.gethostname()) and quiet_s(run.path) < QUIET_S


def quiet_s(folder: Path) -> float:
    """For how long nothing was written to a run's folder, by the clock of the disk's own machine."""
    probe = folder / f".now-{os.getpid()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
    except OSError:  # only read: by this machine's clock, then
        now = time.time()
    finally:
        with suppress(OSError):
            probe.unlink()
    written = [now - QUIET_S]
    for path in folder.glob("*.json*"):
        with suppress(OSError):
            written.append(path.stat().st_mtime)
    return now - max(written)


@contextmanager
def left(run: RunFolder, epoch: int) -> Iterator[None]:
    """For who leads a run: however what is done within is left, the run does not stay in the state of running. (Where
    another process leads it by now, it is that one's.)"""
    try:
        yield
    except BaseException as error:  # raised again
        with suppress(HeadwayError, OSError):
            if run.read().get("state", "running") == "running":
                _require_lead(run, epoch)
                _close(run, of_error(error), this_person())
        raise


def _require_lead(run: RunFolder, epoch: int) -> None:
    """Raises Superseded where another process leads the run."""
    if run.far is None:
        epochs.verify(run.path, epoch)
        return
    from headway.runs import far

    far.fence(far.open_run(run.far), epoch)


def of_error(error: BaseException) -> End:
    """What became of a run whose leader was left by an error that nothing else had told of before."""
    if isinstance(error, BadInput):  # it was not gone on with: what is to be closed is what its leader before left
        return End("interrupted", GONE)
    if isinstance(error, HeadwayError):
        return failed("task" if error.exit_code == TASK_FAILED else type(error).__name__, str(error))
    if isinstance(error, Exception):
        return failed("internal", f"{type(error).__name__}: {error}")
    return End("interrupted", "ended by a signal")


def _close(run: RunFolder, end: End, by: str, tracking_s: float = TRACKING_S, leader: str = "") -> End | None:
    """By who leads the run now, as `leader` did last. None where it was closed meanwhile."""
    with run.hold_records():
        facts = run.read()
        if facts.get("state", "running") != "running":
            return None
        told = {"state": end.state, "message": end.message, "cause": end.cause}
        at = _last_heard(run, facts)
        run.write({**facts, **told, "ended": at, "closed": {"by": by, "at": time.time(), "leader": leader}})
        step = run.last_step() + 1
        _append(run.events_file, {"kind": "end", "time": at, **told, "step": step, "closed_by": by})
    if run.spool.exists():
        _tell_tracking(run, {"kind": "state", "time": at, **told, "tags": at_end(facts)}, tracking_s)
    return end


def _last_heard(run: RunFolder, facts: dict[str, Any]) -> float:
    """When it was heard of last, in Unix seconds: it ended then, and not when it was found."""
    found = [float(facts.get("created", 0.0))]
    for path in (run.path / "steps.jsonl", run.events_file):
        with suppress(ValueError, KeyError, TypeError, OSError):
            found.append(float(json.loads(last_line(path))["time"]))
    return min(max(found), time.time())


def _append(path: Path, line: dict[str, Any]) -> None:
    file = Lines(path)
    try:
        file.append(json.dumps(line).encode() + b"\n")
    finally:
        file.close()


def _tell_tracking(run: RunFolder, event: dict[str, Any], timeout_s: float) -> None:
    """In the spool; and to the tracking store, where it takes that within some seconds (else `headway sync` does)."""
    from headway.tracking.mlflow_writer import sync
    from headway.tracking.spool import Spool

    spool = Spool(run.spool)
    spool.append(event)
    spool.close()
    if timeout_s > 0:
        with suppress(HeadwayError, OSError):
            sync(run.path, timeout_s=timeout_s, begin=False)
