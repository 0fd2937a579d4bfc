"""When people are told of a run, and when that is over: decided from what is seen of it. Nothing is sent from here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

STALLED, STORM, BUDGET = "stalled", "recovery_storm", "budget"
KINDS = ("finished", "stopped", "failed", STALLED, STORM, BUDGET)
"""What is told. stopped: on request, by a signal, or because its leader was gone."""
OF_STATES = {"finished": "finished", "stopped": "stopped", "interrupted": "stopped", "failed": "failed"}
USUAL = 5.0
"""A step may take so many times as long as steps do, whatever the limit says."""
SETTLES = 0.2
"""Of each new step in what is held for usual."""
OUTLIER = 10.0
"""A step counts for no more than so many usual ones, or one stall would excuse the next."""
BLIND_S = 30.0
"""Who did not look for so long stood still itself, and knows nothing of that time."""
SHARES = (0.9, 1.0)
"""Of a budget, at which it is told."""


@dataclass(frozen=True)
class Limits:
    """When it is too much.

    Args:
        stalled_s: seconds without anything being done.
        storm: losses of workers within storm_s seconds.
    """

    stalled_s: float = 600.0
    storm: int = 5
    storm_s: float = 600.0


@dataclass(frozen=True)
class Seen:
    """A run (or a sweep) at one moment.

    Args:
        step: committed so far; total_steps: asked for, 0 while not known.
        done: grows with whatever gets done: steps, evaluations.
        losses: how often it went on after a loss, in all.
        waits: why nobody trains; empty while somebody does.
        used: share of its budget; None where it has none.
        foreseen: what of its money or its time will not do, in words.
    """

    step: int = 0
    total_steps: int = 0
    done: int = 0
    losses: int = 0
    waits: str = ""
    used: float | None = None
    foreseen: str = ""


@dataclass(frozen=True)
class Word:
    """What is to be told.

    Args:
        kind: one of `KINDS`.
        text: in a few words, without the run's name.
        over: what was told before is over.
    """

    kind: str
    text: str
    over: bool = False


class Alarms:
    """Each is told once, and once more when it is over.

    Args:
        at: seconds on a clock that only goes on; the same one throughout.
        seen: as it begins: what was so before was told before.
    """

    def __init__(self, limits: Limits, at: float, seen: Seen) -> None:
        self._limits = limits
        self._looked = self._moved = at
        self._seen = seen
        self._usual_s = 0.0
        self._stalled = self._storms = False
        self._losses: deque[float] = deque()
        self._share = max((share for share in SHARES if seen.used is not None and seen.used >= share), default=0.0)

    def look(self, at: float, seen: Seen) -> list[Word]:
        """What is to be told now."""
        if at - self._looked > BLIND_S:
            self._moved += at - self._looked
        self._looked = at
        words = [*self._stall(at, seen), *self._storm(at, seen), *self._budget(seen)]
        self._seen = seen
        return words

    def _stall(self, at: float, seen: Seen) -> list[Word]:
        lasted = at - self._moved
        if seen.done != self._seen.done:
            steps, self._moved = seen.step - self._seen.step, at
            words = [Word(STALLED, f"it goes on after {span(lasted)} (step {_of(seen)})", over=True)]
            words, self._stalled = words if self._stalled else [], False
            if steps > 0:
                each = min(lasted / steps, OUTLIER * self._usual_s or lasted)
                self._usual_s += (each - self._usual_s) * SETTLES if self._usual_s else each
            return words
        if self._stalled or lasted < max(self._limits.stalled_s, USUAL * self._usual_s):
            return []
        self._stalled = True
        why = f"; it waits: {seen.waits}" if seen.waits else ""
        return [Word(STALLED, f"no step for {span(lasted)} (step {_of(seen)}){why}")]

    def _storm(self, at: float, seen: Seen) -> list[Word]:
        limits, losses = self._limits, self._losses
        losses.extend([at] * max(0, seen.losses - self._seen.losses))
        while losses and at - losses[0] > limits.storm_s:
            losses.popleft()
        if not self._storms and len(losses) >= limits.storm:
            self._storms = True
            return [Word(STORM, f"{len(losses)} losses of workers within {span(limits.storm_s)}")]
        if self._storms and not losses:
            self._storms = False
            return [Word(STORM, f"no worker was lost for {span(limits.storm_s)}", over=True)]
        return []

    def _budget(self, seen: Seen) -> list[Word]:
        foreseen = []
        if bool(seen.foreseen) != bool(self._seen.foreseen):
            over = not seen.foreseen
            foreseen = [Word(BUDGET, "its money and its time do again" if over else seen.foreseen, over)]
        return [*foreseen, *self._spent(seen)]

    def _spent(self, seen: Seen) -> list[Word]:
        reached = max((share for share in SHARES if seen.used is not None and seen.used >= share), default=0.0)
        if reached <= self._share:
            return []
        self._share = reached
        return [Word(BUDGET, "its budget is spent" if reached >= 1.0 else f"{seen.used:.0%} of its budget is spent")]


def ended(state: str, message: str, seen: Seen) -> list[Word]:
    """What is told of its end."""
    kind = OF_STATES.get(state)
    if kind is None:
        return []
    told = f"{state}: {message}" if message else state
    return [Word(kind, told if "step" in message else f"{told} (step {_of(seen)})")]


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _of(seen: Seen) -> str:
    return f"{seen.step} of {seen.total_steps}" if seen.total_steps else str(seen.step)
