"""Why nobody trains at the moment, in words for people."""

from __future__ import annotations

from headway.core.membership import MEMBER, READY, WARMING, Membership


def why(membership: Membership, market: str = "") -> str:
    """What a run waits for; empty while a generation trains, and when all is over. market: why the cluster cannot have
    more machines, where it cannot."""
    if membership.active is not None or membership.ended:
        return ""
    phases = [worker.phase for worker in membership.workers.values()]
    there = sum(phase in (READY, MEMBER) for phase in phases)
    starting, sought, least = phases.count(WARMING), membership.sought, membership.policy.min
    if membership.published is not None:
        return f"its {len(membership.published.members)} workers find each other"
    told = [f"{there} of {least} {'is' if there == 1 else 'are'} ready"]
    if starting:
        told.append(f"{starting} {'starts' if starting == 1 else 'start'}")
    if sought:
        told.append(_placeless(sought, market))
    return f"for workers: {', '.join(told)}"


def more(membership: Membership, market: str = "") -> str:
    """Why no more train than do; empty where nobody is sought, and while nobody trains at all."""
    if membership.active is None or membership.ended or not membership.sought:
        return ""
    training, most = len(membership.active.members), membership.policy.max
    if training >= most:  # who is sought would stand by
        return ""
    verb = "trains" if training == 1 else "train"
    return f"{training} of {most} workers {verb}: {_placeless(membership.sought, market)}"


def _placeless(sought: int, market: str) -> str:
    told = f"{sought} {'has' if sought == 1 else 'have'} no place on the cluster yet"
    return f"{told} ({market})" if market else told
