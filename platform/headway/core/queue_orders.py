"""What a queue lacks on a cluster that buys machines: for whom, and how much. Pure.

Who waits for room gets it from jobs that have more than their least, and from machines that are there. Only what is
missing beyond that is worth an order, and only for the first who would begin by it: who waits for a quota, or for
another's turn, has no use for a machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headway.core.holdings import at_least
from headway.core.queue import decide
from headway.core.queued import Node, Queued, Resume, Rules, Start

LOOK_AT = 4
"""Of those that wait, so many are looked at."""


@dataclass(frozen=True)
class Lacking:
    """Args:
    job: the first that would begin if there were room for more.
    workers: so many of its own, beside what there is.
    """

    job: str
    workers: int


def lacking(
    now: float, jobs: Sequence[Queued], nodes: Sequence[Node], rules: Rules, waits: Iterable[str]
) -> Lacking | None:
    """What is to be ordered; None: nobody who waits would begin by it.

    Args:
        now, jobs, nodes, rules: see `headway.core.queue.decide`.
        waits: those that wait by what was decided on these, in the order in which they are looked at.
    """
    named = {job.job: job for job in jobs}
    for name in [*waits][:LOOK_AT]:
        job = named[name]
        few, many = 0, at_least(job)
        if job.state not in ("waiting", "paused") or not _begins(now, jobs, nodes, rules, job, many):
            continue
        while many - few > 1:
            half = (few + many) // 2
            few, many = (few, half) if _begins(now, jobs, nodes, rules, job, half) else (half, many)
        return Lacking(name, many)
    return None


def _begins(now: float, jobs: Sequence[Queued], nodes: Sequence[Node], rules: Rules, job: Queued, workers: int) -> bool:
    """Whether it would, with room for so many of its workers more."""
    more = [Node(f"~{number}", job.each) for number in range(workers)]
    found = decide(now, jobs, [*nodes, *more], rules)
    return any(isinstance(action, Start | Resume) and action.job == job.job for action in found.actions)
