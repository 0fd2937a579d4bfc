"""Which jobs can never run here, and why: told when they come, rather than that they wait for ever."""

from __future__ import annotations

from collections.abc import Sequence

from headway.core import queue_words as words
from headway.core.holdings import at_least
from headway.core.queued import Each, Node, Queued, Refuse, Rules
from headway.core.quotas import Allowances
from headway.core.slots import Shape, fit, room


class Door:
    """Asks of each job whether it can run, some day.

    Its size is held against the nodes and `Rules.could_come` where that is told: without it nobody knows what may join.

    Args:
        nodes: that are there, those that drain among them.
    """

    def __init__(self, nodes: Sequence[Node], rules: Rules) -> None:
        self._nodes, self._rules = nodes, rules
        self._allowances = Allowances(rules.quotas)
        self._fit: dict[Each, int] = {}

    def refuse(self, job: Queued) -> Refuse | None:
        """Why a job can never run here; None: it can."""
        least = at_least(job)
        if least > job.most or least < 1:
            allowed = f", of sizes {', '.join(map(str, job.sizes))}" if job.sizes else ""
            return Refuse(
                job.job,
                f"{job.job} may have {job.least} to {job.most} workers{allowed}",
                "no size is within that",
                f"set workers.min to {max(1, job.most)} or less{', or allow a size between' if job.sizes else ''}",
            )
        number = self._allowances.blocks(job, least) if self._allowances.quotas else None
        if number is not None:
            reason = f"that is more than its quota: {self._allowances.limit(number)}"
            return Refuse(job.job, words.needs(job, least), reason, "set workers.min lower, or have the quota raised")
        if self._rules.could_come is None:
            return None
        there = self._fits(job.each, self._rules.could_come)
        if there >= least:
            return None
        reason = f"the whole cluster holds {there} of them, with all machines that could come"
        remedy = f"set workers.min to {there} or less" if there else "ask for less per worker, or for larger machines"
        return Refuse(job.job, words.needs(job, least), reason, remedy)

    def _fits(self, each: Each, could_come: Sequence[tuple[Each, int]]) -> int:
        """How many such workers the cluster could hold, once nobody else has a part of it."""
        if each not in self._fit:
            shape = Shape(each)
            there = sum(fit(room(node.total or node.has), shape) for node in self._nodes)
            self._fit[each] = there + sum(fit(room(has), shape) * many for has, many in could_come)
        return self._fit[each]


def refuse(job: Queued, nodes: Sequence[Node], rules: Rules) -> Refuse | None:
    """Why a job can never run here; None: it can, some day."""
    return Door(nodes, rules).refuse(job)
