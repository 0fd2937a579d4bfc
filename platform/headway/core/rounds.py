"""Rounds of replicas: what each does next, when all meet, and who hands a replica to whom when members change.

Between two exchanges the replicas of a run (sets of lanes with weights of their own) go on by themselves, each at its
own step. What a round began with is known to all; so one that is lost is computed again from there by whoever adopts
it, while the others go on from where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def end(step: int, every: int, total: int) -> int:
    """The step at whose beginning the round ends that `step` is in: a multiple of `every`, or the run's end."""
    return min(total, step - step % every + every)


@dataclass(frozen=True)
class Has:
    """What a member has when members change.

    Args:
        live: replicas that it carried, and the step that each does next.
        backups: replicas of which it has a copy, and the step that each copy does next.
    """

    live: Mapping[int, int]
    backups: Mapping[int, int]


@dataclass(frozen=True)
class Move:
    """A replica's state goes from one member to another, or stays: then it is taken from a copy.

    Args:
        replica: its number.
        source, target: ranks.
        copy: it is a backup that the source has, else the live state.
        backup: the target keeps it as a backup.
    """

    replica: int
    source: int
    target: int
    copy: bool
    backup: bool


def moves(found: Sequence[Has], carried: Sequence[Sequence[int]], backed_up: bool) -> tuple[list[Move], list[int]]:
    """How every replica comes to its carrier, and a copy to the carrier's successor.

    Args:
        found: by rank.
        carried: replicas by rank.
        backed_up: whether there are copies.

    Returns:
        The moves in order, without those that change nothing; and the replicas that nobody has.
    """
    made: list[Move] = []
    lost: list[int] = []
    for target, replicas in enumerate(carried):
        for replica in replicas:
            source, copy = _best(found, replica, target)
            if source is None:
                lost.append(replica)
            elif source != target or copy:
                made.append(Move(replica, source, target, copy, backup=False))
    if not backed_up or len(carried) < 2:
        return made, sorted(lost)
    for rank, replicas in enumerate(carried):
        keeper = successor(rank, len(carried))
        for replica in replicas:
            if replica in lost or replica in found[keeper].backups:
                continue
            holders = [r for r, has in enumerate(found) if replica in has.backups]
            if holders:
                made.append(Move(replica, holders[0], keeper, copy=True, backup=True))
            else:
                made.append(Move(replica, rank, keeper, copy=False, backup=True))  # as it is by then
    return made, sorted(lost)


def successor(rank: int, size: int) -> int:
    """The rank of whoever keeps copies of a member's replicas."""
    return (rank + 1) % size


def keeper(rank: int, size: int, stays: frozenset[int]) -> int | None:
    """The rank of whoever keeps copies of a member's replicas where some are about to leave: the next that stays. None:
    nobody else does."""
    after = ((rank + hop) % size for hop in range(1, size))
    return next((other for other in after if other in stays), None)


def staying(told: Sequence[tuple[int, Sequence[str]] | None], names: Sequence[str]) -> frozenset[int]:
    """Ranks of those that stay, by the newest that members know of the next generation: its number and its members."""
    known = [each for each in told if each is not None]
    if not known:
        return frozenset(range(len(names)))
    members = max(known, key=lambda each: each[0])[1]
    return frozenset(rank for rank, name in enumerate(names) if name in members)


def _best(found: Sequence[Has], replica: int, target: int) -> tuple[int | None, bool]:
    """Who has a replica's newest state, and whether it is a copy; of equals the target itself."""
    having = [(has.live[replica], rank == target, -rank) for rank, has in enumerate(found) if replica in has.live]
    if having:
        return -max(having)[2], False
    copies = [(has.backups[replica], rank == target, -rank) for rank, has in enumerate(found) if replica in has.backups]
    return (-max(copies)[2], True) if copies else (None, False)
