"""Quotas: whether they contradict, and what of them is left while a decision is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from headway.core.queued import Contradiction, Queued, Quota

AMOUNTS = ("workers", "cpus", "gpus", "memory", "jobs")
JOBS = AMOUNTS.index("jobs")
TINY = 1e-9


def whose(quota: Quota) -> str:
    """In words."""
    return f"user {quota.user}" if quota.user else f"team {quota.team}"


def contradictions(quotas: Sequence[Quota], team_of: dict[str, str] | None = None) -> list[Contradiction]:
    """What cannot hold at once, or means nothing.

    Args:
        team_of: the team of a user, where that is known.
    """
    found: list[Contradiction] = []
    seen: dict[str, Quota] = {}
    for quota in quotas:
        if bool(quota.user) == bool(quota.team):
            said = "names neither a user nor a team"
            if quota.user:
                said = f"names user {quota.user} and team {quota.team}"
            found.append(Contradiction(f"a quota {said}", "it is one of the two's", "name one of them"))
            continue
        who = whose(quota)
        if who in seen and seen[who] != quota:
            found.append(
                Contradiction(f"{who} has two quotas that differ", "nobody knows which holds", "leave one of them out")
            )
        seen[who] = quota
        for name in AMOUNTS:
            amount = getattr(quota, name)
            if amount is not None and not amount >= 0:
                fact = f"{name}={amount} in the quota of {who}"
                found.append(Contradiction(fact, "nobody can hold less than none", "set 0 or more"))
        if not (quota.share > 0 and math.isfinite(quota.share)):
            found.append(
                Contradiction(f"share={quota.share:g} in the quota of {who}", "shares are weights", "set it above 0")
            )
    for user, team in sorted((team_of or {}).items()):
        mine, theirs = seen.get(f"user {user}"), seen.get(f"team {team}")
        for name in AMOUNTS if mine and theirs else ():
            own, whole = getattr(mine, name), getattr(theirs, name)
            if own is not None and whole is not None and own > whole:
                found.append(
                    Contradiction(
                        f"user {user} may have {name}={own:g}, and team {team} {name}={whole:g}",
                        "the user's jobs count against the team's quota too",
                        f"set the user's {name} to {whole:g} or less, or the team's to {own:g} or more",
                    )
                )
    return found


class Allowances:
    """What is used of each quota while a decision is made."""

    def __init__(self, quotas: Iterable[Quota]) -> None:
        self.quotas = list(quotas)
        self._by_user: dict[str, list[int]] = {}
        self._by_team: dict[str, list[int]] = {}
        self._of: dict[tuple[str, str], list[int]] = {}
        self._limits: list[list[tuple[int, float]]] = []
        """By quota: (which of `AMOUNTS`, how much) of what is limited."""
        self._used: list[list[float]] = []
        for number, quota in enumerate(self.quotas):
            by, name = (self._by_user, quota.user) if quota.user else (self._by_team, quota.team)
            by.setdefault(name, []).append(number)
            amounts = [getattr(quota, name) for name in AMOUNTS]
            self._limits.append([(what, float(amount)) for what, amount in enumerate(amounts) if amount is not None])
            self._used.append([0.0] * len(AMOUNTS))

    def of(self, job: Queued) -> list[int]:
        """Numbers of the quotas that it counts against."""
        found = self._of.get((job.user, job.team))
        if found is None:
            found = self._by_user.get(job.user, []) + (self._by_team.get(job.team, []) if job.team else [])
            found = self._of[job.user, job.team] = [number for number in found if self._limits[number]]
        return found

    def add(self, job: Queued, workers: int, jobs: int, sign: int = 1) -> None:
        """A job has so many workers more (sign -1: less), and jobs that run become more by so many."""
        for number in self.of(job):
            used = self._used[number]
            for what, _ in self._limits[number]:
                used[what] += sign * (_one(job, what) * workers if what < JOBS else jobs)

    def more(self, job: Queued, most: int) -> int:
        """How many workers more it may have, up to `most`, if it runs already."""
        for number in self.of(job):
            used = self._used[number]
            for what, limit in self._limits[number]:
                if what < JOBS and (one := _one(job, what)) > 0:
                    most = min(most, max(0, int((limit - used[what]) / one + TINY)))
        return most

    def blocks(self, job: Queued, workers: int) -> int | None:
        """The number of the quota that keeps it from beginning with so many; None: none does."""
        return next(self.exceeded(job, workers, min(1, workers)), None)

    def exceeded(self, job: Queued, workers: int, jobs: int) -> Iterator[int]:
        """Numbers of the quotas that would not hold if it had so many workers more, and so many jobs more ran."""
        for number in self.of(job):
            used = self._used[number]
            for what, limit in self._limits[number]:
                more = _one(job, what) * workers if what < JOBS else jobs
                if used[what] + more > limit * (1 + TINY) + TINY:
                    yield number
                    break

    def limit(self, number: int) -> str:
        """A quota, in words."""
        parts = [f"{limit:g} {AMOUNTS[what]}" for what, limit in self._limits[number]]
        return f"{whose(self.quotas[number])} may have {', '.join(parts)}"

    def said(self, number: int) -> str:
        """A quota and what is used of it, in words."""
        used = self._used[number]
        parts = [f"{used[what]:g} of {limit:g} {AMOUNTS[what]}" for what, limit in self._limits[number]]
        return f"{whose(self.quotas[number])} has {', '.join(parts)}"


def _one(job: Queued, what: int) -> float:
    """What one worker takes, by the place in `AMOUNTS`."""
    if what == 0:
        return 1.0
    each = job.each
    return each.cpus if what == 1 else each.gpus if what == 2 else each.memory
