"""Which worker carries which lanes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise


def carried(lanes: int, workers: int) -> list[range]:
    """Lanes cut into one contiguous range per worker, sizes differing by at most one: 8 lanes on 3 workers are 3, 3, 2.

    Raises:
        ValueError: if there is no worker, or more workers than lanes (some would carry nothing).
    """
    if not 1 <= workers <= lanes:
        raise ValueError(f"{lanes} lanes cannot be carried by {workers} workers")
    share, extra = divmod(lanes, workers)
    starts = [rank * share + min(rank, extra) for rank in range(workers + 1)]
    return [range(start, stop) for start, stop in pairwise(starts)]


def moved(
    lanes: int,
    members: Sequence[str],
    before: Mapping[str, Sequence[int]],
    weights: Mapping[str, float] | None = None,
) -> tuple[tuple[int, ...], ...]:
    """Lanes for a new membership, with as few of them as possible changing hands.

    Args:
        lanes: number of lanes.
        members: in order of rank; at least one, at most `lanes`.
        before: what each carried so far, ascending; workers that are gone may be in it, new ones need not.
        weights: relative speed of a member, 1.0 where not given. Equal weights give shares that differ by one at most.

    Returns:
        Each member's lanes, ascending; every lane once. Members without a past get neighbouring lanes.

    Raises:
        ValueError: no members, or more than lanes.
    """
    if not 1 <= len(members) <= lanes:
        raise ValueError(f"{lanes} lanes cannot be carried by {len(members)} workers")
    quotas = _in_proportion(lanes, members, before, weights) if weights else _even(lanes, members, before)
    kept = {m: list(before.get(m, ())[: quotas[m]]) for m in members}
    carrier = {lane: m for m, held in kept.items() for lane in held}
    orphans = [lane for lane in range(lanes) if lane not in carrier]
    room = {m: quotas[m] - len(kept[m]) for m in members}
    rest = []
    for lane in orphans:  # first to who carries the sibling: their sum is then formed in one place
        sibling = carrier.get(lane ^ 1)
        if sibling is not None and room[sibling] > 0:
            kept[sibling].append(lane)
            room[sibling] -= 1
        else:
            rest.append(lane)
    at = 0
    for m in members:
        if room[m]:
            kept[m].extend(rest[at : at + room[m]])
            at += room[m]
    return tuple(tuple(sorted(kept[m])) for m in members)


def _even(lanes: int, members: Sequence[str], before: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """How many lanes each carries if all are as fast: a spare lane stays where there are more."""
    share, extra = divmod(lanes, len(members))
    quotas = dict.fromkeys(members, share)
    for m in sorted(members, key=lambda m: len(before.get(m, ())) <= share)[:extra] if extra else ():
        quotas[m] += 1
    return quotas


def _in_proportion(
    lanes: int, members: Sequence[str], before: Mapping[str, Sequence[int]], weights: Mapping[str, float]
) -> dict[str, int]:
    """How many lanes each carries: at least one, in proportion to weight; a spare lane stays where there are more."""
    weight = {m: weights.get(m, 1.0) for m in members}
    total = sum(weight.values())
    free = lanes - len(members)
    exact = {m: free * weight[m] / total for m in members}
    quotas = {m: 1 + int(exact[m]) for m in members}
    held = {m: len(before.get(m, ())) for m in members}
    spare = lanes - sum(quotas.values())
    # Equal remainders (equal weights) must tie exactly, so that the tie is broken by what is held, not by rounding.
    order = sorted(
        range(len(members)),
        key=lambda i: (-round(exact[members[i]] % 1.0, 9), -min(held[members[i]], quotas[members[i]] + 1), i),
    )
    for i in order[:spare]:
        quotas[members[i]] += 1
    return quotas
