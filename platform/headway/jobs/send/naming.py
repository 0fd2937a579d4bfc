"""One run of a name: looked for before a submission is sent, where it can be seen. The cluster looks again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from headway import runs as kept
from headway.errors import BadInput
from headway.jobs.api.client import RayJobs
from headway.jobs.look.asking import LEADS
from headway.jobs.send import sending
from headway.jobs.send.wording import options
from headway.jobs.spec import Spec
from headway.runs import Place
from headway.runs.listing import Brief

LOOK_S = 5.0
"""So long the store is asked that keeps the runs; this machine may not reach it."""

T = TypeVar("T")


class Look:
    """A look into the store that keeps the runs, begun at once and waited for later: other things are done meanwhile.

    Args:
        runs: where runs are kept, as a submission says it.
        run: the name.
    """

    def __init__(self, runs: str | None, run: str) -> None:
        place = visible(runs)
        self._wait = (lambda: None) if place is None else begun(lambda: kept.glance(place, run), LOOK_S)

    def found(self) -> Brief | None:
        """The run; None where there is none, or it cannot be seen from here."""
        return self._wait()


def refuse_twice(api: RayJobs, spec: Spec, look: Look) -> None:
    """Whether a run of that name can be made.

    Raises:
        BadInput: the cluster's list has a job that leads a run of that name, or the store has the run; shows it.
    """
    there = options(api.address, spec.runs)
    listed = api.jobs()
    sending.sweep(api, listed)
    for found in listed:
        if found.alive and found.run == spec.run and found.kind in LEADS and found.runs == (spec.runs or ""):
            raise BadInput(
                f"{spec.run} is on {api.address} already",
                f"{found.by or 'somebody'} submitted it{_at(found.started)}, and Ray says that it is "
                f"{found.status.lower()}",
                f"Look at it (headway status {spec.run}{there}), end it (headway stop), or choose another --name.",
            )
    brief = look.found()
    if brief is not None:
        state = f"{brief.state} at step {brief.steps:,}" if brief.steps else brief.state
        raise BadInput(
            f"{brief.path} is taken",
            f"a run of that name is there, made{_at(brief.created)}; it is {state}",
            f"Look at it (headway status {spec.run}{there}), go on with it (headway resume), or choose another --name.",
        )


def visible(runs: str | None) -> Place | None:
    """The place of runs as this machine can see it. A folder here may be another than the cluster's."""
    place = None if runs is None else Place.of(runs)
    return place if place is not None and place.url is not None else None


def begun(action: Callable[[], T], within_s: float) -> Callable[[], T | None]:
    """Begin something that may never end; what is returned waits for it: None where it fails, or takes longer than
    that from now, and then it is left to itself."""
    found: list[T] = []

    def act() -> None:
        try:
            found.append(action())
        except Exception:  # out of reach, or not for us: the cluster looks again, and says why
            return

    thread = threading.Thread(target=act, name="looking", daemon=True)
    thread.start()
    deadline = time.monotonic() + within_s

    def wait() -> T | None:
        thread.join(max(0.0, deadline - time.monotonic()))
        return found[0] if found else None

    return wait


def _at(when: float | None) -> str:
    return time.strftime(" at %Y-%m-%d %H:%M:%S", time.localtime(when)) if when else ""
