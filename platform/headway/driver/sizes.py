"""The size of a run that is led: handed to the controller when somebody asks for another, and kept over a resume."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headway.driver.names import Names
from headway.job import Job
from headway.runs import RunFolder
from headway.runs.requests import AS_BEFORE, Resize

logger = logging.getLogger(__name__)


class Sizes:
    """What was asked for, on its way to the controller, which may not be there yet.

    Args:
        job: of the run, as it begins.
        names: of its actors.
    """

    def __init__(self, job: Job, names: Names) -> None:
        self._job, self._names = job, names
        self._asked: deque[Resize] = deque()

    def ask(self, wish: Resize) -> None:
        """In any thread. Whoever asked before the run began did not see its job: what that leaves open is filled in
        here, no more are taken than its lanes can carry, and what it forbids is not taken."""
        most = min(wish.max, self._job.units)
        least = min(self._job.workers.min if wish.min == AS_BEFORE else wish.min, most)
        workers = self._job.workers.model_copy(update={"min": least, "max": most})
        why = next(workers.contradictions(), None)
        if least < 1 or wish.min > wish.max or why is not None:
            logger.warning("the size that %s asked for is not taken: %s", wish.by, why or f"{wish.min}..{wish.max}")
            return
        at_once = min(wish.at_once, most)
        self._asked.append(replace(wish, min=least, max=most, at_once=at_once))

    def hand_on(self) -> None:
        """By the thread that leads: what waits goes to the controller, once it is there."""
        controller = self._names.find("controller") if self._asked else None
        while controller is not None and self._asked:
            wish = self._asked.popleft()
            controller.resize.remote(wish.min, wish.max, wish.by, wish.id, wish.at_once, wish.leave)


def kept(run: RunFolder, settings: Sequence[str]) -> list[str]:
    """Settings by which a resume goes on with the size that was asked for last; those that name another follow."""
    target: Any = run.read().get("target")
    if not isinstance(target, dict):  # of a release before
        return list(settings)
    return [f"workers.min={target['min']}", f"workers.max={target['max']}", *settings]


def noted(run: RunFolder, least: int, most: int, granted: int = 0) -> dict[str, Any]:
    """The facts of a run that begins, or goes on, with this size. granted: so many places are its own already, and are
    all taken."""
    before: Any = run.read().get("target")
    same = isinstance(before, dict) and (before["min"], before["max"]) == (least, most)
    at_once = before.get("at_once", least) if same else least
    at_once = min(granted, most) or at_once
    return {"target": {"min": least, "max": most, "request": "", "at_once": at_once}}


def at_once(run: RunFolder) -> int:
    """So many workers are asked of a cluster that buys machines whether or not it pays."""
    return int(run.read()["target"]["at_once"])
