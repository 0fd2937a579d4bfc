"""Who is in the next generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from headway.core.roster import LEAVING, MEMBER, READY, Policy, Worker


def seats(lanes: int, most: int) -> int:
    """Most members that any generation may have: all that are wanted, and one that hands its state over and leaves."""
    return min(lanes, most + 1)


def survivors(
    policy: Policy, workers: Mapping[str, Worker], alive: Sequence[str], holders: Collection[str], at: float
) -> list[str]:
    """The members of an urgent generation, at most `seats`.

    Everybody that may hold the newest state is in it, drained or not: one that leaves may be the only one that
    completed the exchange that broke. Others are in it only where fewer than `min` would be left.

    Args:
        workers: all there are.
        alive: members, in order of rank.
        holders: who was in the last generation that was told to go; others that are gone may be among them.
    """
    hold = [m for m in alive if m in holders]
    lasting = sum(not due(policy, workers[m], at) for m in hold)
    if lasting >= policy.min:
        return hold
    fresh = [m for m in alive if m not in holders and workers[m].phase == MEMBER]
    fresh += [m for m, w in workers.items() if w.phase == READY]
    if not fresh and not lasting:
        return []
    room = seats(policy.lanes, policy.max) - len(hold)
    return hold + fresh[: max(0, min(room, policy.max - lasting))]


def planned(
    policy: Policy,
    workers: Mapping[str, Worker],
    alive: Sequence[str],
    holders: Collection[str],
    at: float,
    newcomers: bool,
) -> list[str]:
    """The members of a planned generation by the wishes of the moment: who stays, then who is ready, at most max.

    Those that leave work on while fewer than max are there, unless their deadline is near; and where nobody else holds
    the state, one of them hands it over.

    Args:
        newcomers: whether anybody new may enter now. The others as of `survivors`.
    """
    wanted = [m for m in alive if workers[m].phase == MEMBER]
    if newcomers:
        wanted += [m for m, w in workers.items() if w.phase == READY]
    wanted = wanted[: policy.max]
    leaving = [m for m in alive if workers[m].phase == LEAVING]
    kept: list[str] = []
    if leaving:
        held = any(m in holders for m in wanted)
        for m in sorted(leaving, key=lambda m: -(workers[m].deadline or 0.0)):
            there = len(wanted) + len(kept)
            short = not due(policy, workers[m], at) and there < policy.max
            if short or (there > 0 and m in holders and not held):
                kept.append(m)
                held = held or m in holders
    order = {m: i for i, m in enumerate(alive)}
    return sorted(wanted[: policy.lanes - len(kept)] + kept, key=lambda m: order.get(m, len(order)))


def surplus(
    workers: Mapping[str, Worker],
    members: Sequence[str],
    holders: Collection[str],
    number: int,
    leave: Iterable[str] = (),
) -> list[str]:
    """So many of the members that it costs least to let go.

    First those on nodes that somebody else needs; then those that have not trained; then those whose node is left by
    all that work there, so that it can go; then the newest.

    Args:
        workers: all there are, oldest first.
        holders: who was in the last generation that was told to go.
        leave: nodes that are needed, once for each worker that had best leave it.
    """
    let_go: list[str] = []
    on_node, needed = Counter(w.node for w in workers.values()), Counter(leave)
    age = {m: i for i, m in enumerate(workers)}
    staying = list(members)
    for _ in range(number):
        least = min(
            staying,
            key=lambda m: (needed[workers[m].node or ""] <= 0, m in holders, on_node[workers[m].node], -age[m]),
        )
        staying.remove(least)
        let_go.append(least)
        on_node[workers[least].node] -= 1
        needed[workers[least].node or ""] -= 1
    return let_go


def due(policy: Policy, worker: Worker, at: float) -> bool:
    """Whether a worker's machine is about to be taken away."""
    return worker.deadline is not None and at >= worker.deadline - policy.leave_s


def enough(policy: Policy, workers: Mapping[str, Worker], wanted: Sequence[str], at: float, urgent: bool) -> bool:
    """Whether as many as `min` would train, for longer than until the next deadline."""
    lasting = sum(not due(policy, workers[m], at) for m in wanted)
    handover = any(workers[m].phase == LEAVING for m in wanted)
    if wanted and (urgent or handover):  # who is ready and found no seat beside those that leave comes in right after
        chosen = set(wanted)
        lasting += sum(w.phase == READY and m not in chosen for m, w in workers.items())
    return lasting >= policy.min
