"""Quotas: whether they contradict, and what of them is left while a decision is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from headway.core.queued import Contradiction, Queued, Quota

AMOUNTS = ("workers", "cpus", "gpus", "memory", "jobs")


def whose(quota: Quota) -> str:
    """In words."""
    return f"user {quota.user}" if quota.user else f"team {quota.team}"


def contradictions(quotas: Sequence[Quota], team_of: dict[str, str] | None = None) -> list[Contradiction]:
    """What cannot hold at once, or means nothing.

    Args:
        team_of: the team of a user, where that is known.
    """
    found, seen = [], {}
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


def costs(job: Queued, workers: int) -> tuple[float, float, float, float, float]:
    """What so many workers of a job, newly run, count for, in the order of `AMOUNTS`."""
    each = job.each
    return (workers, each.cpus * workers, each.gpus * workers, each.memory * workers, 1 if workers else 0)


class Allowances:
    """What is used of each quota while a decision is made."""

    def __init__(self, quotas: Iterable[Quota]) -> None:
        self._by_user: dict[str, list[int]] = {}
        self._by_team: dict[str, list[int]] = {}
        self.quotas = list(quotas)
        self._limits: list[tuple[float, ...]] = []
        self._used: list[list[float]] = []
        for number, quota in enumerate(self.quotas):
            by, name = (self._by_user, quota.user) if quota.user else (self._by_team, quota.team)
            by.setdefault(name, []).append(number)
            amounts = (getattr(quota, name) for name in AMOUNTS)
            self._limits.append(tuple(math.inf if amount is None else amount for amount in amounts))
            self._used.append([0.0] * len(AMOUNTS))

    def of(self, job: Queued) -> list[int]:
        """Numbers of the quotas that it counts against."""
        if not self.quotas:
            return []
        mine = self._by_user.get(job.user, [])
        return mine + self._by_team.get(job.team, []) if job.team else mine

    def add(self, job: Queued, workers: int, jobs: int, sign: int = 1) -> None:
        """A job has so many workers more (sign -1: less), and jobs that run become more by so many."""
        for number in self.of(job):
            used = self._used[number]
            each = job.each
            used[0] += sign * workers
            used[1] += sign * each.cpus * workers
            used[2] += sign * each.gpus * workers
            used[3] += sign * each.memory * workers
            used[4] += sign * jobs

    def more(self, job: Queued, most: int) -> int:
        """How many workers more it may have, up to `most`, if it runs already."""
        for number in self.of(job):
            used, limits = self._used[number], self._limits[number]
            ones = (1.0, job.each.cpus, job.each.gpus, job.each.memory)
            for there, limit, one in zip(used, limits, ones, strict=False):
                if one > 0 and limit < math.inf:
                    most = min(most, int((limit - there + 1e-6) / one)) if limit - there > 0 else 0
        return most

    def blocks(self, job: Queued, workers: int) -> int | None:
        """The number of the quota that keeps it from beginning with so many; None: none does."""
        for number in self.of(job):
            used, limits = self._used[number], self._limits[number]
            for there, limit, one in zip(used, limits, costs(job, workers), strict=True):
                if there + one > limit + 1e-6 * max(1.0, abs(limit) if limit < math.inf else 1.0):
                    return number
        return None

    def limit(self, number: int) -> str:
        """A quota, in words."""
        quota = self.quotas[number]
        parts = [f"{getattr(quota, name):g} {name}" for name in AMOUNTS if getattr(quota, name) is not None]
        return f"{whose(quota)} may have {', '.join(parts)}"

    def said(self, number: int) -> str:
        """A quota and what is used of it, in words."""
        quota, used = self.quotas[number], self._used[number]
        parts = [
            f"{there:g} of {getattr(quota, name):g} {name}"
            for name, there in zip(AMOUNTS, used, strict=True)
            if getattr(quota, name) is not None
        ]
        return f"{whose(quota)} has {', '.join(parts)}"
