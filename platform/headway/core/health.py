"""What a worker's signs of life mean: silence of each kind, a thread that hangs, a pace behind the others'."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

START_SILENCE_S = 60.0  # imports and builds may hold Python's lock for long
LONE_PATIENCE = 5.0  # nobody waits for a worker that is alone, and its user's code may be long at work
STOPPED_PATIENCE = 2.0  # its machine answers: it may be about to go on


@dataclass(frozen=True)
class Sign:
    """What is known of a worker now.

    Args:
        silent_s: seconds since it was last heard.
        answers: whether its machine acknowledges what is sent to it.
        still_s: seconds since its training thread's watermark moved.
        waiting: it waits for the others in an exchange or regroup.
        member: it is in the active generation.
    """

    silent_s: float
    answers: bool
    still_s: float
    waiting: bool
    member: bool


def verdict(sign: Sign, others_wait: bool, alone: bool, silence_s: float, hang_s: float) -> str | None:
    """Why the worker is to be held for gone, or None.

    Args:
        others_wait: some other member waits for it.
        alone: it is the only member.
        silence_s: longest silence while the link may be cut.
        hang_s: longest time without progress while others wait.
    """
    if not sign.member:
        return "start_failed" if sign.silent_s > max(START_SILENCE_S, silence_s) else None
    if not sign.answers and sign.silent_s > silence_s:
        return "link_cut"
    if sign.silent_s > STOPPED_PATIENCE * silence_s:
        return "stopped"
    if not sign.waiting and sign.still_s > hang_s * (LONE_PATIENCE if alone else 1.0) and (others_wait or alone):
        return "hung"
    return None


class Pace:
    """Finds workers that are slower than the others for several looks in a row.

    A worker is slow when its time per lane is above the median by more than five robust standard deviations
    (1.4826 times the median absolute deviation) and by more than `margin` of the median: the first for noise, the
    second for workers that are very even.

    Args:
        looks: so many in a row must agree.
        margin: relative.
    """

    def __init__(self, looks: int = 5, margin: float = 0.5) -> None:
        self._looks, self._margin = looks, margin
        self._behind: dict[str, int] = {}
        self._slow: dict[str, float] = {}

    def look(self, lane_s: Mapping[str, float]) -> dict[str, float]:
        """Take each member's recent seconds per lane; returns factors of those whose state changed (1.0: no longer)."""
        changed: dict[str, float] = {}
        for worker in [w for w in self._slow if w not in lane_s]:
            del self._slow[worker]
        outliers = _outliers(lane_s, self._margin) if len(lane_s) > 1 else {}
        for worker in lane_s:
            count = self._behind.get(worker, 0) + 1 if worker in outliers else 0
            self._behind[worker] = count
            if count >= self._looks and worker not in self._slow:
                self._slow[worker] = changed[worker] = round(outliers[worker], 2)
            elif count == 0 and worker in self._slow:
                del self._slow[worker]
                changed[worker] = 1.0
        return changed


def _outliers(lane_s: Mapping[str, float], margin: float) -> dict[str, float]:
    # With two workers the median lies between them; the faster one is then the measure.
    centre = statistics.median_low(lane_s.values())
    spread = 1.4826 * statistics.median_low(_distances(lane_s.values(), centre))
    limit = centre + max(5 * spread, margin * centre)
    return {worker: seconds / centre for worker, seconds in lane_s.items() if seconds > limit and centre > 0}


def _distances(values: Iterable[float], centre: float) -> list[float]:
    return [abs(value - centre) for value in values]
