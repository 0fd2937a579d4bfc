"""Why nobody trains at the moment, in words for people."""

from __future__ import annotations

from headway.core.membership import MEMBER, READY, WARMING, Membership


def why(membership: Membership) -> str:
    """What a run waits for; empty while a generation trains, and when all is over."""
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
        told.append(f"{sought} {'has' if sought == 1 else 'have'} no place on the cluster yet")
    return f"for workers: {', '.join(told)}"
