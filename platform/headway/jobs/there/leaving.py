"""A run whose driver was killed is closed by the driver's parent, which is still there; one that had not begun goes."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from headway import runs
from headway.core.ends import failed
from headway.driver import rayjob
from headway.errors import HeadwayError
from headway.jobs.spec import Spec
from headway.jobs.there import before
from headway.runs import Led, RunFolder, closing, epochs

PATIENCE_S = 120.0
"""For which the recorder of a driver that was killed is waited for, and then its lease: its store sees neither die."""
AGAIN_S = 2.0


def close(spec: Spec, began: dict[str, Any], why: str) -> str:
    """Close the run that a driver led; returns the state that it is in then, as far as that is known.

    Args:
        spec: of the submission.
        began: what the driver told of the run as it began.
        why: it ended, in words.
    """
    with suppress(HeadwayError, OSError), before.laid(spec):
        run = runs.find(rayjob.place(spec.runs)[0], began["run"])
        if _epoch(run) == began["epoch"]:  # else somebody goes on with it already
            closing.close(run, failed("ray", why), patience_s=PATIENCE_S)
        return str(run.read().get("state", "failed"))
    return "failed"


def undo(spec: Spec, why: str) -> None:
    """Leave nothing of a run that a driver made, and that did not begin; one that it was to go on with is closed."""
    if spec.kind not in ("train", "resume"):
        return
    with suppress(HeadwayError, OSError), before.laid(spec):
        run = runs.find(rayjob.place(spec.runs)[0], spec.run)
        facts = before.facts_of(run)
        if not before.is_ours(facts, spec) or facts.get("state") != "running":
            return
        if spec.kind == "train" and run.last_step() < 0:
            _removed(run)
        else:
            closing.close(run, failed("ray", why), patience_s=PATIENCE_S)


def _removed(run: RunFolder) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return run.remove()
        except Led:  # what its driver left behind lives on for a moment
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_S)


def _epoch(run: RunFolder) -> int:
    """In which it is led, or was led last."""
    far = run.far
    if far is None:
        return epochs.newest(run.path)
    from headway.runs.far import open_run

    return open_run(far).head().epoch
